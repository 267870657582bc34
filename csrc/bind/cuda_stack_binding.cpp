// The stacks of the CUDA backend as Python sees them: arrays come as views, outputs are allocated by the caller. Each
// method has three beats: judge the arrays, describe the call, release the GIL and call.
#include <pybind11/stl.h>

#include "bind/arrays.h"
#include "bind/cuda_arrays.h"
#include "bind/exclusive_use.h"
#include "bind/gil.h"
#include "cuda/path_plan.h"
#include "cuda/stack.h"
#include "cuda/status.h"

namespace fusedrnn::cuda {
namespace {

using MaybeView = const View*;  // None: null

// The stream and the options of a call; see cuda/stack.h.
struct Options {
  uintptr_t stream;
  bool tf32;
  int64_t chunk_bytes;
  Path most;
};

// The fastest path that FUSEDRNN_CUDA_PATH allows; Python has checked the name.
Path path_named(const std::string& name) {
  return name == "stepwise" ? Path::stepwise : name == "fused" ? Path::fused : Path::resident;
}

Place place_of(const ArrayRules& rules, const Options& options) {
  return {rules.device, reinterpret_cast<void*>(options.stream), options.tf32, options.chunk_bytes, options.most};
}

TimeMajorView<const void> sequence_view(const Problem& p, const View& a) {
  return {a.data, a.strides[p.batch_first ? 1 : 0], a.strides[p.batch_first ? 0 : 1]};
}

// (slabs, B, H) as one (B, H) state a slab; null: zeros.
std::vector<StateView<const void>> input_states(const Problem& p, const ArrayRules& rules, const char* name,
                                                MaybeView given) {
  std::vector<StateView<const void>> states(static_cast<size_t>(p.slabs()), StateView<const void>{nullptr, 0});
  if (!given) return states;
  const View& a = rules.readable(name, *given);
  p.check_state(name, a.shape);
  for (size_t slab = 0; slab < states.size(); ++slab)
    states[slab] = {static_cast<const char*>(a.data) + static_cast<int64_t>(slab) * a.strides[0] * rules.item_bytes(),
                    a.strides[1]};
  return states;
}

std::vector<StateView<void>> output_states(const Problem& p, const ArrayRules& rules, const char* name,
                                           MaybeView given) {
  if (!p.layout.has_cell_state && name[0] == 'c') return {};
  if (!given) throw TypeMismatch(p.op + ": " + name + " is None; expected an array");
  rules.writable(name, *given);
  std::vector<StateView<void>> states;
  for (const auto& view : input_states(p, rules, name, given))
    states.push_back({const_cast<void*>(view.data), view.stride});
  return states;
}

void check_shape(const Problem& p, const char* name, const View& a, const Shape& expected) {
  if (a.shape != expected) fail(p.op, name, "has shape " + to_string(a.shape), to_string(expected));
}

// The arrays of every slab: weights, or gradients that are added to. `judge` checks one array by its name.
template <class Pointers, class Judge> std::vector<Pointers> by_slab(const Problem& p, const char* list,
                                                                     const char* prefix,
                                                                     const std::vector<MaybeView>& given, Judge judge) {
  const size_t per_slab = static_cast<size_t>(p.weights_per_slab());
  p.check_array_count(list, given.size());
  std::vector<Pointers> out;
  for (int64_t slab = 0; slab < p.slabs(); ++slab) {
    void* pointers[4] = {};
    for (size_t which = 0; which < per_slab; ++which) {
      const MaybeView a = given[static_cast<size_t>(slab) * per_slab + which];
      const std::string name = prefix + p.weight_name(slab, static_cast<int>(which));
      if (!a) throw TypeMismatch(p.op + ": " + name + " is None; expected an array");
      p.check_weight(slab, static_cast<int>(which), judge(name, *a).shape);
      pointers[which] = a->data;
    }
    out.push_back({pointers[0], pointers[1], pointers[2], pointers[3]});
  }
  return out;
}

class DeviceTape {
 public:
  DeviceTape(const Engine& engine, ArrayRules rules, Problem problem, Options options, std::unique_ptr<Tape> tape)
      : engine_(engine), rules_(std::move(rules)), p_(std::move(problem)), options_(options), tape_(std::move(tape)) {}

