// One step of a time loop for one sample and one unit: what lies between two products with W_hh. Each cell's formula
// stands in cells/*.h.
#pragma once
#include "cuda/kernels/unit.h"

namespace fusedrnn::cuda {

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
    const ForwardBlock<E>& b = *block;
    const int64_t s = b.step + offset, length = b.rows.length_of(j);
    Inputs in{};
    in.there = s < length;
    if (!in.there) return in;
    in.t = time_of(s, length, b.reverse);
    in.row = b.rows.row(in.t, j);
    const Unit<C, E> unit = unit_at(u);
    A zx[G];
    unit.load_projected(b, b.rows.row_in_order(s, in.t, j), zx);
    unit.add_biases(b, in.slots);
    unit.add_projected(zx, in.slots);
    in.h = h[j * H + u];
    if (C::layout.has_cell_state) in.c = c[j * H + u];
    return in;
  }

  // product: W_hh h of this sample and unit, by block of W_hh.
  FUSEDRNN_BOTH void finish(int64_t j, int64_t u, Inputs& in, const A (&product)[G]) const {
    const ForwardBlock<E>& b = *block;
    const Unit<C, E> unit = unit_at(u);
    unit.add_product(product, in.slots);
    const A out = C::forward(in.slots, in.h, in.c);
    const E rounded = static_cast<E>(out);

    h[j * H + u] = out;
    if (C::layout.has_cell_state) c[j * H + u] = in.c;
    operand[j * operand_row + u] = rounded;
    if (b.y.data) b.y.at(b.rows, in.t, j)[u] = rounded;
    if (!b.gates) return;
    const bool goes_on = b.step + offset + 1 < b.rows.length_of(j);
    const int64_t next_row = goes_on ? b.rows.row(b.reverse ? in.t - 1 : in.t + 1, j) : 0;
    unit.keep(b, in.row, in.slots, in.c, goes_on, next_row, rounded);
  }

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    Inputs in = load(j, u);
    if (!in.there) return;
    A product[G];
    for (int g = 0; g < G; ++g) product[g] = zh[(j * G + g) * H + u];
    finish(j, u, in, product);
  }

 private:
  FUSEDRNN_PHASE Unit<C, E> unit_at(int64_t u) const { return {static_cast<int>(H), static_cast<int>(u)}; }
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
    typename Unit<C, E>::Kept kept;
    A c1, dh, dc;  // c after the step; dh without the product and what comes from above
  };

  FUSEDRNN_BOTH Inputs load(int64_t j, int64_t u) const {
    const BackwardBlock<E>& b = *block;
    const int64_t s = b.step - offset, length = b.rows.length_of(j), at = j * H + u;
    Inputs in{};
    in.there = s < length;
    if (!in.there) return in;
    in.last = s + 1 == length;
    const int64_t t = time_of(s, length, b.reverse), sample = b.rows.sample_of(j);
    in.row = b.rows.row(t, j);
    const int64_t before = s > 0 ? b.rows.row(b.reverse ? t + 1 : t - 1, j) : 0;
    unit_at(u).load(b, in.row, before, s == 0, t, j, sample, in.kept);
    in.dh = in.last ? state_at(b.dhn, sample, u) : dh_bypass[at];
    if (C::layout.has_cell_state) {
      in.c1 = b.cells[in.row * H + u];
      in.dc = in.last ? state_at(b.dcn, sample, u) : dc[at];
    }
    return in;
  }

  FUSEDRNN_BOTH void finish(int64_t j, int64_t u, Inputs& in, A product) const {
    auto& [slots, h0, c0, above] = in.kept;
    const A dh = (in.last ? in.dh : product + in.dh) + above;
    dh_bypass[j * H + u] = C::backward(slots, h0, c0, in.c1, dh, in.dc);
    if (C::layout.has_cell_state) dc[j * H + u] = in.dc;
    unit_at(u).put(*block, in.row, slots,
                   [&](int position, E dz) { operand[j * operand_row + position * H + u] = dz; });
  }

  FUSEDRNN_BOTH void operator()(int64_t j, int64_t u) const {
    Inputs in = load(j, u);
    if (in.there) finish(j, u, in, in.last ? A(0) : dh_product[j * H + u]);
  }

 private:
  FUSEDRNN_PHASE Unit<C, E> unit_at(int64_t u) const { return {static_cast<int>(H), static_cast<int>(u)}; }
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
