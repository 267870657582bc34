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

  struct Args : PanelTile<E>::Args {
    int64_t columns;  // of dx
    bool add;
    T** to;  // rows of dx
    FUSEDRNN_INLINE T* to_row(int64_t i) const { return to[i]; }
  };

  static bool run(const Sequence<T>& seq, const Share& share) {
    T* rows[chunk_rows];
    const Blocks blocks(seq.H, C::gates, L, values);
    const int64_t total = seq.ragged->rows(), K = ceil_div(blocks.columns, values);
    const auto [begin, end] = share.part_of(total);
    Args a{};
    PanelTile<E>::set_weights(a, operands<E>(seq.input_weights_t), K, K * seq.I * int64_t(sizeof(T)));
    a.run = gate_run(blocks, values, C::input_slot, total * S * L);
    a.row_stride = S * L;
    a.runs_per_piece = units_per_piece<T>(C::gates);
    a.finish = finish_rows<E, Args>;
    a.columns = seq.I;
    a.add = seq.add_to_dx;
    a.to = rows;
    RowCursor cursor(seq.ragged, begin);
    for (int64_t row0 = begin; row0 < end; row0 += chunk_rows) {
      const int64_t n = smaller(chunk_rows, end - row0);
      for (int64_t i = 0; i < n; ++i, cursor.advance()) rows[i] = row_of(seq.dx, seq, cursor.step, cursor.sample());
      a.rows = operands<E>(seq.input_dz + row0 * S * L) + C::input_slot * L / values;
      if (!PanelTile<E>::sweep(a, share, n, 0, ceil_div(seq.I, L), ceil_div(blocks.units, a.runs_per_piece)))
        return false;
      if (!share.poll(share.context)) return false;
    }
    return true;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
