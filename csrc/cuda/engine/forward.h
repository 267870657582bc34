// The forward pass of a stack: which product and which pointwise launch, in which order.
//
// Layers and directions are slabs; each has a lane. A slab goes through time in chunks of steps: one product makes
// zx = W_ih x for all rows of a chunk, then each step is a product zh = W_hh h and one pointwise launch. A layer of one
// direction begins a chunk as soon as the layer below has finished it, so layers form a wavefront; a layer above two
// directions waits for both ends.
#pragma once
#include "cuda/engine/call.h"
#include "cuda/kernels/fused_step.h"
#include "cuda/kernels/resident_forward.h"

namespace fusedrnn::cuda {

template <class D, class E> class Forward {
 public:
  Forward(D& device, const ForwardCall& call, TapeOf<D, E>* tape, const Place& place)
      : device_(device),
        call_(call),
        p_(call.problem),
        tape_(tape),
        place_(place),
        order_(device, p_, *call.rows),
        plan_(path_of<D, E>(p_, place, Pass::forward)) {}

  void run() {
    const int64_t G = p_.layout.gates, H = p_.hidden_size, L = p_.num_layers;
    chunk_steps_ = chunk_steps<A>(p_, order_, place_);
    lanes_ = std::min<int64_t>(device_.lanes(), p_.slabs());
    const int64_t chunk_rows = std::min(order_.R, chunk_steps_ * p_.B);
    int64_t widest = 0;
    for (int64_t l = 0; l < L; ++l) widest = std::max(widest, p_.layer_input(l));
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      zx_.push_back(scratch<Sum<E>>(device_, chunk_rows * G * H));
      gathered_.push_back(needs_gather() ? scratch<E>(device_, chunk_rows * widest) : nullptr);
    }
    y_ = sequenced<E>(p_, call_.y.data, call_.y.step, call_.y.batch, p_.num_directions * H, order_.full);
    for (int64_t l = 0; l + 1 < L; ++l) inner_.push_back(inner_output(l));
    pack_input();
    if (!order_.full && y_.data) device_.each(0, p_.T * p_.B, p_.num_directions * H, ClearPadding<E>{order_.rows, y_});

    device_.fork(lanes_);
    Sequenced<const E> input = input_;
    std::vector<std::vector<Event>> below;  // by direction and chunk: when the layer below is done with it
    for (int64_t l = 0; l < L; ++l) {
      const Sequenced<E> output = l + 1 == L ? y_ : inner_[static_cast<size_t>(l)];
      below = layer(l, input, output, below);
      input = {output.data, output.step, output.batch, output.packed};
    }
    device_.join(lanes_);
  }

 private:
  using A = Sum<E>;
  using Event = typename D::Event;

  // One slab on its way through time.
  struct Slab {
    int64_t index, direction, I, lane;
    bool reverse;
    Weights weights;
    typename D::Loop* loop;
    A *h, *c, *zh;
    E* operand;
    const E* weight_hh;  // as the path reads it
    ForwardBlock<E>* block_on_device;
    ForwardBlock<E> block;
  };

  // Whether a product reads rows that do not lie one behind the other: see project().
  bool needs_gather() const {
    return !order_.runs_are_packed(p_.reverse || p_.num_directions == 2) || (!tape_ && !caller_input().packed);
  }

  Sequenced<const E> caller_input() const {
    return sequenced<const E>(p_, call_.x.data, call_.x.step, call_.x.batch, p_.input_size, order_.full);
  }

  // Training keeps x packed, because the gradient of W_ih reads it again.
  void pack_input() {
    input_ = caller_input();
    if (!tape_ || input_.packed) return;
    device_.each(0, order_.ragged->steps * p_.B, p_.input_size,
                 Gather<E>{order_.rows, input_, false, 0, 0, tape_->packed_x, p_.input_size});
    input_ = {tape_->packed_x, 0, p_.input_size, true};
  }

  Sequenced<E> inner_output(int64_t l) {
    const int64_t width = p_.num_directions * p_.hidden_size;
    E* data = tape_ ? tape_->inner[static_cast<size_t>(l)] : scratch<E>(device_, order_.R * width);
    return {data, 0, width, true};
  }

