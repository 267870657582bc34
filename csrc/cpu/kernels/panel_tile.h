// The product of rows with a matrix whose columns lie in panels of vectors: what backward passes on to the step before,
// the gradient of the input, linear layers. A tile is compiled once for all of them; `finish` takes its sums.
#pragma once
#include "cpu/kernels/sweep.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class E> struct PanelTile {
  using T = typename Operand<E>::Sum;
  using V = Vec<T>;
  static constexpr int L = V::lanes, gates = 1;

  // What a caller does to a tile of `rows` x `units` vectors; its own Args begin with these.
  struct Args;
  using Prepare = void (*)(const Args&, const Place&, int rows, int units);
  using Finish = void (*)(const Args&, const Place&, V* sums, int rows, int units);

  struct Args {
    const E* rows;  // operand of row i at rows + i*row_stride
    int64_t row_stride;
    RowRun run;              // how k runs from there
    int64_t runs_per_piece;  // a piece of k is so many stretches of it
    const E* weights;        // panel u of L columns at weights + u*panel, its k at k*k_stride from there
    int64_t K, panel, k_stride;
    int64_t swept_bytes;  // of weights; 0: they are at hand
    Prepare prepare;      // before the product of several rows; may be null
    Finish finish;        // after it
  };

  // The weights of Args as a packed matrix (panels, K, L).
  static FUSEDRNN_INLINE void set_weights(Args& a, const E* packed, int64_t K, int64_t swept_bytes) {
    a.weights = packed;
    a.K = K;
    a.panel = K * L;
    a.k_stride = L;
    a.swept_bytes = swept_bytes;
  }

  template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
    const int64_t run0 = at.piece * a.runs_per_piece, run1 = smaller(a.run.runs, run0 + a.runs_per_piece);
    Tile<E, Rows, Units, 1> t;
    const E* row[Rows];
    for (int r = 0; r < Rows; ++r) row[r] = a.rows + run0 * a.run.jump + (at.row + r) * a.row_stride;
    const int64_t k0 = run0 * a.run.length, k = smaller(a.K - k0, (run1 - run0) * a.run.length);
    const int64_t next_k = at.next_piece * a.runs_per_piece * a.run.length;
    const E* w = a.weights + at.unit * a.panel + k0 * a.k_stride;
    const PackedMatrix<E, 1> matrix{a.weights, a.K};
    if constexpr (Rows > 1)
      if (a.prepare) a.prepare(a, at, Rows, Units);
    t.multiply(row, a.run.part(run0, run1), w, a.k_stride, a.panel,
               matrix.ahead(Units, at, w, k, next_k, a.swept_bytes));
    a.finish(a, at, t.acc, Rows, Units);
  }

  // Out of line: many call it.
  static __attribute__((noinline)) bool sweep(const Args& a, const Share& share, int64_t n, int64_t u0, int64_t u1,
                                              int64_t pieces, bool odd = false) {
    return Sweep<PanelTile>::run(a, share, n, u0, u1, pieces, odd);
  }
};

// A finish of PanelTile that writes rows of a result, or adds to them. Args has `columns`, of the result; `add`, to
// what is there; and to_row(i), where row i goes.
template <class E, class Args>
void finish_rows(const typename PanelTile<E>::Args& panel, const Place& at, typename PanelTile<E>::V* sums, int rows,
                 int units) {
  using T = typename PanelTile<E>::T;
  const Args& a = static_cast<const Args&>(panel);
  const bool add = at.piece || a.add;
  for (int r = 0; r < rows; ++r) {
    T* to = a.to_row(at.row + r);
    for (int u = 0; u < units; ++u, ++sums) {
      const int64_t column = (at.unit + u) * PanelTile<E>::L;
      store_within(add ? *sums + load_within<T>(to, column, a.columns) : *sums, to, column, a.columns);
    }
  }
}

}  // namespace fusedrnn::FUSEDRNN_ISA
