// One unit of a layer and the rows of a step: where its biases and projected inputs lie, and what the tape keeps of it.
// The paths differ in when they read and write; here is what and where.
//
// A loop's own arrays (h, zh ...) keep their addresses from call to call, so that a recorded loop holds for every call.
// What changes with the call is in a block, which the recorded paths read from device memory: it is written anew before
// each segment of steps.
#pragma once
#include "cuda/kernels/rows.h"

namespace fusedrnn::cuda {

// Row b of a (B, H) state at data + b*stride; null: zeros.
template <class E> FUSEDRNN_BOTH Sum<E> state_at(const StateView<const E>& view, int64_t sample, int64_t u) {
  return view.data ? static_cast<Sum<E>>(view.data[sample * view.stride + u]) : Sum<E>(0);
}

template <class E> struct ForwardBlock {
  Rows rows;
  int64_t step;  // of the first step of the segment
  bool reverse;
  const Sum<E>* zx;   // (rows of the chunk, G, H): W_ih x. By time where all lengths are T, else by step
  int64_t zx_origin;  // the row that is row 0 of it
  const E *bias_ih, *bias_hh;
  Sequenced<E> y;  // data null: not wanted
  // Kept for backward, packed rows; null in inference.
  E* gates;       // (R, slots, H), activated; see position_of_slot
  E* previous;    // (R, H): h before the step
  Sum<E>* cells;  // (R, H): c after the step
};

template <class E> struct BackwardBlock {
  Rows rows;
  int64_t step;  // of the first step of the segment; the others come before it in time
  bool reverse;
  Sequenced<const E> dy;  // of the caller; data null: zeros
  const Sum<E>* inner;    // (R, inner_width): gradient from the layer above, packed; null: zeros
  int64_t inner_width;
  StateView<const E> dhn, dcn;
  E* gates;               // (R, slots, H): the activated gates become their gradients
  const E* previous;      // (R, H)
  const Sum<E>* cells;    // (R, H)
  const Sum<E>* c_start;  // (B, H)
};

// Row: an integer, of 32 bits where that is enough.
template <class C, class E> struct Unit {
  using A = Sum<E>;
  static constexpr int G = C::layout.gates, slots = slots_of<C>;
  using Slots = A[slots];
  int H, u;

  // z = b + W_ih x + W_hh h, in this order: the biases of a slot come first.
  FUSEDRNN_PHASE void add_biases(const ForwardBlock<E>& b, Slots& z) const {
    constexpr CellLayout layout = C::layout;
    FUSEDRNN_UNROLL
    for (int g = 0; g < G; ++g) {
      if (b.bias_hh) z[layout.recurrent_slot + g] += static_cast<A>(b.bias_hh[layout.recurrent_order[g] * H + u]);
      if (b.bias_ih) z[layout.input_slot + g] += static_cast<A>(b.bias_ih[layout.input_order[g] * H + u]);
    }
  }
  template <class Row> FUSEDRNN_PHASE void load_projected(const ForwardBlock<E>& b, Row row, A (&zx)[G]) const {
    constexpr CellLayout layout = C::layout;
    const A* from = b.zx + (row - static_cast<Row>(b.zx_origin)) * int64_t(G * H) + u;
    FUSEDRNN_UNROLL
    for (int g = 0; g < G; ++g) zx[g] = from[layout.input_order[g] * H];
  }
  FUSEDRNN_PHASE static void add_projected(const A (&zx)[G], Slots& z) {
    constexpr CellLayout layout = C::layout;
    FUSEDRNN_UNROLL
    for (int g = 0; g < G; ++g) z[layout.input_slot + g] += zx[g];
  }
  // product: W_hh h by block of W_hh.
  FUSEDRNN_PHASE static void add_product(const A (&product)[G], Slots& z) {
    constexpr CellLayout layout = C::layout;
    FUSEDRNN_UNROLL
    for (int g = 0; g < G; ++g) z[layout.recurrent_slot + g] += product[layout.recurrent_order[g]];
  }

  // What backward needs of a step: its gates, c after it, and h before the next one.
  template <class Row>
  FUSEDRNN_PHASE void keep(const ForwardBlock<E>& b, Row row, const Slots& values, A c, bool goes_on, Row next_row,
                           E h) const {
    constexpr CellLayout layout = C::layout;
    E* saved = b.gates + at(row, slots);
    FUSEDRNN_UNROLL
    for (int slot = 0; slot < slots; ++slot) saved[position_of_slot(layout, slot) * H] = static_cast<E>(values[slot]);
    if (layout.has_cell_state) b.cells[at(row)] = c;
    if (goes_on) b.previous[at(next_row)] = h;
  }

  // What a step back reads beside the product.
  struct Kept {
    A slots[Unit::slots];  // activated
    A h0, c0;              // before the step
    A above;               // gradient from the layer above, or the caller's
  };
  // before: the row of the step before; first: there is none, and c0 is that of sorted sample j.
  template <class Row>
  FUSEDRNN_PHASE void load(const BackwardBlock<E>& b, Row row, Row before, bool first, Row time, Row j, Row sample,
                           Kept& kept) const {
    constexpr CellLayout layout = C::layout;
    const E* saved = b.gates + at(row, slots);
    FUSEDRNN_UNROLL
    for (int slot = 0; slot < slots; ++slot)
      kept.slots[slot] = static_cast<A>(saved[position_of_slot(layout, slot) * H]);
    kept.h0 = static_cast<A>(b.previous[at(row)]);
    if (layout.has_cell_state) kept.c0 = first ? b.c_start[at(j)] : b.cells[at(before)];
    kept.above = A(0);
    if (b.dy.data) kept.above = static_cast<A>(b.dy.at(row, time, sample)[u]);
    if (b.inner) kept.above += b.inner[row * b.inner_width + u];
  }
  // The gradients of the gates in their place; operand(position, dz) gets those that face W_hh.
  template <class Row, class Operand>
  FUSEDRNN_PHASE void put(const BackwardBlock<E>& b, Row row, const Slots& gradients, Operand operand) const {
    E* saved = b.gates + at(row, slots);
    constexpr CellLayout layout = C::layout;
    FUSEDRNN_UNROLL
    for (int slot = 0; slot < slots; ++slot) {
      const int position = position_of_slot(layout, slot);
      const E dz = static_cast<E>(gradients[slot]);
      saved[position * H] = dz;
      if (position < G) operand(position, dz);
    }
  }

  // The element of this unit in a row of `runs` times H.
  template <class Row> FUSEDRNN_PHASE int64_t at(Row row, int runs = 1) const {
    return static_cast<int64_t>(row) * (runs * H) + u;
  }
};

}  // namespace fusedrnn::cuda
