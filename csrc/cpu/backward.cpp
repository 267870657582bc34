#include "core/process_locks.h"
#include "cpu/run_plan.h"
#include "cpu/segments.h"

namespace fusedrnn {

template <class T>
void run_backward(ForwardCall<T>& call, const BackwardCall<T>& grad, const Interrupt& interrupt) {
  const Problem& p = call.problem;
  const Plan plan = plan_for(call, Pass::backward);
  const CellKernels<T>& cell = cell_kernels<T>(p);
  const int64_t units = unit_blocks<T>(p), lanes = kernels<T>().lanes, D = p.num_directions, G = p.layout.gates,
                P = p.output_size();
  Layers<T> layers(call);
  SegmentStates<T> segments(call);
  segments.attach(call, layers.slabs());
  const auto spaces = attach_workspace(plan.gradient_threads, false, layers, p);

  std::vector<Buffer<T>> storage;
  const auto allocate = [&](int64_t size) {
    storage.emplace_back(size);
    return storage.back().get();
  };
  const int64_t places = call.rows->is_packed() ? call.rows->rows() : p.T * p.B;
  TimeMajorView<const T> dy = grad.dy;
  for (int64_t l = p.num_layers - 1; l >= 0; --l) {
    TimeMajorView<T> dx = grad.dx;
    if (l > 0) dx = {allocate(places * D * P), p.B * D * P, D * P};
    for (int64_t d = 0; d < D; ++d) {
      const size_t slab = static_cast<size_t>(l * D + d);
      Sequence<T>& seq = layers.slabs()[slab];
      seq.dy = {dy.data ? dy.data + d * P : nullptr, dy.step, dy.batch};
      seq.dx = dx;
      seq.add_to_dx = d > 0;
      seq.dhn = grad.slabs[slab].dhn;
      seq.dh0 = grad.slabs[slab].dh0;
      seq.dcn = grad.slabs[slab].dcn;
      seq.dc0 = grad.slabs[slab].dc0;
      seq.input_dz = seq.recurrent_dz = seq.gates;
      if (p.options.layer_norm) {
        const int64_t vectors = units * call.rows->rows();
        seq.input_dz = allocate(vectors * p.layout.slots * lanes);
        seq.recurrent_dz = allocate(vectors * p.layout.slots * lanes);
        if (p.layout.has_cell_state) seq.dnormalised_c = allocate(vectors * lanes);
        seq.dnorm = allocate(units * (4 * G + 2) * lanes);
      }
      seq.dw = allocate(units * (seq.I + 1) * G * lanes);
      seq.dr = allocate(units * (P + 1) * G * lanes);
      if (seq.peephole) seq.dpeephole = allocate(3 * units * lanes);
      if (!seq.projection) continue;
      const int64_t vectors_of_h = (P + lanes - 1) / lanes;
      seq.dh = allocate(vectors_of_h * call.rows->rows() * lanes);
      seq.dprojection = allocate(vectors_of_h * (seq.H + 1) * lanes);
    }
    dy = {dx.data, dx.step, dx.batch};
  }
  segments.attach_gradients(grad, layers.slabs());

  std::unique_lock<std::mutex> adding(gradients_lock(), std::defer_lock);
  run_plan(plan, plan.gradient_threads, interrupt, [&](Thread& thread, const Plan& actual) {
    const Share everyone = thread.share(thread.size, 0, 0);
    const auto meet = [&] { return thread.region->meet_all(thread.rank); };
    for (size_t l = layers.size(); l-- > 0;) {
      if (!run_layer(actual, layers[l], units, thread, cell.backward) || !meet()) return;
      for (const Sequence<T>& seq : layers[l]) {
        if (!seq.dx.data) break;
        if (!seq.add_to_dx && !call.rows->full())
          clear_padding(*call.rows, p, seq.dx, seq.I, thread.rank, thread.size,
                        [&] { return thread.region->poll(thread.rank); });
        if (!cell.input_gradient(seq, everyone) || !meet()) return;
      }
      for (size_t d = 0; d < layers[l].size(); ++d) {
        if (!grad.slabs[l * layers[l].size() + d].wants_weights()) continue;
        if (!cell.weight_gradient(layers[l][d], everyone)) return;
        if (cell.option_gradients && !cell.option_gradients(layers[l][d], everyone)) return;
      }
      if (l == 0 && thread.rank == 0) {
        thread.region->finish();
        adding.lock();  // for all threads of this call
      }
      if (!meet()) return;
    }
    // Last, so that a call that was stopped has added nothing.
    for (size_t slab = 0; slab < grad.slabs.size(); ++slab) {
      const Sequence<T>& seq = layers.slabs()[slab];
      const auto& to = grad.slabs[slab];
      if (!to.wants_weights()) continue;
      const auto inputs = everyone.part_of(seq.I + 1), units_of_h = everyone.part_of(P + 1);
      const Blocks shape(seq.H, G, lanes, p.values_per_operand());
      T* const bias_ih = seq.dnorm ? nullptr : to.bias_ih;  // behind the normalisation they are none of the products
      T* const bias_hh = seq.dnorm ? nullptr : to.bias_hh;
      add_unpacked(seq.dw, p.layout, p.layout.input_order, shape, seq.H, seq.I, inputs.begin, inputs.end, to.weight_ih,
                   bias_ih);
      if (p.layout.two_products)
        add_unpacked_gates(seq.dr, p.layout, shape, seq.H, units_of_h.begin, units_of_h.end, to.weight_hh, to.bias_hh);
      else
        add_unpacked(seq.dr, p.layout, p.layout.recurrent_order, shape, seq.H, P, units_of_h.begin, units_of_h.end,
                     to.weight_hh, bias_hh);
      if (seq.dprojection && to.weight_hr && thread.rank == 0) add_projection(seq.dprojection, P, seq.H, to.weight_hr);
      if (seq.dnorm && thread.rank == 0) add_norm(seq.dnorm, p.layout, seq.H, to.bias_ih, to.bias_hh, to.norm);
      if (seq.dpeephole && to.peephole && thread.rank == 0) add_peepholes(seq.dpeephole, seq.H, to.peephole);
    }
  });
  segments.store_gradients(grad, layers.slabs());
}

template void run_backward(ForwardCall<float>&, const BackwardCall<float>&, const Interrupt&);
template void run_backward(ForwardCall<double>&, const BackwardCall<double>&, const Interrupt&);

}  // namespace fusedrnn
