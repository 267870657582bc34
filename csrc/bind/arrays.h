// The only seam between NumPy and the library: arrays become pointers with strides in elements.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/memory.h"
#include "core/row_order.h"
#include "core/sequence.h"

namespace fusedrnn {
namespace py = pybind11;

inline Shape shape_of(const py::array& a) { return Shape(a.shape(), a.shape() + a.ndim()); }

inline std::string dtype_name(const py::array& a) { return py::str(py::object(a.dtype())); }

// NumPy's only object for the dtype T, borrowed.
template <class T> PyObject* descriptor() {
  static PyObject* const made = py::dtype::of<T>().release().ptr();
  return made;
}

// The argument as an array of exactly T in native byte order. Nothing is converted.
template <class T> py::array typed(const std::string& op, const std::string& name, const py::handle& object) {
  if (!py::isinstance<py::array>(object))
    throw TypeMismatch(op + ": " + name + " is a " + std::string(py::str(py::type::of(object).attr("__name__"))) +
                       "; expected a numpy array");
  auto a = py::reinterpret_borrow<py::array>(object);
  if (py::detail::array_proxy(a.ptr())->descr != descriptor<T>() && !py::dtype::of<T>().equal(a.dtype()))
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
  if (Py_TYPE(object.ptr()) != py::detail::npy_api::get().PyArray_Type_) return false;
  const auto* a = py::detail::array_proxy(object.ptr());
  constexpr int wanted = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
  return a->descr == descriptor<T>() && (a->flags & wanted) == wanted && a->nd == static_cast<int>(shape.size()) &&
         std::equal(shape.begin(), shape.end(), a->dimensions);
}

inline py::array contiguous_copy(const py::array& a) { return a.attr("copy")("C"); }

// A view that repeats its elements may promise far more of them than there is memory or time for. Those of a gigabyte
// and more are refused where they have little memory behind them.
inline void refuse_repetition(const std::string& op, const std::string& name, const py::array& a) {
  constexpr int64_t large = int64_t(1) << 30, times = 64;
  double promised = static_cast<double>(a.itemsize()), held = promised;
  for (py::ssize_t axis = 0; axis < a.ndim(); ++axis) {
    promised *= static_cast<double>(a.shape(axis));
    held +=
        static_cast<double>(std::abs(a.strides(axis))) * static_cast<double>(std::max<int64_t>(a.shape(axis), 1) - 1);
  }
  if (promised >= static_cast<double>(large) && promised > times * held)
    fail(op, name,
         "has shape " + to_string(shape_of(a)) + " and repeats the elements of " +
             std::to_string(static_cast<int64_t>(held)) + " bytes",
         "an array with memory of its own");
}

// An input whose last axis the kernels can read straight through; anything else is copied once, after `judge` has
// accepted its shape: a broadcast view may promise far more elements than there is memory.
template <class T, class Judge>
py::array readable(const std::string& op, const std::string& name, const py::handle& object, Judge judge) {
  py::array a = typed<T>(op, name, object);
  judge(shape_of(a));
  refuse_repetition(op, name, a);
  if (a.ndim() == 0 || (addressable<T>(a) && last_axis_is_dense<T>(a))) return a;
  return contiguous_copy(a);
}

// A dense array (weights): C order, or one copy.
template <class T, class Judge>
py::array dense(const std::string& op, const std::string& name, const py::handle& object, Judge judge) {
  py::array a = typed<T>(op, name, object);
  judge(shape_of(a));
  refuse_repetition(op, name, a);
  return addressable<T>(a) && (a.flags() & py::array::c_style) ? a : contiguous_copy(a);
}

template <class T> void require_writable(const std::string& op, const std::string& name, const py::array& a) {
  if (!a.writeable()) throw ShapeError(op + ": " + name + " is read-only; expected a writable array");
  if (!addressable<T>(a) || !(a.flags() & py::array::c_style))
    throw ShapeError(op + ": " + name + " is strided; expected a C-contiguous array");
}

// A new C-ordered array, uninitialised. NumPy is quick to allocate a small one; the memory of a large one starts at a
// cache line and returns to core/memory.h.
template <class T> py::array new_array(const Shape& shape) {
  constexpr int64_t large = 32 << 10;
  int64_t bytes = sizeof(T);
  for (int64_t n : shape) bytes *= n;
  const auto& numpy = py::detail::npy_api::get();
  const auto make = [&](T* data) {
    Py_INCREF(descriptor<T>());  // NumPy takes the reference
    PyObject* made = numpy.PyArray_NewFromDescr_(numpy.PyArray_Type_, descriptor<T>(), static_cast<int>(shape.size()),
                                                 reinterpret_cast<const Py_intptr_t*>(shape.data()), nullptr, data,
                                                 data ? py::detail::npy_api::NPY_ARRAY_WRITEABLE_ : 0, nullptr);
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::array>(made);
  };
  if (bytes < large) return make(nullptr);
  auto memory = std::make_unique<Buffer<T>>(bytes / int64_t(sizeof(T)));
  T* data = memory->get();
  py::capsule owner(memory.get(), [](void* m) { delete static_cast<Buffer<T>*>(m); });
  memory.release();
  const py::array array = make(data);
  if (numpy.PyArray_SetBaseObject_(array.ptr(), owner.release().ptr())) throw py::error_already_set();
  return array;
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

inline void set_read_only(py::array& a) {
  py::detail::array_proxy(a.ptr())->flags &= ~int{py::detail::npy_api::NPY_ARRAY_WRITEABLE_};
}

// A tuple of arrays that nobody else can change, counted before it is made: a view may promise any number of items.
inline py::tuple counted(const Problem& p, const char* name, const py::sequence& given) {
  p.check_array_count(name, given.size());
  const py::tuple made(given);
  p.check_array_count(name, made.size());
  return made;
}

// Lengths (B,) as int64, any integer dtype and strides. They are counted before any is read.
inline std::vector<int64_t> read_lengths(const Problem& p, const py::handle& object) {
  const std::string& op = p.op;
  auto a = py::reinterpret_borrow<py::object>(object);
  try {
    if (!py::isinstance<py::array>(a)) a = py::module_::import("numpy").attr("asarray")(a);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_ValueError)) throw;
    fail(op, "lengths", "is a sequence of sequences of unlike lengths", "integers (batch,)");
  }
  auto array = py::reinterpret_borrow<py::array>(a);
  const char kind = array.dtype().kind();
  if (kind != 'i' && kind != 'u' && !(array.size() == 0 && kind == 'f'))
    throw TypeMismatch(op + ": lengths has dtype " + dtype_name(array) + "; expected an integer dtype");
  if (shape_of(array) != Shape{p.B})
    fail(op, "lengths", "has shape " + to_string(shape_of(array)), "(batch,) = " + to_string(Shape{p.B}));
  if (kind == 'u') {
    const auto wide = py::array_t<uint64_t, py::array::c_style>(array.attr("astype")("uint64"));
    for (py::ssize_t i = 0; i < wide.size(); ++i)
      if (wide.data()[i] > INT64_MAX)
        fail(op, "lengths[" + std::to_string(i) + "]", "is " + std::to_string(wide.data()[i]), "a length");
  }
  const auto wide = py::array_t<int64_t, py::array::c_style>(array.attr("astype")("int64"));  // aligned, too
  return {wide.data(), wide.data() + wide.size()};
}

// Where the state starts again: bool, of any strides, (B, T) or (T, B) by batch_first.
inline py::array read_resets(const Problem& p, const py::handle& object) {
  const py::array a = py::array::ensure(object);
  if (!a) {
    PyErr_Clear();
    throw TypeMismatch(p.op + ": resets is no array; expected bool");
  }
  if (!py::dtype::of<bool>().equal(a.dtype()))
    throw TypeMismatch(p.op + ": resets has dtype " + dtype_name(a) + "; expected bool");
  const Shape expected = p.batch_first ? Shape{p.B, p.T} : Shape{p.T, p.B};
  if (shape_of(a) != expected)
    fail(p.op, "resets", "has shape " + to_string(shape_of(a)),
         std::string(p.batch_first ? "(batch, time)" : "(time, batch)") + " = " + to_string(expected));
  return a;
}
inline RestartMarks restart_marks(const py::array& a, bool batch_first) {
  return {static_cast<const uint8_t*>(a.data()), a.strides(batch_first ? 1 : 0), a.strides(batch_first ? 0 : 1)};
}

}  // namespace fusedrnn
