// Arrays for those who compute in Python, in memory that earlier ones have left.
#include <limits>

#include "bind/arrays.h"
#include "bind/register.h"

namespace fusedrnn {
namespace {

py::array empty(const py::tuple& sizes, const std::string& dtype) {
  Shape shape;
  double bytes = sizeof(double);
  for (const py::handle size : sizes) {
    shape.push_back(py::cast<int64_t>(size));
    if (shape.back() < 0) fail("empty", "shape", "is " + to_string(shape), "sizes >= 0");
    bytes *= static_cast<double>(shape.back());
  }
  if (bytes > static_cast<double>(std::numeric_limits<int64_t>::max())) throw std::bad_alloc();
  if (dtype == "float32") return new_array<float>(shape);
  if (dtype == "float64") return new_array<double>(shape);
  throw TypeMismatch("empty: dtype is '" + dtype + "'; expected float32 or float64");
}

}  // namespace

void register_memory(py::module_& m) { m.def("empty", &empty, py::arg("shape"), py::arg("dtype")); }

}  // namespace fusedrnn
