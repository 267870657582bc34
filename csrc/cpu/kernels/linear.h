// y = x W^T for the rows of x: the product of linear layers. A row's bits depend on that row and W alone, because each
// output element is a chain of its own (cpu/kernels/tile.h), whatever the number of rows.
#pragma once
#include "core/sequence.h"
#include "core/share.h"
#include "cpu/kernels/panel_tile.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class T> struct Linear {
  static constexpr int L = Vec<T>::lanes;
  static constexpr int64_t chunk_rows = 96;

  static bool run(const LinearProduct<T>& product, const Share& share) {
    T* y[chunk_rows];
    const int64_t I = product.I, O = product.O, pieces = I ? ceil_div(I, piece_length) : 1;
    const RowRun run{pieces, piece_length, piece_length, I - (pieces - 1) * piece_length, 0};
    const auto [begin, end] = share.part_of(product.rows);
    for (int64_t row0 = begin; row0 < end; row0 += chunk_rows) {
      const int64_t n = smaller(chunk_rows, end - row0);
      for (int64_t i = 0; i < n; ++i) y[i] = product.y + (row0 + i) * O;
      const typename PanelTile<T>::Args a{
          .weights = {product.weights, I},
          .columns = O,
          .rows = product.x + row0 * I,
          .run = run,
          .row_stride = I,
          .runs_per_piece = 1,
          .to = y,
          .add = false,
      };
      if (!Sweep<PanelTile<T>>::run(a, share, n, 0, ceil_div(O, L), pieces)) return false;
      if (!share.poll(share.context)) return false;
    }
    return true;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
