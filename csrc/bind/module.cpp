#include <pybind11/pybind11.h>

#include "bind/errors.h"
#include "bind/register.h"
#include "cpu/isa.h"
#include "system/system.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  m.doc() = "Fused recurrent kernels. Use them through fusedrnn.functional or the layers.";
  py::register_exception_translator([](std::exception_ptr error) { fusedrnn::set_python_error(error); });
  fusedrnn::isa();  // an unusable FUSEDRNN_ISA is reported by the import
  // Made before anybody can fork while another thread makes them (core/process_locks.h).
  fusedrnn::bfloat16_kernels();
  fusedrnn::int8_kernels();
  fusedrnn::private_cache_bytes();
  fusedrnn::register_config(m);
  fusedrnn::register_stack(m);
  fusedrnn::register_addresses(m);
  fusedrnn::register_product(m);
  fusedrnn::register_memory(m);
  fusedrnn::register_update(m);
}
