// dx(row) = W_ih^T dz(row), after the time loop of backward: one large product, nothing in it is serial in time.
#pragma once
#include "core/share.h"
#include "cpu/kernels/gate_gradients.h"
#include "cpu/kernels/panel_tile.h"
#include "cpu/kernels/rows.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class C, class T, class E> struct InputGradient {
  static constexpr int L = Vec<T>::lanes, S = C::slots, values = Operand<E>::values;
  static constexpr int64_t chunk_rows = 96;

  static bool run(const Sequence<T>& seq, const Share& share) {
    T* rows[chunk_rows];
    const Blocks blocks(seq.H, C::gates, L, values);
    const int64_t total = seq.ragged->rows();
    const auto [begin, end] = share.part_of(total);
    typename PanelTile<E>::Args a{
        .weights = {operands<E>(seq.input_weights_t), ceil_div(blocks.columns, values)},
        .columns = seq.I,
        .rows = nullptr,
        .run = gate_run(blocks, values, C::input_slot, total * S * L),
        .row_stride = S * L,
        .runs_per_piece = units_per_piece<C, T>,
        .to = rows,
        .add = seq.add_to_dx,
    };
    RowCursor cursor(seq.ragged, begin);
    for (int64_t row0 = begin; row0 < end; row0 += chunk_rows) {
      const int64_t n = smaller(chunk_rows, end - row0);
      for (int64_t i = 0; i < n; ++i, cursor.advance()) rows[i] = row_of(seq.dx, seq, cursor.step, cursor.sample());
      a.rows = operands<E>(seq.gates + row0 * S * L) + C::input_slot * L / values;
      if (!Sweep<PanelTile<E>>::run(a, share, n, 0, ceil_div(seq.I, L), ceil_div(blocks.units, a.runs_per_piece)))
        return false;
      if (!share.poll(share.context)) return false;
    }
    return true;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