  void backward(MaybeView dy, MaybeView dh, MaybeView dc, const std::vector<MaybeView>& gradients, MaybeView dx,
                MaybeView dh0, MaybeView dc0, uintptr_t stream) {
    BackwardCall call{};
    if (dy) {
      p_.check_output_gradient(rules_.readable("dy", *dy).shape);
      call.dy = sequence_view(p_, *dy);
    }
    call.dhn = input_states(p_, rules_, "dh", dh);
    p_.check_cell_state("dc", dc);
    call.dcn = input_states(p_, rules_, "dc", dc);
    if (dx) {
      check_shape(p_, "dx", rules_.writable("dx", *dx), p_.input_shape());
      const auto view = sequence_view(p_, *dx);
      call.dx = {dx->data, view.step, view.batch};
    }
    call.dh0 = output_states(p_, rules_, "h0 gradient", dh0);
    if (p_.layout.has_cell_state) call.dc0 = output_states(p_, rules_, "c0 gradient", dc0);
    call.gradients = by_slab<WeightGradients>(
        p_, "gradients", "gradient of ", gradients,
        [&](const std::string& name, const View& a) -> const View& { return rules_.writable(name, a); });
    const ExclusiveUse use(busy_, p_.op, "tape");
    Place place = place_of(rules_, options_);
    place.stream = reinterpret_cast<void*>(stream);
    without_gil([&] { engine_.backward(*tape_, call, place); });
  }

 private:
  const Engine& engine_;
  const ArrayRules rules_;
  const Problem p_;
  const Options options_;
  const std::unique_ptr<Tape> tape_;
  std::atomic<bool> busy_{false};
};

class DeviceStack {
 public:
  DeviceStack(Problem problem, std::string dtype, const Engine* engine, bool on_host)
      : p_(std::move(problem)), dtype_(std::move(dtype)), engine_(engine), on_host_(on_host) {
    if (!engine_)
      throw TypeMismatch(p_.op + ": dtype is " + dtype_ + "; expected float32, float64, bfloat16 or float16");
  }

  // Shapes of y and of a state, and whether there is a c.
  py::tuple outputs(const Shape& x, bool batch_first) const {
    Problem p = p_;
    p.batch_first = batch_first;
    p.set_input(x);
    return py::make_tuple(py::tuple(py::cast(p.output_shape(p.num_directions * p.hidden_size))),
                          py::tuple(py::cast(p.state_shape())), p.layout.has_cell_state);
  }

  // float32 to the dtype of the stack; or the other way, and then added to what is there. Both in C order.
  void convert(const View& from, const View& to, uintptr_t stream) const {
    const bool widens = from.dtype == dtype_;
    const int device = on_host_ ? on_the_cpu : to.device;
    const ArrayRules own{p_.op, dtype_, device}, wide{p_.op, "float32", device};
    (widens ? own : wide).dense("from", from);
    (widens ? wide : own).writable("to", to);
    check_shape(p_, "to", to, from.shape);
    int64_t n = 1;
    for (const int64_t size : from.shape) n *= size;
    const Place place{device, reinterpret_cast<void*>(stream), false, 0, Path::stepwise};
    without_gil([&] {
      if (widens)
        engine_->add_widened(from.data, static_cast<float*>(to.data), n, place);
      else
        engine_->round(static_cast<const float*>(from.data), to.data, n, place);
    });
  }

  // Which path a call on the current device takes.
  std::string plan(int64_t time, int64_t batch, const std::string& path) const {
    Problem p = p_;
    p.set_extent(time, batch);
    return engine_->plan(p, {on_host_ ? on_the_cpu : current_device(), nullptr, false, 0, path_named(path)});
  }

  std::unique_ptr<DeviceTape> forward(const std::vector<MaybeView>& weights, const View& x, MaybeView h0, MaybeView c0,
                                      const py::object& lengths, bool batch_first, const View& y, MaybeView hn,
                                      MaybeView cn, bool training, uintptr_t stream, bool tf32, int64_t chunk_bytes,
                                      const std::string& path) {
    ForwardCall call{};
    Problem& p = call.problem;
    p = p_;
    p.batch_first = batch_first;
    if (!on_host_ && x.device == on_the_cpu)
      throw std::runtime_error(p.op +
                               ": x is on the CPU; expected a CUDA array: copy it, for example with cupy.asarray(x)");
    const ArrayRules rules{p.op, dtype_, on_host_ ? on_the_cpu : x.device};
    p.set_input(x.shape);
    call.x = sequence_view(p, rules.readable("x", x));
    if (lengths.is_none()) {
      call.rows = std::make_shared<RowOrder>(p, nullptr);
    } else {
      const std::vector<int64_t> values = read_lengths(p, lengths);
      call.rows = std::make_shared<RowOrder>(p, &values);
    }
    p.check_cell_state("c0", c0);
    call.h0 = input_states(p, rules, "h0", h0);
    call.c0 = input_states(p, rules, "c0", c0);
    call.weights =
        by_slab<Weights>(p, "weights", "", weights,
                         [&](const std::string& name, const View& a) -> const View& { return rules.dense(name, a); });
    check_shape(p, "y", rules.writable("y", y), p.output_shape(p.num_directions * p.hidden_size));
    const auto out = sequence_view(p, y);
    call.y = {y.data, out.step, out.batch};
    call.hn = output_states(p, rules, "h", hn);
    if (p.layout.has_cell_state) call.cn = output_states(p, rules, "c", cn);

    const Options options{stream, tf32, chunk_bytes, path_named(path)};
    std::unique_ptr<Tape> tape;
    without_gil([&] { tape = engine_->forward(call, place_of(rules, options), training); });
    if (!tape) return nullptr;
    return std::make_unique<DeviceTape>(*engine_, rules, p, options, std::move(tape));
  }

