// Single steps with the state kept, as Python sees them. A step is a microsecond: it keeps the GIL, unless it is long.
#pragma once
#include "bind/arrays.h"
#include "bind/exclusive_use.h"
#include "bind/gil.h"
#include "cpu/step_runner.h"

namespace fusedrnn {

// The bytes that an array touches.
struct Extent {
  const char *begin, *end;
  bool overlaps(const Extent& other) const { return begin < other.end && other.begin < end; }
};

class Stream {
 public:
  virtual ~Stream() = default;
  virtual py::object step(py::object x, py::object out) = 0;
  virtual py::tuple state() = 0;
  virtual void reset(py::object h, py::object c) = 0;
};

template <class T> class StreamOf : public Stream {
 public:
  StreamOf(const Problem& problem, std::vector<std::shared_ptr<const PackedWeights<T>>> weights)
      : p_(problem), runner_(problem, std::move(weights)) {}

  py::object step(py::object x, py::object out) override {
    if (is_plain<T>(x, {p_.B, p_.input_size}) && is_plain<T>(out, {p_.B, p_.output_size()}) && x.ptr() != out.ptr()) {
      const auto *in = py::detail::array_proxy(x.ptr()), *to = py::detail::array_proxy(out.ptr());
      if (!extent(in->data, p_.input_size).overlaps(extent(to->data, p_.output_size())) &&
          (to->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) {
        run({reinterpret_cast<const T*>(in->data), p_.input_size}, {reinterpret_cast<T*>(to->data), p_.output_size()});
        return out;
      }
    }
    const py::array in = readable<T>(p_.op, "x", x, [&](const Shape& shape) {
      if (shape.size() != 2 || shape[0] != p_.B || shape[1] != p_.input_size)
        fail(p_.op, "x", "has shape " + to_string(shape), "(batch, input_size) = " + to_string({p_.B, p_.input_size}));
    });
    py::array y = out.is_none() ? new_array<T>({p_.B, p_.output_size()}) : typed<T>(p_.op, "out", out);
    if (!out.is_none()) check_out(y, in);
    run({static_cast<const T*>(in.data()), stride<T>(in, 0)}, {static_cast<T*>(y.mutable_data()), stride<T>(y, 0)});
    return y;
  }

  py::tuple state() override {
    const ShortUse use(busy_, p_.op, "stream");
    const auto copy = [&](const T* from, bool is_c) {
      py::array a = new_array<T>(p_.state_shape(is_c));
      std::copy_n(from, a.size(), static_cast<T*>(a.mutable_data()));
      return a;
    };
    py::object c = py::none();
    if (p_.layout.has_cell_state) c = copy(runner_.c(), true);
    return py::make_tuple(copy(runner_.h(), false), c);
  }

  void reset(py::object h, py::object c) override {
    const auto judged = [&](const char* name, const py::object& from, bool is_c) {
      if (from.is_none()) return py::array();
      return dense<T>(p_.op, name, from, [&](const Shape& shape) { p_.check_state(name, shape, is_c); });
    };
    const auto set = [&](const py::object& given, const py::array& from, T* to, int64_t features) {
      const int64_t size = p_.num_layers * p_.B * features;
      if (given.is_none())
        std::fill_n(to, size, T(0));
      else
        std::copy_n(static_cast<const T*>(from.data()), size, to);
    };
    const py::array h_values = judged("h", h, false), c_values = judged("c", c, true);  // both, before either is set
    const ShortUse use(busy_, p_.op, "stream");
    set(h, h_values, runner_.h(), p_.output_size());
    set(c, c_values, runner_.c(), p_.hidden_size);
  }

 private:
  void run(StateView<const T> x, StateView<T> out) {
    if (!long_) {
      const ShortUse use(busy_, p_.op, "stream");
      return runner_.step(x, out);
    }
    const ExclusiveUse use(busy_, p_.op, "stream");
    without_gil([&] { runner_.long_step(x, out, python_interrupted); });
  }

  static bool is_long(const Problem& p) {
    constexpr int64_t multiply_adds = 2'000'000;  // 20 to 50 us
    int64_t inputs = 0;
    for (int64_t l = 0; l < p.num_layers; ++l) inputs += p.layer_input(l) + p.output_size();
    return p.B * p.layout.gates * p.hidden_size * inputs >= multiply_adds;
  }

  void check_out(const py::array& out, const py::array& in) {
    if (out.ndim() != 2 || out.shape(0) != p_.B || out.shape(1) != p_.output_size())
      fail(p_.op, "out", "has shape " + to_string(shape_of(out)),
           "(batch, hidden) = " + to_string({p_.B, p_.output_size()}));
    require_writable<T>(p_.op, "out", out);
    if (extent_of_rows(in).overlaps(extent(out.data(), p_.output_size())))
      fail(p_.op, "out", "overlaps x", "memory of its own");
  }

  // The bytes of a C-contiguous array with a row for each sample.
  Extent extent(const void* data, int64_t columns) const {
    const char* begin = static_cast<const char*>(data);
    return {begin, begin + p_.B * columns * int64_t(sizeof(T))};
  }
  // Those of an array whose rows lie anywhere, backwards as well.
  Extent extent_of_rows(const py::array& a) const {
    const char* first = static_cast<const char*>(a.data());
    const char* last = first + (p_.B - 1) * a.strides(0);
    return {std::min(first, last), std::max(first, last) + a.shape(1) * int64_t(sizeof(T))};
  }

  Problem p_;
  StepRunner<T> runner_;
  const bool long_ = is_long(p_);
  std::atomic<bool> busy_{false};
};

}  // namespace fusedrnn
