// One step of a time loop for one sample and one unit: what lies between two products with W_hh. Each cell's formula
// stands in cells/*.h.
//
// A loop's own arrays (h, zh ...) keep their addresses from call to call, so that a recorded loop holds for every call.
// What changes with the call is read from a block in device memory, which is written anew before each segment of steps.
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

// z = W_ih x + W_hh h + b, then the cell: what it reads beside the product, and the rest.
template <class C, class E> struct ForwardStep {
  using A = Sum<E>;
  static constexpr int G = C::layout.gates;
  const ForwardBlock<E>* block;
  int64_t offset;  // of the step within the segment
  int64_t H, operand_row;
  const A* zh;  // (B, G, H): W_hh h, of the stepwise path
  A *h, *c;     // (B, H): the state, in place
  E* operand;   // (B, operand_row): h as the next product reads it

  struct Inputs {
    bool there;  // the sample has this step
    int64_t t, row;
    A slots[slots_of<C>];
    A h, c;
  };

  FUSEDRNN_BOTH Inputs load(int64_t j, int64_t u) const {
    constexpr CellLayout layout = C::layout;
    const ForwardBlock<E>& b = *block;
    const int64_t s = b.step + offset, length = b.rows.length_of(j);
    Inputs in{};
    in.there = s < length;
    if (!in.there) return in;
    in.t = time_of(s, length, b.reverse);
    in.row = b.rows.row(in.t, j);
    const A* zx = b.zx + (b.rows.row_in_order(s, in.t, j) - b.zx_origin) * G * H + u;
    for (int g = 0; g < G; ++g) {
      const int64_t from = layout.recurrent_order[g] * H;
      if (b.bias_hh) in.slots[layout.recurrent_slot + g] = static_cast<A>(b.bias_hh[from + u]);
    }
    for (int g = 0; g < G; ++g) {
      const int64_t from = layout.input_order[g] * H;
      in.slots[layout.input_slot + g] += zx[from];
      if (b.bias_ih) in.slots[layout.input_slot + g] += static_cast<A>(b.bias_ih[from + u]);
    }
    in.h = h[j * H + u];
    if (layout.has_cell_state) in.c = c[j * H + u];
    return in;
  }

  // product: W_hh h of this sample and unit, by block of W_hh.
  FUSEDRNN_BOTH void finish(int64_t j, int64_t u, Inputs& in, const A (&product)[G]) const {
    constexpr CellLayout layout = C::layout;
    const ForwardBlock<E>& b = *block;
    for (int g = 0; g < G; ++g) in.slots[layout.recurrent_slot + g] += product[layout.recurrent_order[g]];
    const A out = C::forward(in.slots, in.h, in.c);
    const E rounded = static_cast<E>(out);

    h[j * H + u] = out;
    if (layout.has_cell_state) c[j * H + u] = in.c;
    operand[j * operand_row + u] = rounded;
    if (b.y.data) b.y.at(b.rows, in.t, j)[u] = rounded;
    if (!b.gates) return;
    for (int slot = 0; slot < slots_of<C>; ++slot)
      b.gates[(in.row * slots_of<C> + position_of_slot(layout, slot)) * H + u] = static_cast<E>(in.slots[slot]);
    if (layout.has_cell_state) b.cells[in.row * H + u] = in.c;
    if (b.step + offset + 1 < b.rows.length_of(j))
      b.previous[b.rows.row(b.reverse ? in.t - 1 : in.t + 1, j) * H + u] = rounded;
  }

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    Inputs in = load(j, u);
    if (!in.there) return;
    A product[G];
    for (int g = 0; g < G; ++g) product[g] = zh[(j * G + g) * H + u];
    finish(j, u, in, product);
  }
};

// The state before the first step: (sorted sample, unit).
template <class E> struct StartForward {
  Rows rows;
  bool reverse;
  int64_t H, operand_row;
  StateView<const E> h0, c0;
  Sum<E>*h, *c;
  E* operand;
  E* previous;      // null in inference
  Sum<E>* c_start;  // (B, H), kept for backward; null without c or in inference

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    const int64_t sample = rows.sample_of(j), length = rows.length_of(j), at = j * H + u;
    h[at] = state_at(h0, sample, u);
    c[at] = state_at(c0, sample, u);
    const E rounded = operand[j * operand_row + u] = static_cast<E>(h[at]);
    if (c_start) c_start[at] = c[at];
    if (previous && length > 0) previous[rows.row(time_of(0, length, reverse), j) * H + u] = rounded;
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

// dL/dh of a step, then the cell backward: what it reads beside the product, and the rest.
template <class C, class E> struct BackwardStep {
  using A = Sum<E>;
  static constexpr int G = C::layout.gates;
  const BackwardBlock<E>* block;
  int64_t offset;
  int64_t H, operand_row;
  A* dh_product;  // (B, H): W_hh^T dz of the step after this one
  A* dh_bypass;   // (B, H): the part of dL/dh that did not pass W_hh, in place
  A* dc;          // (B, H), in place
  E* operand;     // (B, operand_row), of it (G, H): dz as the product with W_hh reads it

  struct Inputs {
    bool there, last;  // the sample has this step; and none after it
    int64_t row;
    A slots[slots_of<C>], h0, c0, c1;
    A dh, dc;  // dh without the product
  };

  FUSEDRNN_BOTH Inputs load(int64_t j, int64_t u) const {
    constexpr CellLayout layout = C::layout;
    const BackwardBlock<E>& b = *block;
    const int64_t s = b.step - offset, length = b.rows.length_of(j), at = j * H + u;
    Inputs in{};
    in.there = s < length;
    if (!in.there) return in;
    in.last = s + 1 == length;
    const int64_t t = time_of(s, length, b.reverse), sample = b.rows.sample_of(j);
    in.row = b.rows.row(t, j);
    in.dh = in.last ? state_at(b.dhn, sample, u) : dh_bypass[at];
    if (b.dy.data) in.dh += static_cast<A>(b.dy.at(b.rows, t, j)[u]);
    if (b.inner) in.dh += b.inner[in.row * b.inner_width + u];
    const E* saved = b.gates + in.row * slots_of<C> * H + u;
    for (int slot = 0; slot < slots_of<C>; ++slot)
      in.slots[slot] = static_cast<A>(saved[position_of_slot(layout, slot) * H]);
    in.h0 = static_cast<A>(b.previous[in.row * H + u]);
    if (layout.has_cell_state) {
      in.c1 = b.cells[in.row * H + u];
      in.c0 = s > 0 ? b.cells[b.rows.row(b.reverse ? t + 1 : t - 1, j) * H + u] : b.c_start[at];
      in.dc = in.last ? state_at(b.dcn, sample, u) : dc[at];
    }
    return in;
  }

  FUSEDRNN_BOTH void finish(int64_t j, int64_t u, Inputs& in, A product) const {
    constexpr CellLayout layout = C::layout;
    const A dh = in.last ? in.dh : in.dh + product;
    dh_bypass[j * H + u] = C::backward(in.slots, in.h0, in.c0, in.c1, dh, in.dc);
    if (layout.has_cell_state) dc[j * H + u] = in.dc;
    E* saved = block->gates + in.row * slots_of<C> * H + u;
    for (int slot = 0; slot < slots_of<C>; ++slot) {
      const int position = position_of_slot(layout, slot);
      const E dz = static_cast<E>(in.slots[slot]);
      saved[position * H] = dz;
      if (position < G) operand[j * operand_row + position * H + u] = dz;
    }
  }

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    Inputs in = load(j, u);
    if (in.there) finish(j, u, in, in.last ? A(0) : dh_product[j * H + u]);
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
