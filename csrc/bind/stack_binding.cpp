// Stack, Tape and Stream as Python sees them. Each method has four beats: describe the problem, allocate, release the
// GIL and call, return. No arithmetic here.
#include <pybind11/stl.h>

#include <chrono>

#include "bind/arrays.h"
#include "bind/register.h"
#include "cpu/stack.h"

namespace fusedrnn {
namespace {

// Asked by the calling thread while a kernel runs without the GIL.
bool python_interrupted() {
  const py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

template <class Body> void without_gil(Body body) {
  try {
    const py::gil_scoped_release release;
    body();
  } catch (const Interrupted&) {
    throw py::error_already_set();  // PyErr_CheckSignals has set KeyboardInterrupt
  }
}

template <class T> bool is_plain_weight(const Problem& p, int64_t slab, int which, const py::handle& array) {
  const int64_t rows = p.layout.gates * p.hidden_size, layer = slab / p.num_directions;
  return which >= 2 ? is_plain<T>(array, {rows})
                    : is_plain<T>(array, {rows, which == 0 ? p.layer_input(layer) : p.hidden_size});
}

// A training call and the arrays that it points into. The saved gates are consumed by a backward; the next one on the
// same tape first runs the forward again, which gives the same bits.
class Tape {
 public:
  virtual ~Tape() = default;
  virtual py::tuple backward(py::object dy, py::object dh, py::object dc, py::sequence gradients, bool want_dx) = 0;
  virtual py::object gates(int64_t slab) = 0;
  virtual py::object cell_states(int64_t slab) = 0;
  virtual py::array outputs(int64_t layer) = 0;
};

template <class T> class TapeOf : public Tape {
 public:
  ForwardCall<T> call;
  std::vector<py::array> arrays;  // what the pointers of the call point into
  std::vector<py::array> y;       // by layer
  bool consumed = false;

  py::tuple backward(py::object dy, py::object dh, py::object dc, py::sequence gradients, bool want_dx) override {
    const Problem& p = call.problem;
    const py::tuple into(gradients);  // nobody else can change it
    std::vector<py::array> keep;
    BackwardCall<T> back{};
    back.slabs.resize(call.slabs.size());
    back.dy = output_gradient(dy, keep);
    state_gradient("dh", dh, keep, back, &BackwardCall<T>::Slab::dhn);
    if (!p.layout.has_cell_state && !dc.is_none()) throw TypeMismatch(p.op + ": dc is given; this cell has no c");
    state_gradient("dc", dc, keep, back, &BackwardCall<T>::Slab::dcn);
    collect_gradients(into, back, keep);

    py::object dx = py::none(), dc0 = py::none();
    if (want_dx) {
      dx = new_array<T>(p.input_shape());
      back.dx = writable_sequence_view<T>(dx, p.batch_first);
    }
    py::array dh0 = new_array<T>(p.state_shape());
    if (p.layout.has_cell_state) dc0 = new_array<T>(p.state_shape());
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& gradient = back.slabs[static_cast<size_t>(slab)];
      gradient.dh0 = writable_slab_view<T>(dh0, slab);
      if (p.layout.has_cell_state) gradient.dc0 = writable_slab_view<T>(dc0, slab);
    }
    if (busy_.exchange(true))
      throw ShapeError(p.op + ": tape is in use by another thread; expected one backward at a time");
    struct Release {
      std::atomic<bool>& flag;
      ~Release() { flag = false; }
    } release{busy_};
    without_gil([&] {
      if (consumed) restore_gates();
      consumed = true;
      run_backward(call, back, python_interrupted);
    });
    return py::make_tuple(dx, dh0, dc0);
  }

  py::object gates(int64_t slab) override {
    require_gates();
    const int64_t R = call.rows->rows(), S = call.problem.layout.slots;
    return by_time(call.slabs.at(static_cast<size_t>(slab)).gates.get(), slab, R, S);
  }

  py::object cell_states(int64_t slab) override {
    if (!call.problem.layout.has_cell_state) return py::none();
    return by_time(call.slabs.at(static_cast<size_t>(slab)).cells.get(), slab, call.rows->rows(), 1);
  }

  py::array outputs(int64_t layer) override { return y.at(static_cast<size_t>(layer)); }

 private:
  std::atomic<bool> busy_{false};

  void require_gates() {
    if (consumed) without_gil([&] { restore_gates(); });
    consumed = false;
  }

  // Runs the forward again. y comes out as it was; the final states go to scratch, because the caller owns the others.
  void restore_gates() {
    const Problem& p = call.problem;
    const int64_t slab_size = p.B * p.hidden_size;
    const Buffer<T> scratch(2 * slab_size * p.slabs());
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& to = call.slabs[static_cast<size_t>(slab)];
      to.hn = {scratch.get() + 2 * slab * slab_size, p.hidden_size};
      if (p.layout.has_cell_state) to.cn = {scratch.get() + (2 * slab + 1) * slab_size, p.hidden_size};
    }
    run_forward(call, python_interrupted);
  }

