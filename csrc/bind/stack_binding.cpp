// Stack as Python sees it. Each method has four beats: describe the problem, allocate, release the GIL and call,
// return.
#include <pybind11/stl.h>

#include "bind/problem_of_stack.h"
#include "bind/register.h"
#include "bind/stream.h"
#include "bind/tape.h"
#include "core/process_locks.h"

namespace fusedrnn {
namespace {

class Stack {
 public:
  virtual ~Stack() = default;
  virtual py::tuple forward(py::sequence weights, py::object x, py::object h0, py::object c0, py::object lengths,
                            bool batch_first, bool training, int64_t serial, py::object resets, py::object h_restart,
                            py::object c_restart, py::object factors) = 0;
  virtual std::unique_ptr<Stream> stream(py::sequence weights, int64_t batch_size) = 0;
  virtual std::string plan(int64_t T, int64_t B) = 0;
};

template <class T> class StackOf : public Stack {
 public:
  explicit StackOf(Problem problem) : p_(std::move(problem)) {
    for (int64_t slab = 0; slab < p_.slabs(); ++slab)
      caches_.push_back(std::make_unique<WeightCache<T>>(p_, slab / p_.num_directions));
  }

  py::tuple forward(py::sequence weights, py::object x, py::object h0, py::object c0, py::object lengths,
                    bool batch_first, bool training, int64_t serial, py::object resets, py::object h_restart,
                    py::object c_restart, py::object factors) override {
    if (training && p_.int8_planes)
      fail(p_.op, "training", "is true for weights in 8 bits", "inference; the float32 layer they were made of trains");
    auto tape = std::make_unique<TapeOf<T>>();
    ForwardCall<T>& call = tape->call;
    Problem& p = call.problem;
    p = p_;
    p.batch_first = batch_first;
    if (is_varied(p.cell)) call.options = cell_options<T>(p);
    const py::array in = readable<T>(p.op, "x", x, [&](const Shape& shape) { p.set_input(shape); });
    tape->arrays.push_back(in);
    call.x = sequence_view<T>(in, batch_first);
    call.rows = lengths.is_none() && resets.is_none() ? full_rows(p) : rows_of(p, lengths, resets);
    call.slabs.resize(static_cast<size_t>(p.slabs()));
    initial_state("h0", h0, training, *tape, &Slab::h0);
    p.check_cell_state("c0", !c0.is_none());
    initial_state("c0", c0, training, *tape, &Slab::c0, true);
    initial_state("h of reset_state", h_restart, training, *tape, &Slab::h_restart);
    initial_state("c of reset_state", c_restart, training, *tape, &Slab::c_restart, true);
    if (!factors.is_none()) set_factors(factors, *tape);
    const py::tuple given = counted(p, "weights", weights);
    std::vector<py::array> copies;  // until they are packed
    const std::vector<WeightArrays<T>> arrays = weight_arrays(given, copies);

    for (int64_t l = 0; l < p.num_layers; ++l) {
      tape->y.push_back(new_array<T>(p.output_shape(p.num_directions * p.output_size())));
      call.y.push_back(writable_sequence_view<T>(tape->y.back(), batch_first));
    }
    py::array hn = new_array<T>(p.state_shape());
    py::object cn = py::none();
    if (p.layout.has_cell_state) cn = new_array<T>(p.state_shape(true));
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      Slab& to = call.slabs[static_cast<size_t>(slab)];
      to.hn = writable_slab_view<T>(hn, slab);
      if (p.layout.has_cell_state) to.cn = writable_slab_view<T>(cn, slab);
    }
    without_gil([&] {
      for (size_t slab = 0; slab < arrays.size(); ++slab)
        call.slabs[slab].weights = caches_[slab]->get(arrays[slab], training, serial, python_interrupted);
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
    const py::tuple given = counted(p, "weights", weights);
    const std::vector<WeightArrays<T>> arrays = weight_arrays(given, copies);
    without_gil([&] {
      for (size_t slab = 0; slab < arrays.size(); ++slab)
        packed.push_back(caches_[slab]->get(arrays[slab], false, 0, python_interrupted));
    });
    return std::make_unique<StreamOf<T>>(p, std::move(packed));
  }

  std::string plan(int64_t T_, int64_t B) override {
    ForwardCall<T> call;
    call.problem = p_;
    call.problem.set_extent(T_, B);
    constexpr int64_t many = 1 << 20;  // samples and more are shared out alike, and have an order of rows as long
    call.problem.set_extent(std::min(T_, many), std::min(B, many));
    call.rows = full_rows(call.problem);
    return plan_for(call).describe();
  }

 private:
  using Slab = typename ForwardCall<T>::Slab;

  // The order of the rows where no lengths are given; most calls have the shape of the one before.
  std::shared_ptr<const RowOrder> full_rows(const Problem& p) {
    const InsteadOfGil lock(weights_lock(this));
    if (!full_rows_ || !full_rows_->is_full_of(p)) full_rows_ = std::make_shared<RowOrder>(p, nullptr);
    return full_rows_;
  }

  std::shared_ptr<const RowOrder> rows_of(const Problem& p, const py::object& lengths, const py::object& resets) {
    std::vector<int64_t> ends;
    if (!lengths.is_none()) ends = read_lengths(p, lengths);
    if (resets.is_none()) return std::make_shared<RowOrder>(p, &ends);
    const py::array marks = read_resets(p, resets);
    const RestartMarks restarts = restart_marks(marks, p.batch_first);
    return std::make_shared<RowOrder>(p, lengths.is_none() ? nullptr : &ends, &restarts);
  }

  // Pointers into the given arrays; those that cannot be read as they are are copied.
  std::vector<WeightArrays<T>> weight_arrays(const py::tuple& weights, std::vector<py::array>& copies) {
    const int per_slab = p_.weights_per_slab();
    std::vector<WeightArrays<T>> out;
    out.reserve(static_cast<size_t>(p_.slabs()));
    for (int64_t slab = 0; slab < p_.slabs(); ++slab) {
      const T* pointers[Problem::weight_kinds] = {};
      for (int which = 0; which < per_slab; ++which) {
        py::handle given = weights[static_cast<size_t>(slab * per_slab + which)];
        if (!is_plain_weight<T>(p_, slab, which, given)) {
          const auto judge = [&](const Shape& shape) { p_.check_weight(slab, which, shape); };
          const std::string name = p_.weight_name(slab, which);
          copies.push_back(p_.in_8_bits(which) ? dense<int8_t>(p_.op, name, given, judge)
                                               : dense<T>(p_.op, name, given, judge));
          given = copies.back();
        }
        pointers[p_.weight_kind(which)] = static_cast<const T*>(py::reinterpret_borrow<py::array>(given).data());
      }
      out.push_back({pointers[0], pointers[1], pointers[2], pointers[3], pointers[Problem::weight_peephole],
                     pointers[Problem::scale_ih], pointers[Problem::scale_hh], pointers[Problem::weight_hr],
                     norm_arrays(pointers)});
    }
    return out;
  }

  // A tape keeps a copy: who trains on a long sequence in parts has the state in one buffer.
  void initial_state(const char* name, const py::object& state, bool training, TapeOf<T>& tape,
                     StateView<const T> Slab::* view, bool is_c = false) {
    if (state.is_none()) return;
    const Problem& p = tape.call.problem;
    const py::array given =
        readable<T>(p.op, name, state, [&](const Shape& shape) { p.check_state(name, shape, is_c); });
    tape.arrays.push_back(training ? py::array(given.attr("copy")()) : given);
    for (int64_t slab = 0; slab < p.slabs(); ++slab)
      tape.call.slabs[static_cast<size_t>(slab)].*view = slab_view<T>(tape.arrays.back(), slab);
  }

  // (h_factor (slabs, B, P), g_factor, h_zone, c_zone (slabs, T, B, H)), each an array of dtype or None.
  void set_factors(const py::object& factors, TapeOf<T>& tape) {
    const Problem& p = tape.call.problem;
    if (!py::isinstance<py::tuple>(factors)) throw TypeMismatch(p.op + ": factors is no tuple");
    const auto given = py::reinterpret_borrow<py::tuple>(factors);
    const auto array_of = [&](size_t which, const char* name, const Shape& expected) -> const T* {
      if (given[which].is_none()) return nullptr;
      tape.arrays.push_back(dense<T>(p.op, name, given[which], [&](const Shape& shape) {
        if (shape != expected) fail(p.op, name, "has shape " + to_string(shape), to_string(expected));
      }));
      return static_cast<const T*>(tape.arrays.back().data());
    };
    if (given.size() != 4 || !is_varied(p.cell)) fail(p.op, "factors", "is given", "four for a cell with options");
    const int64_t row = p.B * p.hidden_size;
    const Shape by_step{p.slabs(), p.T, p.B, p.hidden_size};
    const T* h = array_of(0, "h_factor", p.state_shape());
    const T* const steps[] = {array_of(1, "g_factor", by_step), array_of(2, "h_zone", by_step),
                              array_of(3, "c_zone", by_step)};
    for (const auto& [rate, zone] : {std::pair{p.options.h_zoneout, steps[1]}, {p.options.c_zoneout, steps[2]}})
      if (rate > 0 && !zone) fail(p.op, "factors", "has no zone", "one where zoneout is not 0");
    tape.noise.resize(static_cast<size_t>(p.slabs()));
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      Noise<T>& to = tape.noise[static_cast<size_t>(slab)];
      const auto of_slab = [&](const T* data) {
        return TimeMajorView<const T>{data ? data + slab * p.T * row : nullptr, row, p.hidden_size};
      };
      to.h_factor = {h ? h + slab * p.B * p.output_size() : nullptr, p.output_size()};
      to.g_factor = of_slab(steps[0]);
      to.h_zone = of_slab(steps[1]);
      to.c_zone = of_slab(steps[2]);
      tape.call.slabs[static_cast<size_t>(slab)].noise = &to;
    }
  }

  const Problem p_;
  std::vector<std::unique_ptr<WeightCache<T>>> caches_;
  std::shared_ptr<const RowOrder> full_rows_;
};

GateFunction<double> read_function(const std::string& op, const py::handle& given) {
  const auto [name, alpha, beta] = given.cast<std::tuple<std::string, double, double>>();
#define FUSEDRNN_FUNCTION(function) \
  if (name == #function) return {Function::function, alpha, beta, 0, 0};
  FUSEDRNN_FUNCTIONS(FUSEDRNN_FUNCTION)
#undef FUSEDRNN_FUNCTION
  fail(op, "activations", "has '" + name + "'", "the name of a function in core/cell_options.h");
}

// (gate, candidate, output), clip, coupled, peephole, zoneout of h and c, layer_norm; a function is (name, alpha,
// beta).
CellOptions<double> read_options(const std::string& op, const py::object& given) {
  const auto [functions, clip, coupled, peephole, h_zoneout, c_zoneout, layer_norm] =
      given.cast<std::tuple<py::tuple, double, bool, bool, double, double, bool>>();
  if (functions.size() != 3) fail(op, "activations", "has " + std::to_string(functions.size()) + " functions", "3");
  return {read_function(op, functions[0]),
          read_function(op, functions[1]),
          read_function(op, functions[2]),
          clip,
          coupled,
          peephole,
          h_zoneout,
          c_zoneout,
          layer_norm};
}

void set_projection(Problem& p, int64_t proj_size) {
  if (proj_size == 0) return;
  if (p.cell != CellKind::lstm_varied) fail(p.op, "proj_size", "is " + std::to_string(proj_size), "0 for this cell");
  if (p.options.peephole) fail(p.op, "proj_size", "is " + std::to_string(proj_size), "0 with peephole");
  p.proj_size = proj_size;
  p.check_sizes();
}

// Lets the products of a problem multiply weights in 8 bits with inputs of so many bytes.
void quantize(Problem& p, const std::string& dtype, int planes) {
  constexpr int64_t most = 1 << 16;  // products whose sum fits 32 bits (longest_piece in cpu/kernels/tile.h)
  const int64_t widest = std::max(p.widest_input(), p.hidden_size);
  if (planes < 1 || planes > 2) fail(p.op, "int8_planes", "is " + std::to_string(planes), "1 or 2");
  if (dtype != "float32" || p.bfloat16 || is_varied(p.cell))
    fail(p.op, "int8_planes", "is given for " + dtype + (p.bfloat16 ? " with bfloat16" : ""), "a plain float32 cell");
  if (widest > most)
    fail(p.op, "quantize", "has " + std::to_string(widest) + " inputs", "at most " + std::to_string(most));
  p.int8_planes = planes;
}

std::unique_ptr<Stack> make_stack(const std::string& cell, const std::string& dtype, int64_t input_size,
                                  int64_t hidden_size, int64_t num_layers, int64_t num_directions, bool reverse,
                                  bool bias, const std::string& compute_dtype, const py::object& options,
                                  int int8_planes, int64_t proj_size) {
  Problem p =
      problem_of_stack(cell, dtype, input_size, hidden_size, num_layers, num_directions, reverse, bias, compute_dtype);
  if (int8_planes) quantize(p, dtype, int8_planes);
  if (is_varied(p.cell) && !options.is_none()) p.options = read_options(p.op, options);
  set_projection(p, proj_size);
  if (dtype == "float32") return std::make_unique<StackOf<float>>(p);
  return std::make_unique<StackOf<double>>(p);
}

}  // namespace

void register_stack(py::module_& m) {
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
           py::arg("compute_dtype") = "", py::arg("options") = py::none(), py::arg("int8_planes") = 0,
           py::arg("proj_size") = 0)
      .def("forward", &Stack::forward, py::arg("weights"), py::arg("x"), py::arg("h0"), py::arg("c0"),
           py::arg("lengths"), py::arg("batch_first"), py::arg("training"), py::arg("serial") = 0,
           py::arg("resets") = py::none(), py::arg("h_restart") = py::none(), py::arg("c_restart") = py::none(),
           py::arg("factors") = py::none())
      .def("stream", &Stack::stream, py::arg("weights"), py::arg("batch_size"))
      .def("plan", &Stack::plan, py::arg("time"), py::arg("batch"));
}

}  // namespace fusedrnn
