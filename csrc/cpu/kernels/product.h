// y = x W^T, of one pair of matrices or of a batch of them. An element of y is a chain of its own (cpu/kernels/tile.h)
// whoever computes it, so its bits depend on its row of x and its row of W alone.
//
// W is packed a block at a time, just before all rows of x pass over it: as the tiles want it, vectors over rows of W.
// A block stays in the second-level cache; no copy of the whole of W is ever made. Where a single tile takes all rows
// and vectors of W lie ready, nothing is packed. x is read where it lies if its k are
// adjacent (or few), and packed a chunk of rows at a time otherwise.
#pragma once
#include "core/product.h"
#include "core/share.h"
#include "cpu/kernels/panel_tile.h"
#include "cpu/kernels/transpose.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class T> class RowProducts {
  struct Args : PanelTile<T>::Args {
    int64_t columns;
    bool add;
    T* to;  // first column of row i at to + i*stride
    int64_t stride;
    FUSEDRNN_INLINE T* to_row(int64_t i) const { return to + i * stride; }
  };

 public:
  static int64_t workspace(const Product<T>& p) {
    return block_size(p) + (packs_rows(p) ? (smaller(row_chunk(p), p.rows) + 2 * L) * piece_size(p) : 0);
  }

  // Threads share the rows of all items. Of few rows each of them has columns of its own: it then packs these alone.
  static bool run(const Product<T>& p, const Share& share) {
    const int64_t panels = ceil_div(p.columns, L), rows = p.items * p.rows;
    if (rows < 128 * share.size && panels >= 8 * share.size) {
      const auto [begin, end] = share.part_of(panels);
      for (int64_t item = 0; item < p.items; ++item)
        if (!multiply(p, share, item, 0, p.rows, begin, end)) return false;
      return true;
    }
    const auto [begin, end] = share.part_of(rows);
    for (int64_t at = begin, next; at < end; at = next) {
      const int64_t item = at / p.rows, first = item * p.rows;
      next = smaller(end, first + p.rows);
      if (!multiply(p, share, item, at - first, next - first, 0, panels)) return false;
    }
    return true;
  }

 private:
  using V = Vec<T>;
  static constexpr int L = V::lanes;
  static constexpr int64_t block_panels = 8, one_tile = max_rows(1);
  // Rows between two questions whether to stop; of packed ones, what leaves the cache room for a block.
  static constexpr int64_t most_rows = 2048, most_packed = 96 * piece_length;
  // So few k that their cache lines do not push each other out, whatever the stride.
  static constexpr int64_t few_k = 64;

  static int64_t piece_size(const Product<T>& p) { return smaller(piece_length, p.K); }
  static int64_t block_size(const Product<T>& p) {
    return smaller(block_panels, ceil_div(p.columns, L)) * piece_size(p) * L;
  }
  static bool packs_rows(const Product<T>& p) { return p.x.step != 1 && p.K > few_k; }
  static int64_t row_chunk(const Product<T>& p) {
    return packs_rows(p) ? smaller(most_rows, ceil_div(most_packed, piece_size(p))) : most_rows;
  }

  static bool multiply(const Product<T>& p, const Share& share, int64_t item, int64_t row0, int64_t row1,
                       int64_t panel0, int64_t panel1) {
    const T *x = p.x.data + item * p.x.item, *weight = p.weight.data + item * p.weight.item;
    T* block = p.workspace + share.rank * workspace(p);
    T* packed_rows = block + block_size(p);
    const int64_t chunks = ceil_div(row1 - row0, row_chunk(p)), pieces = p.K ? ceil_div(p.K, piece_length) : 1;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t first = row0 + (row1 - row0) * chunk / chunks,
                    rows = row0 + (row1 - row0) * (chunk + 1) / chunks - first;
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const auto [k0, k] = piece_of<T>(piece, p.K);
        Args a{};
        a.rows = x + first * p.x.row + k0 * p.x.step;
        a.row_stride = p.x.row;
        a.run = RowRun::single(k, p.x.step);
        a.runs_per_piece = 1;
        a.K = k;
        a.finish = finish_rows<T, Args>;
        a.stride = p.columns;
        a.add = piece > 0;
        if (packs_rows(p)) {
          a.run.step = pack_rows(a.rows, p.x, rows, k, packed_rows);
          a.rows = packed_rows;
          a.row_stride = 1;
        }
        for (int64_t panel = panel0; panel < panel1; panel += block_panels) {
          const int64_t column = panel * L, panels = smaller(block_panels, panel1 - panel);
          a.to = p.y + (item * p.rows + first) * p.columns + column;
          a.columns = smaller(panels * L, p.columns - column);
          const T* w = weight + column * p.weight.row + k0 * p.weight.step;
          if (rows <= one_tile && p.weight.row == 1 && a.columns == panels * L) {
            a.weights = w;
            a.panel = L;
            a.k_stride = p.weight.step;
          } else {
            pack_block(w, p.weight, a.columns, k, block);
            PanelTile<T>::set_weights(a, block, k, 0);
          }
          if (!PanelTile<T>::sweep(a, share, rows, 0, panels, 1) || !share.poll(share.context)) return false;
        }
      }
    }
    return true;
  }

  // As (K, rows, and some); returns the distance between two k.
  static int64_t pack_rows(const T* from, const Factor<T>& x, int64_t rows, int64_t K, T* to) {
    int64_t width = ceil_div(rows, L) * L;
    if (width * int64_t(sizeof(T)) % 1024 == 0) width += L;  // else many k would want one place in the cache
    for (int64_t k = 0; k < K; ++k, from += x.step, to += width) {
      if (x.row == 1)
        for (int64_t i = 0; i < rows; i += L) load_within(from, i, rows).store(to + i);
      else
        for (int64_t i = 0; i < rows; ++i) to[i] = from[i * x.row];
    }
    return width;
  }

  // `columns` rows of W as panels (K, L), the last filled up with zeros.
  static void pack_block(const T* from, const Factor<T>& w, int64_t columns, int64_t K, T* to) {
    for (int64_t column = 0; column < columns; column += L, from += L * w.row, to += K * L) {
      const int64_t used = smaller(L, columns - column);
      if (w.row == 1) {
        for (int64_t k = 0; k < K; ++k) load_within(from + k * w.step, 0, used).store(to + k * L);
        continue;
      }
      if (used < L)
        for (int64_t k = 0; k < K; ++k) V(T(0)).store(to + k * L);
      if (w.step == 1)
        Transpose<T>::copy(from, w.row, used, K, to, L);
      else
        for (int64_t k = 0; k < K; ++k)
          for (int64_t i = 0; i < used; ++i) to[k * L + i] = from[i * w.row + k * w.step];
    }
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