  // (U, R, slots, lanes) as (slots, T, B, H), zeros past each sample's end.
  py::array by_time(const T* saved, int64_t slab, int64_t R, int64_t S) {
    const Problem& p = call.problem;
    const Ragged& ragged = call.rows->ragged();
    const bool reverse = p.reverse || (p.num_directions == 2 && slab % 2 == 1);
    const int64_t L = kernels<T>().lanes, H = p.hidden_size;
    py::array out = new_array<T>({S, p.T, p.B, H});
    T* to = static_cast<T*>(out.mutable_data());
    std::fill_n(to, out.size(), T(0));
    for (int64_t s = 0; s < ragged.steps; ++s)
      for (int64_t row = ragged.first[s]; row < ragged.first[s + 1]; ++row) {
        const int64_t j = row - ragged.first[s], t = reverse ? ragged.length[j] - 1 - s : s;
        for (int64_t slot = 0; slot < S; ++slot)
          for (int64_t h = 0; h < H; ++h)
            to[((slot * p.T + t) * p.B + ragged.sample[j]) * H + h] = saved[((h / L * R + row) * S + slot) * L + h % L];
      }
    return out;
  }

  TimeMajorView<const T> output_gradient(const py::object& dy, std::vector<py::array>& keep) {
    if (dy.is_none()) return {nullptr, 0, 0};
    const Problem& p = call.problem;
    keep.push_back(readable<T>(p.op, "dy", dy, [&](const Shape& shape) { p.check_output_gradient(shape); }));
    return sequence_view<T>(keep.back(), call.problem.batch_first);
  }

  void state_gradient(const char* name, const py::object& d, std::vector<py::array>& keep, BackwardCall<T>& back,
                      StateView<const T> BackwardCall<T>::Slab::* view) {
    if (d.is_none()) return;
    const Problem& p = call.problem;
    keep.push_back(readable<T>(p.op, name, d, [&](const Shape& shape) { p.check_state(name, shape); }));
    for (int64_t slab = 0; slab < p.slabs(); ++slab)
      back.slabs[static_cast<size_t>(slab)].*view = slab_view<T>(keep.back(), slab);
  }

