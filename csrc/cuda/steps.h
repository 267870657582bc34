// One step of a time loop for one sample and one unit: what lies between two products with W_hh. Each cell's formula
// stands in cells/*.h.
//
// A loop's own arrays (h, zh ...) keep their addresses from call to call, so that a recorded loop holds for every call.
// What changes with the call is read from a block in device memory, which is written anew before each segment of steps.
#pragma once
#include "cuda/rows.h"

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

// z = W_ih x + W_hh h + b, then the cell.
template <class C, class E> struct ForwardStep {
  using A = Sum<E>;
  const ForwardBlock<E>* block;
  int64_t offset;  // of the step within the segment
  int64_t H;
  const A* zh;  // (B, G, H): W_hh h
  A *h, *c;     // (B, H): the state, in place
  E* operand;   // (B, H): h as the next product reads it

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    constexpr CellLayout layout = C::layout;
    const ForwardBlock<E>& b = *block;
    const int64_t s = b.step + offset, length = b.rows.length_of(j);
    if (s >= length) return;
    const int64_t t = b.reverse ? length - 1 - s : s, row = b.rows.row(t, j);
    const A* zx = b.zx + ((b.rows.first ? b.rows.first[s] + j : row) - b.zx_origin) * layout.gates * H + u;

    A slots[C::slots] = {};
    for (int g = 0; g < layout.gates; ++g) {
      const int64_t from = layout.recurrent_order[g] * H;
      slots[layout.recurrent_slot + g] = zh[j * layout.gates * H + from + u];
      if (b.bias_hh) slots[layout.recurrent_slot + g] += static_cast<A>(b.bias_hh[from + u]);
    }
    for (int g = 0; g < layout.gates; ++g) {
      const int64_t from = layout.input_order[g] * H;
      slots[layout.input_slot + g] += zx[from];
      if (b.bias_ih) slots[layout.input_slot + g] += static_cast<A>(b.bias_ih[from + u]);
    }
    const int64_t at = j * H + u;
    A cell = layout.has_cell_state ? c[at] : A(0);
    const A out = C::forward(slots, h[at], cell);

    h[at] = out;
    if (layout.has_cell_state) c[at] = cell;
    operand[at] = static_cast<E>(out);
    if (b.y.data) b.y.at(b.rows, t, j)[u] = static_cast<E>(out);
    if (!b.gates) return;
    for (int slot = 0; slot < C::slots; ++slot)
      b.gates[(row * C::slots + position_of_slot(layout, slot)) * H + u] = static_cast<E>(slots[slot]);
    if (layout.has_cell_state) b.cells[row * H + u] = cell;
    if (s + 1 < length) b.previous[b.rows.row(b.reverse ? t - 1 : t + 1, j) * H + u] = static_cast<E>(out);
  }
};

// The state before the first step: (sorted sample, unit).
template <class E> struct StartForward {
  Rows rows;
  bool reverse;
  int64_t H;
  StateView<const E> h0, c0;
  Sum<E>*h, *c;
  E* operand;
  E* previous;      // null in inference
  Sum<E>* c_start;  // (B, H), kept for backward; null without c or in inference

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    const int64_t sample = rows.sample_of(j), length = rows.length_of(j), at = j * H + u;
    h[at] = state_at(h0, sample, u);
    c[at] = state_at(c0, sample, u);
    operand[at] = static_cast<E>(h[at]);
    if (c_start) c_start[at] = c[at];
    if (previous && length > 0) previous[rows.row(reverse ? length - 1 : 0, j) * H + u] = operand[at];
  }
};

// The final state into the caller's arrays; a null array is not wanted.
template <class E> struct FinishForward {
  Rows rows;
  int64_t H;
  const Sum<E>*h, *c;
  StateView<E> hn, cn;

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    const int64_t sample = rows.sample_of(j);
    if (hn.data) hn.data[sample * hn.stride + u] = static_cast<E>(h[j * H + u]);
    if (cn.data) cn.data[sample * cn.stride + u] = static_cast<E>(c[j * H + u]);
  }
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

template <class C, class E> struct BackwardStep {
  using A = Sum<E>;
  const BackwardBlock<E>* block;
  int64_t offset;
  int64_t H;
  const A* dh_product;  // (B, H): W_hh^T dz of the step after this one
  A* dh_bypass;         // (B, H): the part of dL/dh that did not pass W_hh, in place
  A* dc;                // (B, H), in place
  E* operand;           // (B, G, H): dz as the product with W_hh reads it

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    constexpr CellLayout layout = C::layout;
    const BackwardBlock<E>& b = *block;
    const int64_t s = b.step - offset, length = b.rows.length_of(j);
    if (s >= length) return;
    const int64_t t = b.reverse ? length - 1 - s : s, row = b.rows.row(t, j), at = j * H + u;
    const bool last = s + 1 == length;
    const int64_t sample = b.rows.sample_of(j);

    A dh = last ? state_at(b.dhn, sample, u) : dh_product[at] + dh_bypass[at];
    if (b.dy.data) dh += static_cast<A>(b.dy.at(b.rows, t, j)[u]);
    if (b.inner) dh += b.inner[row * b.inner_width + u];
    A slots[C::slots];
    E* saved = b.gates + row * C::slots * H + u;
    for (int slot = 0; slot < C::slots; ++slot) slots[slot] = static_cast<A>(saved[position_of_slot(layout, slot) * H]);
    A c0(0), c1(0), dcell(0);
    if (layout.has_cell_state) {
      c1 = b.cells[row * H + u];
      c0 = s > 0 ? b.cells[b.rows.row(b.reverse ? t + 1 : t - 1, j) * H + u] : b.c_start[at];
      dcell = last ? state_at(b.dcn, sample, u) : dc[at];
    }
    dh_bypass[at] = C::backward(slots, static_cast<A>(b.previous[row * H + u]), c0, c1, dh, dcell);
    if (layout.has_cell_state) dc[at] = dcell;
    for (int slot = 0; slot < C::slots; ++slot) {
      const int position = position_of_slot(layout, slot);
      const E dz = static_cast<E>(slots[slot]);
      saved[position * H] = dz;
      if (position < layout.gates) operand[(j * layout.gates + position) * H + u] = dz;
    }
  }
};

// Gradients of the initial state into the caller's arrays. A sample of length 0 hands on those of its final state.
template <class E> struct FinishBackward {
  Rows rows;
  int64_t H;
  const Sum<E>*dh_product, *dh_bypass, *dc;
  StateView<const E> dhn, dcn;
  StateView<E> dh0, dc0;  // dc0.data null: no c

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    const int64_t sample = rows.sample_of(j), at = j * H + u;
    const bool untouched = rows.length_of(j) == 0;
    const Sum<E> dh = untouched ? state_at(dhn, sample, u) : dh_product[at] + dh_bypass[at];
    dh0.data[sample * dh0.stride + u] = static_cast<E>(dh);
    if (dc0.data) dc0.data[sample * dc0.stride + u] = static_cast<E>(untouched ? state_at(dcn, sample, u) : dc[at]);
  }
};

// Makes memory readable that a product reads before every row of it has been written.
template <class E> struct Clear {
  E* data;
  int64_t width;
  FUSEDRNN_BOTH void operator()(int64_t row, int64_t column) const {
    data[row * width + column] = static_cast<E>(0.0f);
  }
};

}  // namespace fusedrnn::cuda
