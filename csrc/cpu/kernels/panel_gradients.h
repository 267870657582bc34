// The gradients of matrices that are packed as panels of one gate: W_hh of a cell with two products
// (cells/reset_before.h), and W_hr of an LSTM with a projection.
#pragma once
#include "cpu/kernels/cell_shape.h"
#include "cpu/kernels/weight_gradient.h"

namespace fusedrnn::FUSEDRNN_ISA {

// One thread's columns of sums over rows, a chunk at a time: fill(to, row, cursor, c0, c1) puts columns [c0, c1) of a
// row's inputs there, and add(args, row0) sweeps over what that feeds.
template <class Shape, class T> struct PanelGradient {
  using Gradient = WeightGradient<InputSide<Shape>, T, T>;
  using Tile = WeightGradientTile<T, 1>;
  using Args = typename Tile::Args;
  static constexpr int L = Vec<T>::lanes;

  template <class Fill, class Add>
  static bool run(const Sequence<T>& seq, const Share& share, int64_t columns, int64_t row_stride, const Fill& fill,
                  const Add& add) {
    const int64_t total = seq.ragged->rows();
    const auto [c0, c1] = share.part_of(columns);
    T* buffer = seq.workspace + share.rank * Gradient::buffer_size(seq);
    Args a{};
    a.width = Gradient::buffer_width(c1 - c0);
    a.source = buffer;
    a.column0 = c0;
    a.columns = columns;
    a.unit_stride = total * row_stride;
    a.row_stride = row_stride;
    a.first_chunk = true;
    RowCursor cursor(seq.ragged, 0);
    for (int64_t row0 = 0; row0 < total || a.first_chunk; row0 += Gradient::chunk_rows, a.first_chunk = false) {
      a.n = smaller(Gradient::chunk_rows, total - row0);
      for (int64_t i = 0; i < a.n; ++i, cursor.advance()) fill(buffer + i * a.width, row0 + i, cursor, c0, c1);
      if (!add(a, row0, c1 - c0) || !share.poll(share.context)) return false;
    }
    return true;
  }

  static __attribute__((noinline)) bool sweep(const Args& a, const Share& share, int64_t columns, int64_t u0,
                                              int64_t u1) {
    return Sweep<Tile>::run(a, share, columns, u0, u1, 1);
  }

  // Columns [c0, c1) of what a step has saved, one vector for each block, followed by a 1 at column `ones`.
  static FUSEDRNN_INLINE void gather_saved(T* to, const T* saved, int64_t unit_stride, int64_t c0, int64_t c1,
                                           int64_t ones) {
    for (int64_t i = c0; i < smaller(c1, ones); ++i) to[i - c0] = saved[i / L * unit_stride + i % L];
    if (ones < c1) to[ones - c0] = T(1);
  }
};

// dW_hh, gate by gate, (G, U, H + 1, L): sums over rows of dz h0^T, of the last gate of dz with what it read, slot 0.
template <class C, class T> struct GateWeights {
  using Shape = ShapeOf<C>;
  using Panels = PanelGradient<Shape, T>;
  using Gradient = typename Panels::Gradient;
  static constexpr int L = Vec<T>::lanes, G = Shape::gates, S = Shape::slots, rec = Shape::recurrent_slot;

  static bool run(const Sequence<T>& seq, const Share& share) {
    const int64_t H = seq.H, unit_stride = seq.ragged->rows() * S * L;
    const auto read_h = [&](T* to, int64_t, const RowCursor& cursor, int64_t c0, int64_t c1) FUSEDRNN_BODY {
      Gradient::gather(to, {previous_h(seq, cursor.step, cursor.sample())}, c0, c1, H);
      Gradient::scale(to, seq, cursor.sample(), c0, c1);
    };
    const auto read_saved = [&](T* to, int64_t row, const RowCursor&, int64_t c0, int64_t c1) FUSEDRNN_BODY {
      Panels::gather_saved(to, seq.gates + row * S * L, unit_stride, c0, c1, H);
    };
    T* buffer = seq.workspace + share.rank * Gradient::buffer_size(seq);
    return Gradient::accumulate(false, seq, share, buffer) &&
           Panels::run(seq, share, H + 1, S * L, read_h, Sweeps{seq, share, 0, G - 1}) &&
           Panels::run(seq, share, H + 1, S * L, read_saved, Sweeps{seq, share, G - 1, G});
  }

 private:
  // Of the gates [begin, end).
  struct Sweeps {
    const Sequence<T>& seq;
    const Share& share;
    int begin, end;
    bool operator()(typename Panels::Args& a, int64_t row0, int64_t columns) const {
      const Blocks blocks(seq.H, G, L, 1);
      const auto sweep = [&](int64_t distance, int gate, int64_t u0, int64_t u1) {
        a.dz = seq.gates + row0 * S * L + (rec + gate) * distance;
        return Panels::sweep(a, share, columns, u0, u1);
      };
      for (int gate = begin; gate < end; ++gate) {
        a.dw = seq.dr + gate * blocks.units * (seq.H + 1) * L;
        if (!sweep(L, gate, 0, blocks.wide) || !sweep(blocks.slot, gate, blocks.wide, blocks.units)) return false;
      }
      return true;
    }
  };
};

// dW_hr: sums over rows of dh (o tanh c)^T.
template <class Shape, class T> struct ProjectionGradient {
  using Panels = PanelGradient<Shape, T>;
  static constexpr int L = Vec<T>::lanes;

  static bool run(const Sequence<T>& seq, const Share& share) {
    if (!seq.dprojection) return true;
    const auto read = [&](T* to, int64_t row, const RowCursor&, int64_t c0, int64_t c1) FUSEDRNN_BODY {
      Panels::gather_saved(to, seq.cells + row * L, seq.ragged->rows() * L, c0, c1, seq.H);
    };
    return Panels::run(seq, share, seq.H + 1, L, read, [&](typename Panels::Args& a, int64_t row0, int64_t columns) {
      a.dw = seq.dprojection;
      a.dz = seq.dh + row0 * L;
      return Panels::sweep(a, share, columns, 0, ceil_div(seq.P, L));
    });
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