  void collect_gradients(const py::tuple& gradients, BackwardCall<T>& back, std::vector<py::array>& keep) {
    const Problem& p = call.problem;
    const int per_slab = p.weights_per_slab();
    if (static_cast<int64_t>(gradients.size()) != p.slabs() * per_slab)
      throw ShapeError(p.op + ": gradients has " + std::to_string(gradients.size()) + " arrays; expected " +
                       std::to_string(p.slabs() * per_slab));
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      T* pointers[4] = {};
      for (int which = 0; which < per_slab; ++which) {
        const py::handle given = gradients[static_cast<size_t>(slab * per_slab + which)];
        if (is_plain_weight<T>(p, slab, which, given)) {
          auto plain = py::reinterpret_borrow<py::array>(given);
          if (plain.writeable()) {
            pointers[which] = static_cast<T*>(plain.mutable_data());
            continue;
          }
        }
        const std::string name = "gradient of " + p.weight_name(slab, which);
        py::array a = typed<T>(p.op, name, given);
        p.check_weight(slab, which, shape_of(a));
        require_writable<T>(p.op, name, a);
        pointers[which] = static_cast<T*>(a.mutable_data());
        keep.push_back(a);
      }
      auto& to = back.slabs[static_cast<size_t>(slab)];
      to.weight_ih = pointers[0], to.weight_hh = pointers[1], to.bias_ih = pointers[2], to.bias_hh = pointers[3];
    }
  }
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
    if (is_plain<T>(x, {p_.B, p_.input_size}) && is_plain<T>(out, {p_.B, p_.hidden_size}) && x.ptr() != out.ptr()) {
      const auto *in = py::detail::array_proxy(x.ptr()), *to = py::detail::array_proxy(out.ptr());
      const bool apart = to->data + p_.B * p_.hidden_size * sizeof(T) <= in->data ||
                         in->data + p_.B * p_.input_size * sizeof(T) <= to->data;
      if (apart && (to->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_)) {
        runner_.step({reinterpret_cast<const T*>(in->data), p_.input_size},
                     {reinterpret_cast<T*>(to->data), p_.hidden_size});
        return out;
      }
    }
    const py::array in = readable<T>(p_.op, "x", x, [&](const Shape& shape) {
      if (shape.size() != 2 || shape[0] != p_.B || shape[1] != p_.input_size)
        fail(p_.op, "x", "has shape " + to_string(shape), "(batch, input_size) = " + to_string({p_.B, p_.input_size}));
    });
    py::array y = out.is_none() ? new_array<T>({p_.B, p_.hidden_size}) : typed<T>(p_.op, "out", out);
    if (!out.is_none()) check_out(y, in);
    runner_.step({static_cast<const T*>(in.data()), stride<T>(in, 0)},
                 {static_cast<T*>(y.mutable_data()), stride<T>(y, 0)});
    return y;
  }

  py::tuple state() override {
    const auto copy = [&](const T* from) {
      py::array a = new_array<T>({p_.num_layers, p_.B, p_.hidden_size});
      std::copy_n(from, a.size(), static_cast<T*>(a.mutable_data()));
      return a;
    };
    py::object c = py::none();
    if (p_.layout.has_cell_state) c = copy(runner_.c());
    return py::make_tuple(copy(runner_.h()), c);
  }

  void reset(py::object h, py::object c) override {
    const auto set = [&](const char* name, const py::object& from, T* to) {
      const int64_t size = p_.num_layers * p_.B * p_.hidden_size;
      if (from.is_none()) {
        std::fill_n(to, size, T(0));
        return;
      }
      const py::array a = dense<T>(p_.op, name, from, [&](const Shape& shape) { p_.check_state(name, shape); });
      std::copy_n(static_cast<const T*>(a.data()), size, to);
    };
    set("h", h, runner_.h());
    set("c", c, runner_.c());
  }

 private:
  void check_out(const py::array& out, const py::array& in) {
    if (out.ndim() != 2 || out.shape(0) != p_.B || out.shape(1) != p_.hidden_size)
      fail(p_.op, "out", "has shape " + to_string(shape_of(out)),
           "(batch, hidden) = " + to_string({p_.B, p_.hidden_size}));
    require_writable<T>(p_.op, "out", out);
    const char *o = static_cast<const char*>(out.data()), *i = static_cast<const char*>(in.data());
    const int64_t x_bytes = in.nbytes() ? (in.shape(0) - 1) * in.strides(0) + in.shape(1) * int64_t(sizeof(T)) : 0;
    const char *i0 = std::min(i, i + (in.shape(0) - 1) * in.strides(0)), *i1 = std::max(i, i + x_bytes);
    if (o < i1 && i0 < o + out.nbytes()) fail(p_.op, "out", "overlaps x", "memory of its own");
  }

  Problem p_;
  StepRunner<T> runner_;
};

class Stack {
 public:
  virtual ~Stack() = default;
  virtual py::tuple forward(py::sequence weights, py::object x, py::object h0, py::object c0, py::object lengths,
                            bool batch_first, bool training, int64_t serial) = 0;
  virtual std::unique_ptr<Stream> stream(py::sequence weights, int64_t batch_size) = 0;
  virtual std::string plan(int64_t T, int64_t B) = 0;
};

