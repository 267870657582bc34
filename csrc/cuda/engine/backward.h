// Backpropagation through a stack: layers from the top, the directions of a layer side by side. A direction takes its
// steps from the last to the first: a pointwise launch turns the saved gates into their gradients dz, then a product
// makes W_hh^T dz for the step before. Afterwards the gradients of the input and of the weights are single products
// over all rows; those of the weights run in a lane of their own while the layer below goes through time.
#pragma once
#include "cuda/engine/call.h"
#include "cuda/kernels/fused_step.h"
#include "cuda/kernels/resident_backward.h"

namespace fusedrnn::cuda {

// Adjacent blocks of W_ih and the columns of a saved row (in units of H) that face them.
struct InputRun {
  int block, column, count;
};
inline std::vector<InputRun> input_runs(const CellLayout& layout) {
  std::vector<InputRun> runs;
  for (int block = 0; block < layout.gates; ++block) {
    int slot = layout.input_slot;
    while (layout.input_order[slot - layout.input_slot] != block) ++slot;
    const int column = position_of_slot(layout, slot);
    if (!runs.empty() && runs.back().column + runs.back().count == column)
      ++runs.back().count;
    else
      runs.push_back({block, column, 1});
  }
  return runs;
}

template <class D, class E> class Backward {
 public:
  Backward(D& device, TapeOf<D, E>& tape, const BackwardCall& back, const Place& place)
      : device_(device),
        tape_(tape),
        call_(tape.call),
        p_(call_.problem),
        back_(back),
        place_(place),
        order_(device, p_, *call_.rows),
        plan_(path_of<D, E>(p_, place, Pass::backward)),
        runs_(input_runs(p_.layout)) {}

  void run() {
    const int64_t width = p_.num_directions * p_.hidden_size, L = p_.num_layers;
    loop_lanes_ = std::min<int64_t>(std::max(device_.lanes() - 1, 1), p_.slabs());
    weights_lane_ = std::min<int64_t>(device_.lanes() - 1, loop_lanes_);
    parts_ = std::clamp<int64_t>(order_.R / 64, 1, 512);
    part_sums_ = scratch<A>(device_, parts_ * p_.layout.slots * p_.hidden_size);
    // One for all layers: the dx of a layer takes the place of its dy, chunk by chunk.
    if (L > 1) inner_ = scratch<A>(device_, order_.R * width);
    prepare_caller_gradient();

    device_.fork(weights_lane_ + 1);
    // The last memory that is asked for: where there is not enough, nothing has been added yet and the caller may try
    // again.
    for (int64_t l = 0; l < L; ++l)
      for (int64_t d = 0; d < p_.num_directions; ++d) slabs_.push_back(begin(l, d));
    tape_.consumed = true;
    try {
      run_layers();
      device_.join(weights_lane_ + 1);
    } catch (const OutOfMemory& error) {  // of a recording, say
      if (!added_) throw;
      throw std::runtime_error(
          std::string(error.what()) +
          "; some gradients have been added by then: set all of them to zero before you try again");
    }
  }

 private:
  using A = Sum<E>;
  using Event = typename D::Event;

  // One direction of one layer on its way back through time.
  struct Slab {
    int64_t index, lane;
    bool reverse;
    typename D::Loop* loop;
    A *dh_product, *dh_bypass, *dc;
    E *operand, *transposed;  // the latter: W_hh as the fused path reads it
    BackwardBlock<E>* block_on_device;
    BackwardBlock<E> block;
  };

  int64_t slab_of(int64_t l, int64_t d) const { return l * p_.num_directions + d; }
  const Weights& weights(int64_t slab) const { return call_.weights[static_cast<size_t>(slab)]; }
  Slab& slab_at(int64_t l, int64_t d) { return slabs_[static_cast<size_t>(slab_of(l, d))]; }

  void run_layers() {
    std::vector<Event> above;  // by chunk: when the layer above has written dx
    for (int64_t l = p_.num_layers - 1; l >= 0; --l) {
      above = p_.num_directions == 1 ? one_direction(l, above) : two_directions(l, above);
      for (int64_t d = 0; d < p_.num_directions; ++d) weight_gradients(l, d);
    }
    if (scatter_dx_)  // lane 0 is where the first layer has written its dx
      device_.each(0, p_.T * p_.B, p_.input_size, Scatter<A, E>{order_.rows, dx_rows_, p_.input_size, dx_});
  }

  // Returns by chunk when dx is written.
  std::vector<Event> one_direction(int64_t l, const std::vector<Event>& above) {
    const int64_t steps = order_.ragged->steps;
    const bool wavefront = order_.runs_are_packed(p_.reverse);
    const int64_t chunk = wavefront ? chunk_steps<A>(p_, order_, place_) : std::max<int64_t>(steps, 1);
    Slab& slab = slab_at(l, 0);
    std::vector<Event> done;
    for (int64_t s0 = (steps - 1) / chunk * chunk; s0 >= 0 && steps > 0; s0 -= chunk) {
      const int64_t s1 = std::min(s0 + chunk, steps);
      if (!above.empty()) device_.wait(slab.lane, above[done.size()]);
      step_back(slab, s0, s1);
      const int64_t row = wavefront ? order_.first_row(slab.reverse, s0, s1) : 0;
      input_gradient(l, slab.lane, row, order_.row_count(s0, s1));
      done.push_back(device_.record(slab.lane));
    }
    finish(slab);
    device_.wait(weights_lane_, device_.record(slab.lane));
    return done;
  }

  std::vector<Event> two_directions(int64_t l, const std::vector<Event>& above) {
    for (int64_t d = 0; d < 2; ++d) {
      Slab& slab = slab_at(l, d);
      for (const Event& written : above) device_.wait(slab.lane, written);
      step_back(slab, 0, order_.ragged->steps);
      finish(slab);
      const Event ended = device_.record(slab.lane);
      device_.wait(0, ended);
      device_.wait(weights_lane_, ended);
    }
    input_gradient(l, 0, 0, order_.R);
    return {device_.record(0)};
  }

  Slab begin(int64_t l, int64_t d) {
    const int64_t B = p_.B, H = p_.hidden_size, rows = fused() ? 2 * B : B;
    Slab slab{};
    slab.index = slab_of(l, d);
    slab.lane = slab.index % loop_lanes_;
    slab.reverse = p_.is_reverse(d);
    const size_t i = static_cast<size_t>(slab.index);
    const auto& kept = tape_.slabs[i];
    const auto carve = [&](Carver from) {
      slab.dh_product = from.take<A>(B * H);
      slab.dh_bypass = from.take<A>(B * H);
      slab.dc = from.take<A>(B * H);
      slab.operand = from.take<E>(rows * row());
      slab.transposed = from.take<E>(fused() ? H * row() : 0);
      slab.block_on_device = from.take<BackwardBlock<E>>(1);
      return from.size();
    };
    const LoopKey key = loop_key<E>(p_, slab.index, true, weights(slab.index).weight_hh, place_.tf32, plan_.path);
    slab.loop = &device_.loop(slab.lane, key, carve(Carver(nullptr)));
    carve(Carver(slab.loop->memory()));
    device_.each(slab.lane, rows, row(), Clear<E>{slab.operand, row()});
    if (fused() && B > 0) {
      const int64_t GH = p_.layout.gates * H;
      device_.run_phases(slab.lane, Transpose<E>::grid(GH, H),
                         Transpose<E>{static_cast<const E*>(weights(slab.index).weight_hh), slab.transposed,
                                      static_cast<int>(GH), static_cast<int>(H)});
    }

    BackwardBlock<E>& b = slab.block;
    b.rows = order_.rows;
    b.reverse = slab.reverse;
    if (l + 1 < p_.num_layers) {
      b.inner = inner_ + d * H;
      b.inner_width = p_.num_directions * H;
    } else if (back_.dy.data) {
      const int64_t width = p_.num_directions * H;
      b.dy = sequenced<const E>(p_, back_.dy.data, back_.dy.step, back_.dy.batch, width, order_.full);
      b.dy.data += d * H;
    }
    b.dhn = typed<E>(back_.dhn[i]);
    if (p_.layout.has_cell_state) b.dcn = typed<E>(back_.dcn[i]);
    b.gates = kept.gates;
    b.previous = kept.previous;
    b.cells = kept.cells;
    b.c_start = kept.c_start;
    return slab;
  }

  // Steps s1 - 1 down to s0.
  void step_back(Slab& slab, int64_t s0, int64_t s1) {
    const int64_t H = p_.hidden_size, GH = p_.layout.gates * H;
    const E* weight_hh = static_cast<const E*>(weights(slab.index).weight_hh);
    if (plan_.path == Path::resident && s1 > s0) return resident_steps(slab, weight_hh, s0, s1);
    while (s1 > s0) {
      const int64_t n = segment_steps(s1 - s0), active = active_rows(p_.B, order_.count(s1 - n));
      slab.block.step = s1 - 1;
      device_.write(slab.lane, slab.block_on_device, &slab.block, sizeof slab.block);
      device_.replay(slab.lane, *slab.loop, n, 2 * active + (fused() ? s1 % 2 : 0), [&] {
        for (int64_t k = 0; k < n; ++k) {
          if (fused()) {
            fused_step(slab, k, s1 - 1 - k, active);
            continue;
          }
          with_cell(p_.cell, [&]<class C>() {
            device_.each(slab.lane, active, H,
                         BackwardStep<C, E>{slab.block_on_device, k, H, row(), slab.dh_product, slab.dh_bypass, slab.dc,
                                            slab.operand});
          });
          device_.multiply(slab.lane, Product<E, A>{active, H, GH, slab.operand, row(), false, weight_hh, H, false,
                                                    slab.dh_product, H, 0});
        }
      });
      s1 -= n;
    }
  }

  // Step s, the k-th of its segment; -1: the product alone, with dz of step 0. dz of step s stands in place s % 2 of
  // the operand.
  void fused_step(Slab& slab, int64_t k, int64_t s, int64_t active) {
    const int64_t H = p_.hidden_size, GH = p_.layout.gates * H, place = p_.B * row();
    const E* after = slab.operand + (s + 1) % 2 * place;
    E* here = s < 0 ? nullptr : slab.operand + s % 2 * place;
    with_cell(p_.cell, [&]<class C>() {
      with_rows<E, Pass::backward>(active, [&]<int rows>() {
        using Fused = FusedBackward<C, E, rows>;
        device_.run_phases(
            slab.lane, Fused::Product::grid(H),
            Fused{{slab.block_on_device, k, H, row(), slab.dh_product, slab.dh_bypass, slab.dc, here},
                  {slab.transposed, after, row(), static_cast<int>(H), static_cast<int>(GH), static_cast<int>(active)},
                  s < 0});
      });
    });
  }

  bool fused() const { return plan_.path == Path::fused; }
  // Elements from row to row of the operand.
  int64_t row() const {
    const int64_t GH = p_.layout.gates * p_.hidden_size;
    return fused() ? operand_row(GH) : GH;
  }

  // The same in one launch.
  void resident_steps(Slab& slab, const E* weight_hh, int64_t s0, int64_t s1) {
    slab.block.step = s1 - 1;
    with_cell(p_.cell, [&]<class C>() {
      with_samples<E>(plan_.samples, [&]<int samples>() {
        device_.run_phases(slab.lane, plan_.grid(plan_.backward),
                           ResidentBackward<C, E, samples>{plan_.backward, slab.block, static_cast<int>(s0),
                                                           static_cast<int>(p_.hidden_size), weight_hh, slab.dh_product,
                                                           slab.dh_bypass, slab.dc});
      });
    });
  }

  void finish(Slab& slab) {
    if (fused() && p_.B > 0) fused_step(slab, 0, -1, p_.B);
    const size_t i = static_cast<size_t>(slab.index);
    FinishBackward<E> finish{order_.rows, p_.hidden_size, slab.dh_product, slab.dh_bypass,
                             slab.dc,     slab.block.dhn, slab.block.dcn,  typed<E>(back_.dh0[i]),
                             {}};
    if (p_.layout.has_cell_state) finish.dc0 = typed<E>(back_.dc0[i]);
    device_.each(slab.lane, p_.B, p_.hidden_size, finish);
  }

  // dx of the first layer goes straight into the caller's array where its rows are packed and each is rounded once
  // only; else into rows of sums, which are scattered at the end.
  void prepare_caller_gradient() {
    if (!back_.dx.data) return;
    const int64_t I = p_.input_size;
    dx_ = sequenced<E>(p_, back_.dx.data, back_.dx.step, back_.dx.batch, I, order_.full);
    const bool one_product = p_.num_directions * static_cast<int64_t>(runs_.size()) == 1;
    scatter_dx_ = !dx_.packed || !(one_product || std::is_same_v<E, A>);
    if (scatter_dx_) dx_rows_ = scratch<A>(device_, order_.R * I);
  }

  // Rows [row, row + count) of dx of a layer.
  void input_gradient(int64_t l, int64_t lane, int64_t row, int64_t count) {
    const int64_t I = p_.layer_input(l);
    if (l > 0)
      add_input_products(l, lane, row, count, inner_ + row * I, I);
    else if (scatter_dx_)
      add_input_products(l, lane, row, count, dx_rows_ + row * I, I);
    else if (back_.dx.data)
      add_input_products(l, lane, row, count, dx_.data + row * dx_.batch, dx_.batch);
  }

  // dx = sum over directions of dz W_ih, into rows `ld` apart.
  template <class X>
  void add_input_products(int64_t l, int64_t lane, int64_t row, int64_t count, X* to, int64_t ld) {
    const int64_t H = p_.hidden_size, S = p_.layout.slots, I = p_.layer_input(l);
    int beta = 0;
    for (int64_t d = 0; d < p_.num_directions; ++d) {
      const E* dz = tape_.slabs[static_cast<size_t>(slab_of(l, d))].gates + row * S * H;
      const E* weight_ih = static_cast<const E*>(weights(slab_of(l, d)).weight_ih);
      for (const InputRun& run : runs_) {
        device_.multiply(lane, Product<E, X>{count, I, run.count * H, dz + run.column * H, S * H, false,
                                             weight_ih + run.block * H * I, I, false, to, ld, beta});
        beta = 1;
      }
    }
  }

  // dW_ih += dz^T x, dW_hh += dz^T h0, biases += the sums of dz over all rows.
  void weight_gradients(int64_t l, int64_t d) {
    const int64_t H = p_.hidden_size, S = p_.layout.slots, I = p_.layer_input(l), index = slab_of(l, d);
    const auto& kept = tape_.slabs[static_cast<size_t>(index)];
    const WeightGradients& to = back_.gradients[static_cast<size_t>(index)];
    const Sequenced<const E> x = layer_input(l);
    if (order_.R == 0) return;
    added_ = true;
    E* weight_ih = static_cast<E*>(to.weight_ih);
    for (const InputRun& run : runs_)
      device_.multiply(weights_lane_, Product<E, E>{run.count * H, I, order_.R, kept.gates + run.column * H, S * H,
                                                    true, x.data, x.batch, false, weight_ih + run.block * H * I, I, 1});
    device_.multiply(weights_lane_, Product<E, E>{p_.layout.gates * H, H, order_.R, kept.gates, S * H, true,
                                                  kept.previous, H, false, static_cast<E*>(to.weight_hh), H, 1});
    if (!p_.bias) return;
    const int64_t part_rows = (order_.R + parts_ - 1) / parts_;
    device_.each(weights_lane_, parts_, S * H, SumParts<E>{kept.gates, order_.R, S * H, part_rows, part_sums_});
    const auto add = [&](int column, int count, E* bias) {
      device_.each(weights_lane_, 1, count * H, AddParts<E>{part_sums_, parts_, S * H, column * H, bias});
    };
    for (const InputRun& run : runs_) add(run.column, run.count, static_cast<E*>(to.bias_ih) + run.block * H);
    add(0, p_.layout.gates, static_cast<E*>(to.bias_hh));
  }

  Sequenced<const E> layer_input(int64_t l) const {
    if (l > 0) return {tape_.inner[static_cast<size_t>(l - 1)], 0, p_.layer_input(l), true};
    if (tape_.packed_x) return {tape_.packed_x, 0, p_.input_size, true};
    return sequenced<const E>(p_, call_.x.data, call_.x.step, call_.x.batch, p_.input_size, order_.full);
  }

  D& device_;
  TapeOf<D, E>& tape_;
  const ForwardCall& call_;
  const Problem& p_;
  const BackwardCall& back_;
  const Place& place_;
  const Order order_;
  const PathPlan plan_;
  const std::vector<InputRun> runs_;
  int64_t loop_lanes_ = 1, weights_lane_ = 0, parts_ = 1;
  A* part_sums_ = nullptr;   // (parts, slots, H)
  A* inner_ = nullptr;       // (R, directions*H): dx of one layer, dy of the one below
  std::vector<Slab> slabs_;  // by slab
  bool added_ = false;       // to the gradients of weights
  Sequenced<E> dx_{};        // of the caller
  bool scatter_dx_ = false;
  A* dx_rows_ = nullptr;  // (R, I)
};

}  // namespace fusedrnn::cuda
