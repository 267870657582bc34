// One registration function per topic; module.cpp calls them all.
#pragma once
#include <pybind11/pybind11.h>

namespace fusedrnn {
void register_stack(pybind11::module_& m);
void register_addresses(pybind11::module_& m);
void register_product(pybind11::module_& m);
void register_memory(pybind11::module_& m);
void register_update(pybind11::module_& m);
void register_config(pybind11::module_& m);
}  // namespace fusedrnn
