// The only seam between NumPy and the library: arrays become pointers with strides in elements.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/memory.h"
#include "core/problem.h"

namespace fusedrnn {
namespace py = pybind11;

inline Shape shape_of(const py::array& a) { return Shape(a.shape(), a.shape() + a.ndim()); }

inline std::string dtype_name(const py::array& a) { return py::str(py::object(a.dtype())); }

// The argument as an array of exactly T in native byte order. Nothing is converted.
template <class T> py::array typed(const std::string& op, const std::string& name, const py::handle& object) {
  if (!py::isinstance<py::array>(object))
    throw TypeMismatch(op + ": " + name + " is a " + std::string(py::str(py::type::of(object).attr("__name__"))) +
                       "; expected a numpy array");
  auto a = py::reinterpret_borrow<py::array>(object);
  if (!py::dtype::of<T>().is(a.dtype()) && !py::dtype::of<T>().equal(a.dtype()))
    throw TypeMismatch(op + ": " + name + " has dtype " + dtype_name(a) + "; expected " +
                       std::string(py::str(py::object(py::dtype::of<T>()))));
  return a;
}

// Elements can be addressed as T: aligned, strides whole elements.
template <class T> bool addressable(const py::array& a) {
  if (reinterpret_cast<uintptr_t>(a.data()) % alignof(T)) return false;
  for (py::ssize_t i = 0; i < a.ndim(); ++i)
    if (a.shape(i) > 1 && a.strides(i) % static_cast<py::ssize_t>(sizeof(T))) return false;
  return true;
}

template <class T> bool last_axis_is_dense(const py::array& a) {
  const py::ssize_t last = a.ndim() - 1;
  return a.shape(last) <= 1 || a.strides(last) == static_cast<py::ssize_t>(sizeof(T));
}

// Whether the object already is a plain array: dtype T, C order, aligned, of this shape. No Python call, no allocation:
// a streaming step is a microsecond. Everything else goes the careful way, which finds the words for an error.
template <class T> bool is_plain(const py::handle& object, std::initializer_list<int64_t> shape) {
  static const PyTypeObject* const array_type = py::detail::npy_api::get().PyArray_Type_;
  static const PyObject* const descriptor = py::dtype::of<T>().release().ptr();
  if (Py_TYPE(object.ptr()) != array_type) return false;
  const auto* a = py::detail::array_proxy(object.ptr());
  constexpr int wanted = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
  return a->descr == descriptor && (a->flags & wanted) == wanted && a->nd == static_cast<int>(shape.size()) &&
         std::equal(shape.begin(), shape.end(), a->dimensions);
}

inline py::array contiguous_copy(const py::array& a) {
  return py::module_::import("numpy").attr("ascontiguousarray")(a);
}

// An input whose last axis the kernels can read straight through; anything else is copied once, after `judge` has
// accepted its shape: a broadcast view may promise far more elements than there is memory.
template <class T, class Judge>
py::array readable(const std::string& op, const std::string& name, const py::handle& object, Judge judge) {
  py::array a = typed<T>(op, name, object);
  judge(shape_of(a));
  if (a.ndim() == 0 || (addressable<T>(a) && last_axis_is_dense<T>(a))) return a;
  return contiguous_copy(a);
}

// A dense array (weights): C order, or one copy.
template <class T, class Judge>
py::array dense(const std::string& op, const std::string& name, const py::handle& object, Judge judge) {
  py::array a = typed<T>(op, name, object);
  judge(shape_of(a));
  return addressable<T>(a) && (a.flags() & py::array::c_style) ? a : contiguous_copy(a);
}

template <class T> void require_writable(const std::string& op, const std::string& name, const py::array& a) {
  if (!a.writeable()) throw ShapeError(op + ": " + name + " is read-only; expected a writable array");
  if (!addressable<T>(a) || !(a.flags() & py::array::c_style))
    throw ShapeError(op + ": " + name + " is strided; expected a C-contiguous array");
}

// A new C-ordered array, uninitialised, whose memory starts at a cache line and returns to core/memory.h.
template <class T> py::array new_array(const Shape& shape) {
  int64_t size = 1;
  for (int64_t n : shape) size *= n;
  auto memory = std::make_unique<Buffer<T>>(size);
  T* data = memory->get();
  py::capsule owner(memory.get(), [](void* m) { delete static_cast<Buffer<T>*>(m); });
  memory.release();
  return py::array(py::dtype::of<T>(), std::vector<py::ssize_t>(shape.begin(), shape.end()), data, owner);
}

template <class T> int64_t stride(const py::array& a, int axis) {
  return a.strides(axis) / static_cast<py::ssize_t>(sizeof(T));
}

// (B, T, F) or (T, B, F), by batch_first.
template <class T> TimeMajorView<const T> sequence_view(const py::array& a, bool batch_first) {
  return {static_cast<const T*>(a.data()), stride<T>(a, batch_first ? 1 : 0), stride<T>(a, batch_first ? 0 : 1)};
}
template <class T> TimeMajorView<T> writable_sequence_view(const py::array& a, bool batch_first) {
  const auto view = sequence_view<T>(a, batch_first);
  return {const_cast<T*>(view.data), view.step, view.batch};
}

// Slabs of a (layers*directions, B, H) state.
template <class T> StateView<const T> slab_view(const py::array& a, int64_t slab) {
  return {static_cast<const T*>(a.data()) + slab * stride<T>(a, 0), stride<T>(a, 1)};
}
template <class T> StateView<T> writable_slab_view(const py::array& a, int64_t slab) {
  const auto view = slab_view<T>(a, slab);
  return {const_cast<T*>(view.data), view.stride};
}

inline void set_read_only(py::array& a) { a.attr("setflags")(py::arg("write") = false); }

// Lengths as int64, any integer dtype and strides.
inline std::vector<int64_t> read_lengths(const std::string& op, const py::handle& object) {
  auto a = py::reinterpret_borrow<py::object>(object);
  if (!py::isinstance<py::array>(a)) a = py::module_::import("numpy").attr("asarray")(a);
  auto array = py::reinterpret_borrow<py::array>(a);
  const char kind = array.dtype().kind();
  if (kind != 'i' && kind != 'u' && !(array.size() == 0 && kind == 'f'))
    throw TypeMismatch(op + ": lengths has dtype " + dtype_name(array) + "; expected an integer dtype");
  if (array.ndim() != 1) fail(op, "lengths", "has shape " + to_string(shape_of(array)), "(batch,)");
  const auto wide = py::array_t<int64_t, py::array::c_style | py::array::forcecast>(array);
  return {wide.data(), wide.data() + wide.size()};
}

}  // namespace fusedrnn
