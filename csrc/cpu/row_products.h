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
    const int64_t whole = q.I / k_block, rest = q.I - whole * k_block, panels = ceil_div(q.O, L);
    const auto [begin, end] = team.share(q.rows);
    for (int64_t row0 = begin; row0 < end; row0 += chunk_rows) {
      const int64_t n = smaller(chunk_rows, end - row0);
      for (int64_t i = 0; i < n; ++i) y[i] = q.y + (row0 + i) * q.O;
      // Pieces of k_block inputs stand for the units of the input gradient, then comes what is left of k.
      typename InputGradientTile<T>::Args a{q.weights, q.O, q.I,  q.x + row0 * q.I, whole, k_block, q.I, k_block,
                                            1,         y,   false};
      if (whole) Sweep<InputGradientTile<T>>::run(a, n, 0, panels, whole);
      if (rest || !whole) {
        a.weights += whole * k_block * L;
        a.dz += whole * k_block;
        a.units = 1;
        a.run = rest;
        a.add = whole > 0;
        Sweep<InputGradientTile<T>>::run(a, n, 0, panels, 1);
      }
      if (!team.poll(team.context)) return false;
    }
    return true;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