template <class T> class StackOf : public Stack {
 public:
  explicit StackOf(Problem problem) : p_(std::move(problem)) {
    for (int64_t slab = 0; slab < p_.slabs(); ++slab)
      caches_.push_back(std::make_unique<WeightCache<T>>(p_.layout, p_.layer_input(slab / p_.num_directions),
                                                         p_.hidden_size, p_.bfloat16));
  }

  py::tuple forward(py::sequence weights, py::object x, py::object h0, py::object c0, py::object lengths,
                    bool batch_first, bool training, int64_t serial) override {
    auto tape = std::make_unique<TapeOf<T>>();
    ForwardCall<T>& call = tape->call;
    Problem& p = call.problem;
    p = p_;
    p.batch_first = batch_first;
    const py::array in = readable<T>(p.op, "x", x, [&](const Shape& shape) { p.set_input(shape); });
    tape->arrays.push_back(in);
    call.x = sequence_view<T>(in, batch_first);
    if (lengths.is_none()) {
      call.rows = full_rows(p);
    } else {
      const std::vector<int64_t> values = read_lengths(p.op, lengths);
      call.rows = std::make_shared<RowOrder>(p, values.data(), static_cast<int64_t>(values.size()));
    }
    call.slabs.resize(static_cast<size_t>(p.slabs()));
    initial_state("h0", h0, *tape, &Slab::h0);
    if (!p.layout.has_cell_state && !c0.is_none()) throw TypeMismatch(p.op + ": c0 is given; this cell has no c");
    initial_state("c0", c0, *tape, &Slab::c0);
    const py::tuple given(weights);  // nobody else can change it
    std::vector<py::array> copies;   // until they are packed
    const std::vector<WeightArrays<T>> arrays = weight_arrays(given, copies);

    for (int64_t l = 0; l < p.num_layers; ++l) {
      tape->y.push_back(new_array<T>(p.output_shape(p.num_directions * p.hidden_size)));
      call.y.push_back(writable_sequence_view<T>(tape->y.back(), batch_first));
    }
    py::array hn = new_array<T>(p.state_shape());
    py::object cn = py::none();
    if (p.layout.has_cell_state) cn = new_array<T>(p.state_shape());
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      Slab& to = call.slabs[static_cast<size_t>(slab)];
      to.hn = writable_slab_view<T>(hn, slab);
      if (p.layout.has_cell_state) to.cn = writable_slab_view<T>(cn, slab);
    }
    without_gil([&] {
      for (size_t slab = 0; slab < arrays.size(); ++slab)
        call.slabs[slab].weights = caches_[slab]->get(arrays[slab], training, serial);
      if (training) keep_for_backward(call);
      run_forward(call, python_interrupted);
    });
    py::array y = tape->y.back();
    if (!training) return py::make_tuple(y, hn, cn, py::none());
    set_read_only(y);  // backward reads it again
    return py::make_tuple(y, hn, cn, std::unique_ptr<Tape>(std::move(tape)));
  }

  std::unique_ptr<Stream> stream(py::sequence weights, int64_t batch_size) override {
    Problem p = p_;
    if (batch_size <= 0) fail(p.op, "batch_size", "is " + std::to_string(batch_size), "a positive integer");
    p.batch_first = false;
    p.set_input({1, batch_size, p.input_size});
    std::vector<py::array> copies;
    std::vector<std::shared_ptr<const PackedWeights<T>>> packed;
    for (const WeightArrays<T>& arrays : weight_arrays(py::tuple(weights), copies))
      packed.push_back(caches_[packed.size()]->get(arrays, false, 0));
    return std::make_unique<StreamOf<T>>(p, std::move(packed));
  }

  std::string plan(int64_t T_, int64_t B) override {
    Problem p = p_;
    p.batch_first = false;
    p.set_input({T_, B, p.input_size});
    ForwardCall<T> call;
    call.problem = p;
    call.rows = full_rows(p);
    return plan_for(call).describe();
  }

 private:
  using Slab = typename ForwardCall<T>::Slab;

  // The order of the rows where no lengths are given; most calls have the shape of the one before.
  std::shared_ptr<const RowOrder> full_rows(const Problem& p) {
    if (!full_rows_ || !full_rows_->is_full_of(p)) full_rows_ = std::make_shared<RowOrder>(p, nullptr, 0);
    return full_rows_;
  }

  // Pointers into the given arrays; those that cannot be read as they are are copied.
  std::vector<WeightArrays<T>> weight_arrays(const py::tuple& weights, std::vector<py::array>& copies) {
    const int per_slab = p_.weights_per_slab();
    if (static_cast<int64_t>(weights.size()) != p_.slabs() * per_slab)
      throw ShapeError(p_.op + ": weights has " + std::to_string(weights.size()) + " arrays; expected " +
                       std::to_string(p_.slabs() * per_slab));
    std::vector<WeightArrays<T>> out;
    out.reserve(static_cast<size_t>(p_.slabs()));
    for (int64_t slab = 0; slab < p_.slabs(); ++slab) {
      const T* pointers[4] = {};
      for (int which = 0; which < per_slab; ++which) {
        py::handle given = weights[static_cast<size_t>(slab * per_slab + which)];
        if (!is_plain_weight<T>(p_, slab, which, given)) {
          copies.push_back(dense<T>(p_.op, p_.weight_name(slab, which), given,
                                    [&](const Shape& shape) { p_.check_weight(slab, which, shape); }));
          given = copies.back();
        }
        pointers[which] = static_cast<const T*>(py::reinterpret_borrow<py::array>(given).data());
      }
      out.push_back({pointers[0], pointers[1], pointers[2], pointers[3]});
    }
    return out;
  }

  void initial_state(const char* name, const py::object& state, TapeOf<T>& tape, StateView<const T> Slab::* view) {
    if (state.is_none()) return;
    const Problem& p = tape.call.problem;
    tape.arrays.push_back(readable<T>(p.op, name, state, [&](const Shape& shape) { p.check_state(name, shape); }));
    for (int64_t slab = 0; slab < p.slabs(); ++slab)
      tape.call.slabs[static_cast<size_t>(slab)].*view = slab_view<T>(tape.arrays.back(), slab);
  }

  const Problem p_;
  std::vector<std::unique_ptr<WeightCache<T>>> caches_;
  std::shared_ptr<const RowOrder> full_rows_;  // used with the GIL held
};

