#include "bind/cuda_arrays.h"

#include <pybind11/stl.h>

#include "bind/dlpack.h"

namespace py = pybind11;

namespace fusedrnn::cuda {
namespace {

std::string place_name(int device) {
  return device == on_the_cpu ? "on the CPU" : "on CUDA device " + std::to_string(device);
}

Shape dense_strides(const Shape& shape) {
  Shape strides(shape.size());
  int64_t next = 1;
  for (size_t axis = shape.size(); axis-- > 0; next *= shape[axis]) strides[axis] = next;
  return strides;
}

bool is_empty(const Shape& shape) {
  for (const int64_t n : shape)
    if (n == 0) return true;
  return false;
}

std::string dtype_of(const DLDataType& type) {
  if (type.lanes == 1 && type.code == DLDataType::float_code && type.bits == 32) return "float32";
  if (type.lanes == 1 && type.code == DLDataType::float_code && type.bits == 64) return "float64";
  if (type.lanes == 1 && type.code == DLDataType::float_code && type.bits == 16) return "float16";
  if (type.lanes == 1 && type.code == DLDataType::bfloat_code && type.bits == 16) return "bfloat16";
  return "DLPack type code " + std::to_string(type.code) + " of " + std::to_string(type.bits) + " bits";
}

int device_of(const DLDevice& device) {
  if (device.type == DLDevice::cpu || device.type == DLDevice::cuda_host) return on_the_cpu;
  if (device.type == DLDevice::cuda || device.type == DLDevice::cuda_managed) return device.id;
  throw std::runtime_error("the array is on a device of DLPack type " + std::to_string(device.type) +
                           "; expected the CPU or a CUDA device");
}

// Takes the array over from a capsule of __dlpack__(); its deleter runs when the view dies.
template <class Managed> View take_over(Managed* managed, bool read_only) {
  const std::shared_ptr<void> owner(managed, [](void* m) {
    auto* tensor = static_cast<Managed*>(m);
    if (tensor->deleter) tensor->deleter(tensor);
  });
  const DLTensor& t = managed->tensor;
  const Shape shape(t.shape, t.shape + t.ndim);
  Shape strides = t.strides ? Shape(t.strides, t.strides + t.ndim) : dense_strides(shape);
  return {static_cast<char*>(t.data) + t.byte_offset,
          shape,
          std::move(strides),
          dtype_of(t.dtype),
          device_of(t.device),
          read_only,
          owner};
}

View from_dlpack(py::capsule capsule) {
  const std::string name = capsule.name() ? capsule.name() : "";
  if (name == "dltensor_versioned") {
    auto* managed = static_cast<DLManagedTensorVersioned*>(capsule.get_pointer());
    if (managed->major != 1) throw std::runtime_error("the array speaks another major version of DLPack than 1");
    capsule.set_name("used_dltensor_versioned");
    return take_over(managed, managed->flags & DLManagedTensorVersioned::read_only_flag);
  }
  if (name != "dltensor") throw TypeMismatch("View: the capsule is a '" + name + "'; expected one of __dlpack__()");
  auto* managed = static_cast<DLManagedTensor*>(capsule.get_pointer());
  capsule.set_name("used_dltensor");
  return take_over(managed, false);
}

}  // namespace

int64_t ArrayRules::item_bytes() const { return dtype == "float64" ? 8 : dtype == "float32" ? 4 : 2; }

const View& ArrayRules::readable(const std::string& name, const View& a) const {
  if (a.dtype != dtype) throw TypeMismatch(op + ": " + name + " has dtype " + a.dtype + "; expected " + dtype);
  if (a.device != device)
    throw std::runtime_error(op + ": " + name + " is " + place_name(a.device) + "; expected an array " +
                             place_name(device));
  if (reinterpret_cast<uintptr_t>(a.data) % static_cast<size_t>(item_bytes()))
    throw ShapeError(op + ": " + name + " is misaligned; expected an address that is a multiple of its element size");
  if (!is_empty(a.shape) && !a.shape.empty() && a.shape.back() > 1 && a.strides.back() != 1)
    throw ShapeError(op + ": " + name + " has strides " + to_string(a.strides) +
                     " (elements); expected 1 for the last axis");
  return a;
}

const View& ArrayRules::dense(const std::string& name, const View& a) const {
  readable(name, a);
  const Shape expected = dense_strides(a.shape);
  for (size_t axis = 0; axis < a.shape.size() && !is_empty(a.shape); ++axis)
    if (a.shape[axis] > 1 && a.strides[axis] != expected[axis])
      throw ShapeError(op + ": " + name + " is strided; expected a C-contiguous array");
  return a;
}

const View& ArrayRules::writable(const std::string& name, const View& a) const {
  if (a.read_only) throw ShapeError(op + ": " + name + " is read-only; expected a writable array");
  return dense(name, a);
}

void register_view(py::module_& m) {
  py::class_<View>(m, "View")
      .def(py::init([](uintptr_t pointer, const Shape& shape, const std::optional<Shape>& strides,
                       const std::string& dtype, int device, bool read_only) {
             if (strides && strides->size() != shape.size())
               throw ShapeError("View: strides has " + std::to_string(strides->size()) + " entries; expected " +
                                std::to_string(shape.size()));
             return View{reinterpret_cast<void*>(pointer),
                         shape,
                         strides ? *strides : dense_strides(shape),
                         dtype,
                         device,
                         read_only,
                         nullptr};
           }),
           py::arg("pointer"), py::arg("shape"), py::arg("strides"), py::arg("dtype"), py::arg("device"),
           py::arg("read_only") = false)
      .def_static("from_dlpack", &from_dlpack, py::arg("capsule"))
      .def_property_readonly("pointer", [](const View& v) { return reinterpret_cast<uintptr_t>(v.data); })
      .def_property_readonly("shape", [](const View& v) { return py::tuple(py::cast(v.shape)); })
      .def_property_readonly("strides", [](const View& v) { return py::tuple(py::cast(v.strides)); })
      .def_readonly("dtype", &View::dtype)
      .def_readonly("device", &View::device)
      .def_readonly("read_only", &View::read_only);
}

}  // namespace fusedrnn::cuda