  std::vector<std::vector<Event>> layer(int64_t l, const Sequenced<const E>& input, const Sequenced<E>& output,
                                        const std::vector<std::vector<Event>>& below) {
    std::vector<Slab> slabs;
    std::vector<std::vector<Event>> done(static_cast<size_t>(p_.num_directions));
    for (int64_t d = 0; d < p_.num_directions; ++d) slabs.push_back(begin(l, d, output));
    for (int64_t s0 = 0; s0 < order_.ragged->steps; s0 += chunk_steps_) {
      const int64_t s1 = std::min(s0 + chunk_steps_, order_.ragged->steps);
      for (Slab& slab : slabs) {
        if (below.size() == 1) device_.wait(slab.lane, below[0][static_cast<size_t>(s0 / chunk_steps_)]);
        if (below.size() == 2 && s0 == 0)
          for (const auto& direction : below) device_.wait(slab.lane, direction.back());
        project(slab, input, s0, s1);
        if (plan_.path == Path::resident)
          resident_steps(slab, s0, s1);
        else
          for (int64_t s = s0; s < s1;) s += segment(slab, s, s1);
        if (l + 1 < p_.num_layers) done[static_cast<size_t>(slab.direction)].push_back(device_.record(slab.lane));
      }
    }
    for (Slab& slab : slabs) finish(slab);
    return done;
  }

  Slab begin(int64_t l, int64_t d, const Sequenced<E>& output) {
    const int64_t B = p_.B, H = p_.hidden_size, G = p_.layout.gates, places = fused() ? 2 : 1;
    Slab slab{};
    slab.index = l * p_.num_directions + d;
    slab.direction = d;
    slab.I = p_.layer_input(l);
    slab.lane = slab.index % lanes_;
    slab.reverse = p_.is_reverse(d);
    slab.weights = call_.weights[static_cast<size_t>(slab.index)];
    slab.weight_hh = static_cast<const E*>(slab.weights.weight_hh);
    const bool copied = fused() && !has_runs(slab.weight_hh, H);
    E* copy = nullptr;
    const auto carve = [&](Carver from) {
      slab.h = from.take<A>(B * H);
      slab.c = from.take<A>(B * H);
      slab.zh = from.take<A>(fused() ? 0 : B * G * H);
      slab.operand = from.take<E>(places * B * row());
      copy = from.take<E>(copied ? G * H * row() : 0);
      slab.block_on_device = from.take<ForwardBlock<E>>(1);
      return from.size();
    };
    const LoopKey key = loop_key<E>(p_, slab.index, false, slab.weights.weight_hh, place_.tf32, plan_.path);
    slab.loop = &device_.loop(slab.lane, key, carve(Carver(nullptr)));
    carve(Carver(slab.loop->memory()));

    ForwardBlock<E>& b = slab.block;
    b.rows = order_.rows;
    b.reverse = slab.reverse;
    b.zx = zx_[static_cast<size_t>(slab.lane)];
    b.bias_ih = static_cast<const E*>(slab.weights.bias_ih);
    b.bias_hh = static_cast<const E*>(slab.weights.bias_hh);
    b.y = output;
    if (b.y.data) b.y.data += d * H;
    StartForward<E> start{order_.rows, slab.reverse, H, row(), {}, {}, slab.h, slab.c, slab.operand, nullptr, nullptr};
    start.h0 = typed<E>(call_.h0[static_cast<size_t>(slab.index)]);
    if (p_.layout.has_cell_state) start.c0 = typed<E>(call_.c0[static_cast<size_t>(slab.index)]);
    if (tape_) {
      const auto& kept = tape_->slabs[static_cast<size_t>(slab.index)];
      b.gates = kept.gates;
      b.previous = start.previous = kept.previous;
      b.cells = kept.cells;
      start.c_start = kept.c_start;
    }
    if (fused()) device_.each(slab.lane, places * B, row(), Clear<E>{slab.operand, row()});
    if (copied) {
      device_.each(slab.lane, G * H, row(), FillRows<E>{slab.weight_hh, copy, H});
      slab.weight_hh = copy;
    }
    device_.each(slab.lane, B, H, start);
    return slab;
  }

  // zx = W_ih x for the rows of steps [s0, s1).
  void project(Slab& slab, const Sequenced<const E>& input, int64_t s0, int64_t s1) {
    const int64_t B = p_.B, GH = p_.layout.gates * p_.hidden_size;
    const int64_t origin = order_.first_row(slab.reverse, s0, s1), n = order_.row_count(s0, s1);
    const E* rows = input.data + (input.packed ? origin * input.batch : 0);
    int64_t ld = input.batch;
    if (!input.packed || !order_.runs_are_packed(slab.reverse)) {
      E* to = gathered_[static_cast<size_t>(slab.lane)];
      device_.each(slab.lane, (s1 - s0) * B, slab.I,
                   Gather<E>{order_.rows, input, slab.reverse, s0, origin, to, slab.I});
      rows = to;
      ld = slab.I;
    }
    device_.multiply(
        slab.lane, Product<E, A>{n, GH, slab.I, rows, ld, false, static_cast<const E*>(slab.weights.weight_ih), slab.I,
                                 true, zx_[static_cast<size_t>(slab.lane)], GH, 0});
    slab.block.zx_origin = origin;
  }

