// The gradient of W_hh of a cell with two products (cells/reset_before.h), whose gates are packed one by one.
#pragma once
#include "cpu/kernels/cell_shape.h"
#include "cpu/kernels/weight_gradient.h"

namespace fusedrnn::FUSEDRNN_ISA {

// dW_hh, gate by gate, (G, U, H + 1, L): sums over rows of dz h0^T, of the last gate of dz with what it read, slot 0.
template <class C, class T> struct GateWeights {
  using Shape = ShapeOf<C>;
  using Gradient = WeightGradient<InputSide<Shape>, T, T>;
  using Tile = WeightGradientTile<T, 1>;
  static constexpr int L = Vec<T>::lanes, G = Shape::gates, S = Shape::slots, rec = Shape::recurrent_slot;

  static bool run(const Sequence<T>& seq, const Share& share) {
    T* buffer = seq.workspace + share.rank * Gradient::buffer_size(seq);
    return Gradient::accumulate(false, seq, share, buffer) && accumulate(seq, share, buffer, 0, G - 1) &&
           accumulate(seq, share, buffer, G - 1, G);
  }

 private:
  // Of the gates [begin, end), which have one operand.
  static bool accumulate(const Sequence<T>& seq, const Share& share, T* buffer, int begin, int end) {
    const Blocks blocks(seq.H, G, L, 1);
    const int64_t columns = seq.H + 1, total = seq.ragged->rows();
    const auto [c0, c1] = share.part_of(columns);
    typename Tile::Args a{};
    a.width = Gradient::buffer_width(c1 - c0);
    a.source = buffer;
    a.column0 = c0;
    a.columns = columns;
    a.unit_stride = total * S * L;
    a.row_stride = S * L;
    a.first_chunk = true;
    RowCursor cursor(seq.ragged, 0);
    for (int64_t row0 = 0; row0 < total || a.first_chunk; row0 += Gradient::chunk_rows, a.first_chunk = false) {
      a.n = smaller(Gradient::chunk_rows, total - row0);
      for (int64_t i = 0; i < a.n; ++i, cursor.advance()) {
        if (end == G)
          gather_saved(buffer + i * a.width, seq.gates + (row0 + i) * S * L, a.unit_stride, c0, c1, columns - 1);
        else
          Gradient::gather(buffer + i * a.width, {previous_h(seq, cursor.step, cursor.sample())}, c0, c1, columns - 1);
      }
      for (int gate = begin; gate < end; ++gate) {
        const T* dz = seq.gates + row0 * S * L;
        a.dw = seq.dr + gate * blocks.units * columns * L;
        a.dz = dz + (rec + gate) * L;
        if (!sweep(a, share, c1 - c0, 0, blocks.wide)) return false;
        a.dz = dz + (rec + gate) * blocks.slot;
        if (!sweep(a, share, c1 - c0, blocks.wide, blocks.units)) return false;
      }
      if (!share.poll(share.context)) return false;
    }
    return true;
  }

  static __attribute__((noinline)) bool sweep(const typename Tile::Args& a, const Share& share, int64_t columns,
                                              int64_t u0, int64_t u1) {
    return Sweep<Tile>::run(a, share, columns, u0, u1, 1);
  }

  // Columns [c0, c1) of slot 0 of a row, followed by the constant 1 at column `ones`.
  static FUSEDRNN_INLINE void gather_saved(T* to, const T* saved, int64_t unit_stride, int64_t c0, int64_t c1,
                                           int64_t ones) {
    for (int64_t i = c0; i < smaller(c1, ones); ++i) to[i - c0] = saved[i / L * unit_stride + i % L];
    if (ones < c1) to[ones - c0] = T(1);
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