template <class T> py::array row_products_of(const py::array& x, const py::array& weight) {
  const py::array in = dense<T>("row_products", "x", x, [&](const Shape& shape) {
    if (shape.size() != 2 || weight.ndim() != 2 || shape[1] != weight.shape(1))
      fail("row_products", "x", "has shape " + to_string(shape),
           "(rows, inputs) with W " + to_string(shape_of(weight)));
  });
  py::array w = typed<T>("row_products", "weight", weight);
  if (!addressable<T>(w)) w = contiguous_copy(w);
  py::array y = new_array<T>({in.shape(0), w.shape(0)});
  const DenseCall<T> call{in.shape(0),
                          in.shape(1),
                          w.shape(0),
                          static_cast<const T*>(in.data()),
                          static_cast<const T*>(w.data()),
                          stride<T>(w, 0),
                          stride<T>(w, 1),
                          static_cast<T*>(y.mutable_data())};
  without_gil([&] { run_row_products(call, python_interrupted); });
  return y;
}

py::array row_products(const py::array& x, const py::array& weight) {
  return py::dtype::of<float>().equal(x.dtype()) ? row_products_of<float>(x, weight)
                                                 : row_products_of<double>(x, weight);
}

std::unique_ptr<Stack> make_stack(const std::string& cell, const std::string& dtype, int64_t input_size,
                                  int64_t hidden_size, int64_t num_layers, int64_t num_directions, bool reverse,
                                  bool bias, const std::string& compute_dtype) {
  Problem p = problem_of(cell);
  p.layout = kernels<float>().cell[static_cast<int>(p.cell)].layout;
  p.input_size = input_size;
  p.hidden_size = hidden_size;
  p.num_layers = num_layers;
  p.num_directions = num_directions;
  p.reverse = reverse;
  p.bias = bias;
  p.check_sizes();
  p.bfloat16 = compute_dtype == "bfloat16";
  if (!compute_dtype.empty() && compute_dtype != dtype && !(p.bfloat16 && dtype == "float32"))
    throw TypeMismatch(p.op + ": compute_dtype is " + compute_dtype + " with dtype " + dtype +
                       "; expected the same, or bfloat16 with float32");
  if (p.bfloat16 && !bfloat16_kernels().cell)
    throw std::runtime_error(p.op + ": compute_dtype is bfloat16; expected float32 on this instruction set (" +
                             isa().name + ")");
  if (dtype == "float32") return std::make_unique<StackOf<float>>(p);
  if (dtype == "float64") return std::make_unique<StackOf<double>>(p);
  throw TypeMismatch(p.op + ": dtype is " + dtype + "; expected float32 or float64");
}

}  // namespace

void register_stack(py::module_& m) {
  m.def("row_products", &row_products, py::arg("x"), py::arg("weight"));
  py::class_<Tape>(m, "Tape")
      .def("backward", &Tape::backward, py::arg("dy"), py::arg("dh"), py::arg("dc"), py::arg("gradients"),
           py::arg("want_dx") = true)
      .def("gates", &Tape::gates, py::arg("slab"))
      .def("cell_states", &Tape::cell_states, py::arg("slab"))
      .def("outputs", &Tape::outputs, py::arg("layer"));
  py::class_<Stream>(m, "Stream")
      .def("step", &Stream::step, py::arg("x"), py::arg("out") = py::none())
      .def("state", &Stream::state)
      .def("reset", &Stream::reset, py::arg("h") = py::none(), py::arg("c") = py::none());
  py::class_<Stack>(m, "Stack")
      .def(py::init(&make_stack), py::arg("cell"), py::arg("dtype"), py::arg("input_size"), py::arg("hidden_size"),
           py::arg("num_layers"), py::arg("num_directions"), py::arg("reverse"), py::arg("bias"),
           py::arg("compute_dtype") = "")
      .def("forward", &Stack::forward, py::arg("weights"), py::arg("x"), py::arg("h0"), py::arg("c0"),
           py::arg("lengths"), py::arg("batch_first"), py::arg("training"), py::arg("serial") = 0)
      .def("stream", &Stack::stream, py::arg("weights"), py::arg("batch_size"))
      .def("plan", &Stack::plan, py::arg("time"), py::arg("batch"));
}

}  // namespace fusedrnn
