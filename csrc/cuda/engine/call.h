// What forward and backward share: the order of rows on host and device, time loops in recorded segments, and the tape.
#pragma once
#include <algorithm>
#include <stdexcept>
#include <type_traits>

#include "cuda/engine/device.h"
#include "cuda/kernels/steps.h"
#include "cuda/path_plan.h"

namespace fusedrnn::cuda {

// Calls body.operator()<C>() with the formula of the cell.
template <class Body> void with_cell(CellKind kind, Body body) {
  switch (kind) {
#define FUSEDRNN_CASE(kind, formula, name) \
  case CellKind::kind:                     \
    return body.template operator()<formula>();
    FUSEDRNN_CELLS(FUSEDRNN_CASE)
#undef FUSEDRNN_CASE
    default:
      throw std::runtime_error("a cell with other functions is on the cpu only; expected a layer without");
  }
}

// The order of rows, readable here and on the device.
struct Order {
  const Ragged* ragged;
  bool full;  // every sample has T steps
  int64_t R;
  Rows rows;

  template <class D> Order(D& device, const Problem& p, const RowOrder& order)
      : ragged(&order.ragged()), full(order.full()), R(order.rows()), rows{p.T, p.B, nullptr, nullptr, nullptr} {
    if (full) return;
    const auto upload = [&](const int64_t* from, int64_t n) {
      int64_t* to = scratch<int64_t>(device, n);
      device.write(0, to, from, n * static_cast<int64_t>(sizeof(int64_t)));
      return to;
    };
    rows.first = upload(ragged->first, ragged->steps + 1);
    rows.sample = upload(ragged->sample, p.B);
    rows.length = upload(ragged->length, p.B);
  }

  int64_t count(int64_t step) const { return ragged->count(step); }

  // The rows of steps [s0, s1) of a direction begin here and are this many. Where all lengths are T, rows are counted
  // by time, so that a reversed direction has runs of packed rows as well; otherwise it has them in its own order only.
  int64_t first_row(bool reverse, int64_t s0, int64_t s1) const {
    return full ? (reverse ? rows.time - s1 : s0) * rows.batch : ragged->first[s0];
  }
  int64_t row_count(int64_t s0, int64_t s1) const { return ragged->first[s1] - ragged->first[s0]; }
  bool runs_are_packed(bool reverse) const { return full || !reverse; }
};

// Steps that are projected at a time. Layers of one direction get several chunks, or they could not overlap.
template <class A> int64_t chunk_steps(const Problem& p, const Order& order, const Place& place) {
  const int64_t steps = std::max<int64_t>(order.ragged->steps, 1);
  const int64_t bytes = place.chunk_bytes ? place.chunk_bytes : int64_t(64) << 20;
  const int64_t a_step = std::max<int64_t>(p.B, 1) * p.layout.gates * p.hidden_size * int64_t(sizeof(A));
  int64_t chunk = std::max<int64_t>(bytes / a_step, 1);
  if (p.num_layers > 1 && p.num_directions == 1) chunk = std::min(chunk, std::max<int64_t>(16, (steps + 7) / 8));
  return std::min(chunk, steps);
}

template <class D, class E> PathPlan path_of(const Problem& p, const Place& place, Pass pass) {
  const bool countable = p.T * p.B <= INT32_MAX;  // the resident path counts rows in 32 bits
  return plan_path(countable ? place.most : std::min(place.most, Path::fused), pass, p.layout, p.hidden_size,
                   static_cast<int64_t>(sizeof(E)), std::is_same_v<E, float> && place.tf32, p.B, p.num_directions,
                   D::limits(place));
}

// Calls body.operator()<samples>() for the samples that a block of the resident path has.
template <class E, class Body> void with_samples(int samples, Body body) {
  if (samples == 1) return body.template operator()<1>();
  if constexpr (most_samples(sizeof(E)) == 2) body.template operator()<2>();
}

// Calls body.operator()<rows>() with at least so many rows: those of a product of the fused path.
template <class E, Pass pass, class Body> void with_rows(int64_t active, Body body) {
  constexpr int few = 4, most = most_fused_rows(sizeof(E), pass);
  if (active <= few || few == most) return body.template operator()<few>();
  if constexpr (few < most) body.template operator()<most>();
}

// Rows of a product in a step that concerns `count` samples. The batch is halved as often as it fits, so that few
// shapes are recorded; the rows beyond count are computed and ignored.
inline int64_t active_rows(int64_t batch, int64_t count) {
  while (batch > 1 && (batch + 1) / 2 >= count) batch = (batch + 1) / 2;
  return batch;
}

// Steps of the next segment when `left` are left: as many as a recording has at most, or all of them.
inline int64_t segment_steps(int64_t left) { return std::min<int64_t>(left, 64); }

template <class E>
LoopKey loop_key(const Problem& p, int64_t slab, bool backward, const void* weight_hh, bool tf32, Path path) {
  return {.cell = p.cell,
          .element = name_of<E>,
          .slab = slab,
          .batch = p.B,
          .hidden_size = p.hidden_size,
          .backward = backward,
          .tf32 = tf32,
          .path = path,
          .weight_hh = weight_hh,
          .lane = 0};
}

// A caller's (T, B, F) array whose rows lie in the order (time, sample) without gaps between the times counts as
// packed.
template <class P> Sequenced<P> sequenced(const Problem& p, const void* data, int64_t step, int64_t batch,
                                          int64_t width, bool full) {
  const int64_t row = p.B == 1 ? step : batch;
  const bool dense = full && row >= width && (p.B == 1 || p.T == 1 || step == p.B * batch);
  return {static_cast<P*>(const_cast<void*>(data)), step, dense ? row : batch, dense};
}

template <class E> StateView<const E> typed(const StateView<const void>& view) {
  return {static_cast<const E*>(view.data), view.stride};
}
template <class E> StateView<E> typed(const StateView<void>& view) { return {static_cast<E*>(view.data), view.stride}; }

template <class D, class E> struct TapeOf : Tape {
  explicit TapeOf(const ForwardCall& forward, D& device) : call(forward), store(device.store()) {
    const Problem& p = call.problem;
    const int64_t R = call.rows->rows(), H = p.hidden_size;
    const auto take = [&]<class X>(X*& to, int64_t n) {
      to = static_cast<X*>(store.take(device, n * static_cast<int64_t>(sizeof(X))));
    };
    const auto x = sequenced<const E>(p, call.x.data, call.x.step, call.x.batch, p.input_size, call.rows->full());
    packed_x = nullptr;
    if (!x.packed) take(packed_x, R * p.input_size);
    slabs.resize(static_cast<size_t>(p.slabs()));
    for (Slab& slab : slabs) {
      slab = {};
      take(slab.gates, R * p.layout.slots * H);
      take(slab.previous, R * H);
      if (!p.layout.has_cell_state) continue;
      take(slab.cells, R * H);
      take(slab.c_start, p.B * H);
    }
    inner.resize(static_cast<size_t>(p.num_layers - 1));
    for (E*& y : inner) take(y, R * p.num_directions * H);
  }

  struct Slab {
    E *gates, *previous;
    Sum<E>*cells, *c_start;
  };
  ForwardCall call;
  typename D::Store store;
  E* packed_x;  // (R, I); null where the caller's x is packed already
  std::vector<Slab> slabs;
  std::vector<E*> inner;  // (R, directions*H) of every layer but the last
  bool consumed = false;  // the saved gates are gradients by now
};

}  // namespace fusedrnn::cuda
