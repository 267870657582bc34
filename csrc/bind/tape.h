// The tape of a training call, as Python sees it.
#pragma once
#include "bind/arrays.h"
#include "bind/exclusive_use.h"
#include "bind/gil.h"
#include "cpu/stack.h"

namespace fusedrnn {

template <class T> bool is_plain_weight(const Problem& p, int64_t slab, int which, const py::handle& array) {
  const int64_t rows = p.layout.gates * p.hidden_size;
  switch (p.weight_kind(which)) {
    case Problem::weight_ih:
      return p.int8_planes ? is_plain<int8_t>(array, {rows, p.layer_input(slab / p.num_directions)})
                           : is_plain<T>(array, {rows, p.layer_input(slab / p.num_directions)});
    case Problem::weight_hh:
      return p.int8_planes ? is_plain<int8_t>(array, {rows, p.output_size()})
                           : is_plain<T>(array, {rows, p.output_size()});
    case Problem::weight_peephole:
      return is_plain<T>(array, {3 * p.hidden_size});
    case Problem::weight_hr:
      return is_plain<T>(array, {p.proj_size, p.hidden_size});
    case Problem::weight_ln_c:
    case Problem::bias_ln_c:
      return is_plain<T>(array, {p.hidden_size});
    default:
      return is_plain<T>(array, {rows});
  }
}

// Those of layer normalisation among the arrays of a slab, by kind.
template <class T> NormArrays<T> norm_arrays(T* const (&arrays)[Problem::weight_kinds]) {
  return {arrays[Problem::weight_ln_ih], arrays[Problem::weight_ln_hh], arrays[Problem::weight_ln_c],
          arrays[Problem::bias_ln_c]};
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
  std::vector<Noise<T>> noise;    // by slab; empty without
  bool consumed = false;

  py::tuple backward(py::object dy, py::object dh, py::object dc, py::sequence gradients, bool want_dx) override {
    const Problem& p = call.problem;
    const py::tuple into = counted(p, "gradients", gradients);
    std::vector<py::array> keep;
    BackwardCall<T> back{};
    back.slabs.resize(call.slabs.size());
    back.dy = output_gradient(dy, keep);
    state_gradient("dh", dh, keep, back, &BackwardCall<T>::Slab::dhn);
    p.check_cell_state("dc", !dc.is_none());
    state_gradient("dc", dc, keep, back, &BackwardCall<T>::Slab::dcn, true);
    collect_gradients(into, back, keep);

    py::object dx = py::none(), dc0 = py::none();
    if (want_dx) {
      dx = new_array<T>(p.input_shape());
      back.dx = writable_sequence_view<T>(dx, p.batch_first);
    }
    py::array dh0 = new_array<T>(p.state_shape());
    if (p.layout.has_cell_state) dc0 = new_array<T>(p.state_shape(true));
    py::object dh_restart = py::none(), dc_restart = py::none();
    const auto& given = call.slabs.front();
    if (given.h_restart.data) dh_restart = new_array<T>(p.state_shape());
    if (given.c_restart.data) dc_restart = new_array<T>(p.state_shape(true));
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& gradient = back.slabs[static_cast<size_t>(slab)];
      gradient.dh0 = writable_slab_view<T>(dh0, slab);
      if (p.layout.has_cell_state) gradient.dc0 = writable_slab_view<T>(dc0, slab);
      if (given.h_restart.data) gradient.dh_restart = writable_slab_view<T>(dh_restart, slab);
      if (given.c_restart.data) gradient.dc_restart = writable_slab_view<T>(dc_restart, slab);
    }
    const ExclusiveUse use(busy_, p.op, "tape");
    without_gil([&] {
      if (consumed) restore_gates();
      consumed = true;
      run_backward(call, back, python_interrupted);
    });
    return py::make_tuple(dx, dh0, dc0, dh_restart, dc_restart);
  }

  py::object gates(int64_t slab) override {
    const ExclusiveUse use(busy_, call.problem.op, "tape");
    require_gates();
    return by_time(call.slabs.at(static_cast<size_t>(slab)).gates.get(), slab, call.problem.layout.slots);
  }

  py::object cell_states(int64_t slab) override {
    if (!call.problem.layout.has_cell_state) return py::none();
    const ExclusiveUse use(busy_, call.problem.op, "tape");
    return by_time(call.slabs.at(static_cast<size_t>(slab)).cells.get(), slab, 1);
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
      to.hn = {scratch.get() + 2 * slab * slab_size, p.output_size()};
      if (p.layout.has_cell_state) to.cn = {scratch.get() + (2 * slab + 1) * slab_size, p.hidden_size};
    }
    run_forward(call, python_interrupted);
    for (auto& slab : call.slabs) slab.hn = slab.cn = {};
  }

  // What was saved, (U, R, slots, lanes), as (slots, T, B, H).
  py::array by_time(const T* saved, int64_t slab, int64_t slots) {
    const Problem& p = call.problem;
    py::array out = new_array<T>({slots, p.T, p.B, p.hidden_size});
    T* to = static_cast<T*>(out.mutable_data());
    without_gil([&] {
      unpack_saved(p, call.rows->ragged(), p.is_reverse(slab % p.num_directions), slots, saved, to, python_interrupted);
    });
    return out;
  }

  TimeMajorView<const T> output_gradient(const py::object& dy, std::vector<py::array>& keep) {
    if (dy.is_none()) return {nullptr, 0, 0};
    const Problem& p = call.problem;
    keep.push_back(readable<T>(p.op, "dy", dy, [&](const Shape& shape) { p.check_output_gradient(shape); }));
    return sequence_view<T>(keep.back(), call.problem.batch_first);
  }

  void state_gradient(const char* name, const py::object& d, std::vector<py::array>& keep, BackwardCall<T>& back,
                      StateView<const T> BackwardCall<T>::Slab::* view, bool is_c = false) {
    if (d.is_none()) return;
    const Problem& p = call.problem;
    keep.push_back(readable<T>(p.op, name, d, [&](const Shape& shape) { p.check_state(name, shape, is_c); }));
    for (int64_t slab = 0; slab < p.slabs(); ++slab)
      back.slabs[static_cast<size_t>(slab)].*view = slab_view<T>(keep.back(), slab);
  }

  void collect_gradients(const py::tuple& gradients, BackwardCall<T>& back, std::vector<py::array>& keep) {
    const Problem& p = call.problem;
    const int per_slab = p.weights_per_slab();
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      T* pointers[Problem::weight_kinds] = {};
      for (int which = 0; which < per_slab; ++which) {
        const py::handle given = gradients[static_cast<size_t>(slab * per_slab + which)];
        if (is_plain_weight<T>(p, slab, which, given)) {
          auto plain = py::reinterpret_borrow<py::array>(given);
          if (plain.writeable()) {
            pointers[p.weight_kind(which)] = static_cast<T*>(plain.mutable_data());
            continue;
          }
        }
        const std::string name = "gradient of " + p.weight_name(slab, which);
        py::array a = typed<T>(p.op, name, given);
        p.check_weight(slab, which, shape_of(a));
        require_writable<T>(p.op, name, a);
        pointers[p.weight_kind(which)] = static_cast<T*>(a.mutable_data());
        keep.push_back(a);
      }
      auto& to = back.slabs[static_cast<size_t>(slab)];
      to.weight_ih = pointers[0], to.weight_hh = pointers[1], to.bias_ih = pointers[2], to.bias_hh = pointers[3];
      to.peephole = pointers[Problem::weight_peephole], to.weight_hr = pointers[Problem::weight_hr];
      to.norm = norm_arrays(pointers);
    }
  }
};

}  // namespace fusedrnn