  // The steps [s0, s1) in one launch.
  void resident_steps(Slab& slab, int64_t s0, int64_t s1) {
    slab.block.step = s0;
    with_cell(p_.cell, [&]<class C>() {
      with_samples<E>(plan_.samples, [&]<int samples>() {
        device_.run_phases(
            slab.lane, plan_.grid(plan_.forward),
            ResidentForward<C, E, samples>{plan_.forward, slab.block, static_cast<int>(s1),
                                           static_cast<int>(p_.hidden_size), slab.weight_hh, slab.h, slab.c});
      });
    });
  }

  // The next few of the steps [s, end) as one recorded piece; returns their number.
  int64_t segment(Slab& slab, int64_t s, int64_t end) {
    const int64_t H = p_.hidden_size, GH = p_.layout.gates * H, n = segment_steps(end - s);
    const int64_t active = active_rows(p_.B, order_.count(s));
    slab.block.step = s;
    device_.write(slab.lane, slab.block_on_device, &slab.block, sizeof slab.block);
    device_.replay(slab.lane, *slab.loop, n, 2 * active + (fused() ? s % 2 : 0), [&] {
      for (int64_t k = 0; k < n; ++k) {
        if (fused()) {
          fused_step(slab, k, s + k, active);
          continue;
        }
        device_.multiply(slab.lane, Product<E, A>{active, GH, H, slab.operand, row(), false, slab.weight_hh, H, true,
                                                  slab.zh, GH, 0});
        with_cell(p_.cell, [&]<class C>() {
          device_.each(slab.lane, active, H,
                       ForwardStep<C, E>{slab.block_on_device, k, H, row(), slab.zh, slab.h, slab.c, slab.operand});
        });
      }
    });
    return n;
  }

  // Step s, the k-th of its segment. h before step s stands in place s % 2 of the operand.
  void fused_step(Slab& slab, int64_t k, int64_t s, int64_t active) {
    const int64_t H = p_.hidden_size, place = p_.B * row();
    const E* before = slab.operand + s % 2 * place;
    E* after = slab.operand + (s + 1) % 2 * place;
    with_cell(p_.cell, [&]<class C>() {
      with_rows<E, Pass::forward>(active, [&]<int rows>() {
        using Fused = FusedForward<C, E, rows>;
        device_.run_phases(
            slab.lane, Fused::Product::grid(H),
            Fused{{slab.block_on_device, k, H, row(), nullptr, slab.h, slab.c, after},
                  {slab.weight_hh, before, row(), static_cast<int>(H), static_cast<int>(H), static_cast<int>(active)}});
      });
    });
  }

  bool fused() const { return plan_.path == Path::fused; }
  // Elements from row to row of the operand.
  int64_t row() const { return fused() ? operand_row(p_.hidden_size) : p_.hidden_size; }

  void finish(Slab& slab) {
    const size_t i = static_cast<size_t>(slab.index);
    FinishForward<E> finish{order_.rows, p_.hidden_size, slab.h, slab.c, typed<E>(call_.hn[i]), {}};
    if (p_.layout.has_cell_state) finish.cn = typed<E>(call_.cn[i]);
    if (finish.hn.data || finish.cn.data) device_.each(slab.lane, p_.B, p_.hidden_size, finish);
  }

  D& device_;
  const ForwardCall& call_;
  const Problem& p_;
  TapeOf<D, E>* tape_;
  const Place& place_;
  const Order order_;
  const PathPlan plan_;
  int64_t chunk_steps_ = 1, lanes_ = 1;
  std::vector<A*> zx_;               // by lane: (rows of a chunk, G, H)
  std::vector<E*> gathered_;         // by lane: (rows of a chunk, widest input)
  std::vector<Sequenced<E>> inner_;  // outputs of every layer but the last
  Sequenced<const E> input_{};
  Sequenced<E> y_{};
};

}  // namespace fusedrnn::cuda
