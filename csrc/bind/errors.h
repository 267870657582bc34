// Exceptions of the library as those of Python; both modules translate by it.
#pragma once
#include <pybind11/pybind11.h>

#include <exception>

#include "core/error.h"

namespace fusedrnn {

// Sets Python's error, or lets what is none of ours pass on.
inline void set_python_error(const std::exception_ptr& error) {
  try {
    if (error) std::rethrow_exception(error);
  } catch (const TypeMismatch& e) {
    pybind11::set_error(PyExc_TypeError, e.what());
  } catch (const ShapeError& e) {
    pybind11::set_error(PyExc_ValueError, e.what());
  }
}

}  // namespace fusedrnn