 private:
  const Problem p_;
  const std::string dtype_;
  const Engine* const engine_;
  const bool on_host_;
};

template <bool on_host>
std::unique_ptr<DeviceStack> make_stack(const std::string& cell, const std::string& dtype, int64_t input_size,
                                        int64_t hidden_size, int64_t num_layers, int64_t num_directions, bool reverse,
                                        bool bias) {
  Problem p = problem_of(cell, input_size, hidden_size, num_layers, num_directions, reverse, bias);
  return std::make_unique<DeviceStack>(std::move(p), dtype, on_host ? host_engine(dtype) : device_engine(dtype),
                                       on_host);
}

// The choice of a path for any device, for the tests.
std::string plan_for(const std::string& cell, const std::string& dtype, int64_t hidden_size, int64_t batch,
                     int64_t num_directions, int64_t multiprocessors, int64_t shared_bytes) {
  const ArrayRules rules{"", dtype, on_the_cpu};
  const Problem p = problem_of(cell, 1, hidden_size, 1, num_directions, false, true);
  return plan_path(Path::resident, Pass::forward, p.layout, hidden_size, rules.item_bytes(), false, batch,
                   num_directions, {multiprocessors, shared_bytes})
      .describe();
}

}  // namespace

// Stack(...) runs on a GPU. host_stack(...) makes its twin for the tests: the same code in plain loops, on arrays of
// the CPU.
void register_stack(py::module_& m) {
  py::class_<DeviceTape>(m, "Tape").def("backward", &DeviceTape::backward, py::arg("dy"), py::arg("dh"), py::arg("dc"),
                                        py::arg("gradients"), py::arg("dx"), py::arg("dh0"), py::arg("dc0"),
                                        py::arg("stream"));
  py::class_<DeviceStack>(m, "Stack")
      .def(py::init(&make_stack<false>), py::arg("cell"), py::arg("dtype"), py::arg("input_size"),
           py::arg("hidden_size"), py::arg("num_layers"), py::arg("num_directions"), py::arg("reverse"),
           py::arg("bias"))
      .def("outputs", &DeviceStack::outputs, py::arg("x"), py::arg("batch_first"))
      .def("forward", &DeviceStack::forward, py::arg("weights"), py::arg("x"), py::arg("h0"), py::arg("c0"),
           py::arg("lengths"), py::arg("batch_first"), py::arg("y"), py::arg("h"), py::arg("c"), py::arg("training"),
           py::arg("stream"), py::arg("tf32"), py::arg("chunk_bytes") = 0, py::arg("path") = "auto")
      .def("convert", &DeviceStack::convert, py::arg("source"), py::arg("target"), py::arg("stream"))
      .def("plan", &DeviceStack::plan, py::arg("time"), py::arg("batch"), py::arg("path") = "auto");
  m.def("host_stack", &make_stack<true>, py::arg("cell"), py::arg("dtype"), py::arg("input_size"),
        py::arg("hidden_size"), py::arg("num_layers"), py::arg("num_directions"), py::arg("reverse"), py::arg("bias"));
  m.def("refuse_on_host", &refuse_on_host, py::arg("after"));
  m.def("forget_loops_on_host", &forget_loops_on_host);
  m.def("plan_for", &plan_for, py::arg("cell"), py::arg("dtype"), py::arg("hidden_size"), py::arg("batch"),
        py::arg("num_directions"), py::arg("multiprocessors"), py::arg("shared_bytes"));
}

}  // namespace fusedrnn::cuda
