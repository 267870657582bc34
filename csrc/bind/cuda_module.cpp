#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include "bind/cuda_arrays.h"
#include "bind/errors.h"
#include "bind/gil.h"
#include "cuda/stack.h"
#include "cuda/status.h"

namespace py = pybind11;

namespace fusedrnn::cuda {
namespace {

py::dict status_dict() {
  const Status s = status();
  py::list architectures, devices;
  for (size_t begin = 0; begin < s.architectures.size();) {
    const size_t end = std::min(s.architectures.find(',', begin), s.architectures.size());
    architectures.append(s.architectures.substr(begin, end - begin));
    begin = end + 1;
  }
  for (const DeviceInfo& device : s.devices)
    devices.append(py::dict(py::arg("name") = device.name,
                            py::arg("capability") = py::make_tuple(device.major, device.minor),
                            py::arg("memory") = device.memory_bytes));
  py::dict out;
  out["built"] = py::tuple(architectures);
  out["runtime"] = s.runtime;
  out["driver"] = s.driver ? py::object(py::int_(s.driver)) : py::none();
  out["devices"] = devices;
  out["error"] = s.error.empty() ? py::none() : py::object(py::str(s.error));
  return out;
}

// Null becomes None.
std::function<bool()> mark_stream(int device, uintptr_t stream) {
  std::function<bool()> passed;
  without_gil([&] { passed = mark(device, reinterpret_cast<void*>(stream)); });
  return passed;
}

}  // namespace
}  // namespace fusedrnn::cuda

// Nothing here, nor the loading of this module, reaches the driver; status() and the kernels do.
PYBIND11_MODULE(_cuda, m) {
  m.doc() = "Recurrent kernels on NVIDIA GPUs. Use them through fusedrnn.functional or the layers.";
  py::register_local_exception_translator([](std::exception_ptr error) {
    try {
      fusedrnn::set_python_error(error);
    } catch (const fusedrnn::cuda::OutOfMemory& e) {
      py::set_error(PyExc_MemoryError, e.what());
    }
  });
  m.def("status", &fusedrnn::cuda::status_dict);
  m.def(
      "device_of", [](uintptr_t address) { return fusedrnn::cuda::device_of(reinterpret_cast<const void*>(address)); },
      py::arg("address"));
  m.def("mark", &fusedrnn::cuda::mark_stream, py::arg("device"), py::arg("stream"));
  m.def("release_memory", [] { fusedrnn::without_gil(fusedrnn::cuda::release_memory); });
  m.def("set_cublas_candidates", &fusedrnn::cuda::set_cublas_candidates, py::arg("paths"));
  fusedrnn::cuda::register_view(m);
  fusedrnn::cuda::register_stack(m);
}
