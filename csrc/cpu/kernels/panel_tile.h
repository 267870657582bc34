// The product of rows with a matrix whose columns lie in panels of vectors: the gradient of the input. A piece of k is
// `runs_per_piece` stretches of the row.
#pragma once
#include "cpu/kernels/sweep.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class E> struct PanelTile {
  using T = typename Operand<E>::Sum;
  using V = Vec<T>;
  static constexpr int L = V::lanes, gates = 1;

  struct Args {
    PackedMatrix<E, 1> weights;  // (panels, K, L)
    int64_t columns;             // of the result
    const E* rows;               // operand of row i at rows + i*row_stride
    RowRun run;                  // how k runs from there
    int64_t row_stride, runs_per_piece;
    T** to;    // where row i of the result goes
    bool add;  // to what is there
  };

  template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
    const int64_t run0 = at.piece * a.runs_per_piece, run1 = smaller(a.run.runs, run0 + a.runs_per_piece);
    Tile<E, Rows, Units, 1> t;
    const E* row[Rows];
    for (int r = 0; r < Rows; ++r) row[r] = a.rows + run0 * a.run.jump + (at.row + r) * a.row_stride;
    const int64_t K = a.weights.K, k0 = run0 * a.run.length, k = smaller(K - k0, (run1 - run0) * a.run.length);
    const int64_t next_k = at.next_piece * a.runs_per_piece * a.run.length;
    const E* w = a.weights.from(at.unit, k0);
    t.multiply(row, a.run.part(run0, run1), w, L, K * L,
               a.weights.template ahead<Units>(at, w, k, next_k, K * a.columns * int64_t(sizeof(T))));
#pragma GCC unroll 1
    for (int r = 0; r < Rows; ++r)
      for (int u = 0; u < Units; ++u) {
        T* to = a.to[at.row + r];
        const int64_t column = (at.unit + u) * L;
        V sum = t.acc[r * t.vectors + u];
        if (at.piece || a.add) sum = sum + load_within<T>(to, column, a.columns);
        store_within(sum, to, column, a.columns);
      }
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
