// y = x W^T for the rows of x: the product of dense layers. A row's bits depend on that row and W alone, because each
// output element is a chain of its own (cpu/tile.h), whatever the number of rows.
#pragma once
#include "cpu/gradients.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class T> struct RowProducts {
  static constexpr int L = Vec<T>::lanes;
  static constexpr int64_t chunk_rows = 96;

  static bool run(const DenseProduct<T>& q, const Team& team) {
    T* y[chunk_rows];
    const int64_t panels = ceil_div(q.O, L), pieces = q.I ? ceil_div(q.I, piece_length) : 1;
    const RowRun run{pieces, piece_length, piece_length, q.I - (pieces - 1) * piece_length, 0};
    const auto [begin, end] = team.share(q.rows);
    for (int64_t row0 = begin; row0 < end; row0 += chunk_rows) {
      const int64_t n = smaller(chunk_rows, end - row0);
      for (int64_t i = 0; i < n; ++i) y[i] = q.y + (row0 + i) * q.O;
      // Pieces of k stand for the blocks of units of the input gradient.
      const typename InputGradientTile<T>::Args a{q.weights, q.O, q.I, q.x + row0 * q.I, run, q.I, 1, y, false};
      Sweep<InputGradientTile<T>>::run(a, n, 0, panels, pieces);
      if (!team.poll(team.context)) return false;
    }
    return true;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
