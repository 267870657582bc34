#include <pybind11/pybind11.h>

#include "bind/register.h"
#include "core/error.h"
#include "cpu/isa.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  m.doc() = "Fused recurrent kernels. Use them through fusedrnn.functional or the layers.";
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const fusedrnn::TypeMismatch& e) {
      py::set_error(PyExc_TypeError, e.what());
    } catch (const fusedrnn::ShapeError& e) {
      py::set_error(PyExc_ValueError, e.what());
    }
  });
  fusedrnn::isa();  // an unusable FUSEDRNN_ISA is reported by the import
  fusedrnn::register_config(m);
  fusedrnn::register_stack(m);
}
