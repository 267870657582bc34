// The gradients of W_ih, W_hh and the biases, after the time loop of backward: large products over all rows.
#pragma once
#include "core/share.h"
#include "cpu/kernels/rows.h"
#include "cpu/kernels/sweep.h"

namespace fusedrnn::FUSEDRNN_ISA {

// dW_ih = sum over rows of dz x^T and dW_hh = sum of dz h0^T, packed as the weights are: (U, columns, G, lanes), with
// the bias as the column of a constant input 1. Each thread owns columns of the result, k runs over all rows in order.
template <class E, int G> struct WeightGradientTile {
  using T = typename Operand<E>::Sum;
  using V = Vec<T>;
  static constexpr int L = V::lanes, gates = G;

  struct Args {
    const Blocks* blocks;
    const E* dz;  // gate gradients of row i of unit u at dz + u*unit_stride + i*row_stride
    int64_t unit_stride, row_stride;
    const E* source;  // (n, width): columns [column0, column0 + width) of the inputs of these rows
    int64_t n, width, column0;
    T* dw;
    int64_t columns;
    bool first_chunk;
  };

  template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
    Tile<E, Rows, Units, G> t;
    const E* x[Rows];
    T* dw = a.dw + (at.unit * a.columns + a.column0 + at.row) * G * L;
    for (int r = 0; r < Rows; ++r) x[r] = a.source + at.row + r;
    const E* dz = a.dz + at.unit * a.unit_stride;
    // The last tiles of a unit fetch the gate gradients of the next, a line per k; the others the sums that they add
    // to.
    const int64_t part = at.left / Units;
    Ahead<E> ahead{reinterpret_cast<const E*>(dw), ceil_div(Rows * Units * G * L, a.n > 0 ? a.n : 1)};
    if (at.next_unit != at.unit && part * L < a.row_stride)
      ahead = {a.dz + (at.next_unit + at.left % Units) * a.unit_stride + part * a.n * L, L};
    t.multiply(x, RowRun::single(a.n, a.width), dz, a.row_stride, a.unit_stride, ahead);
    each<Rows * t.vectors>([&](auto i) FUSEDRNN_BODY {
      constexpr int r = i / t.vectors, j = i % t.vectors;
      T* sum = dw + ((j / G) * a.columns * G + r * G + j % G) * L;
      (a.first_chunk ? t.acc[i] : V::load(sum) + t.acc[i]).store(sum);
    });
  }

  static void dense(const Args& a, const Place& at, int rows) {
    DenseTile<E> t;
    const E* x[t.rows_max];
    const int64_t vectors = a.blocks->vectors;
    for (int r = 0; r < rows; ++r) x[r] = a.source + at.row + r;
    t.multiply(rows, *a.blocks, x, RowRun::single(a.n, a.width), a.dz + at.unit * a.unit_stride, a.row_stride);
    T* dw = a.dw + at.unit * a.columns * G * L + (a.column0 + at.row) * vectors * L;
    for (int64_t i = 0; i < rows * vectors * L; i += L)
      (a.first_chunk ? V::load(t.acc + i) : V::load(dw + i) + V::load(t.acc + i)).store(dw + i);
  }
};

template <class C, class T, class E> struct WeightGradient {
  using V = Vec<T>;
  static constexpr int L = V::lanes, G = C::gates, S = C::slots, values = Operand<E>::values;
  // Many rows at a time, because dW is read and written once a chunk. A tile of less than 6 columns takes the gate
  // gradients of a unit from the first-level cache; more rows than that would not fit there.
  static constexpr int64_t chunk_rows = max_rows(G) < 6 ? 192 : 320;
  static constexpr int64_t chunk = chunk_rows / values;  // elements of E over the rows

  // Elements of workspace that one thread needs beside the shared state: the inputs of a chunk, and with Pairs the gate
  // gradients of one unit, two rows side by side.
  static int64_t buffer_size(const Sequence<T>& seq) {
    return chunk * ((seq.I > seq.H ? seq.I : seq.H) + 1 + L) + (values > 1 ? chunk * G * L : 0);
  }

  static bool run(const Sequence<T>& seq, const Share& share) {
    E* buffer = reinterpret_cast<E*>(seq.workspace + share.rank * buffer_size(seq));
    return accumulate(false, seq, share, buffer) && accumulate(true, seq, share, buffer);
  }

  // Elements of a row of the inputs of a chunk: not whole kilobytes, which would want one place in the cache.
  static FUSEDRNN_INLINE int64_t buffer_width(int64_t columns) {
    return columns + (columns * int64_t(sizeof(T)) % 1024 == 0 ? L : 0);
  }

  static __attribute__((noinline)) bool accumulate(bool recurrent, const Sequence<T>& seq, const Share& share,
                                                   E* buffer) {
    const int slot = recurrent ? C::recurrent_slot : C::input_slot;
    const Blocks blocks(seq.H, G, L, values);
    const int64_t columns = (recurrent ? seq.P : seq.I) + 1;
    const int64_t total = seq.ragged->rows();
    const auto [c0, c1] = share.part_of(columns);
    typename WeightGradientTile<E, G>::Args a{};
    a.blocks = &blocks;
    a.width = buffer_width(c1 - c0);
    a.source = buffer;
    a.column0 = c0;
    a.dw = recurrent ? seq.dr : seq.dw;
    a.columns = columns;
    a.first_chunk = true;
    RowCursor cursor(seq.ragged, 0);
    for (int64_t row0 = 0; row0 < total || a.first_chunk; row0 += chunk_rows, a.first_chunk = false) {
      const int64_t rows = smaller(chunk_rows, total - row0);
      a.n = ceil_div(rows, values);
      for (int64_t i = 0; i < a.n; ++i) {
        const int64_t sample = i * values < rows ? cursor.sample() : 0;
        const T* source[values] = {};
        for (int v = 0; v < values && i * values + v < rows; ++v, cursor.advance())
          source[v] = recurrent ? previous_h(seq, cursor.step, cursor.sample())
                                : row_of(seq.x, seq, cursor.step, cursor.sample());
        gather(buffer + i * a.width, source, c0, c1, columns - 1);
        if constexpr (values == 1)
          if (recurrent) scale(buffer + i * a.width, seq, sample, c0, c1);
      }
      const T* gates = (recurrent ? seq.recurrent_dz : seq.input_dz) + row0 * S * L;
      if constexpr (values == 1) {
        a.unit_stride = total * S * L;
        a.row_stride = S * L;
        a.dz = gates + slot * L;
        if (!sweep(a, share, blocks, c1 - c0, 0, blocks.wide)) return false;
        a.dz = gates + slot * blocks.slot;
        if (!sweep(a, share, blocks, c1 - c0, blocks.wide, blocks.units)) return false;
      } else {
        E* dz = buffer + chunk * a.width;
        a.dz = dz;
        for (int64_t unit = 0; unit < blocks.units; ++unit) {
          const int64_t vectors = unit < blocks.wide ? G : blocks.vectors;
          pair_rows(gates + unit * total * S * L, slot * blocks.distance(unit), vectors, rows, dz);
          a.row_stride = vectors * L;
          if (!sweep(a, share, blocks, c1 - c0, unit, unit + 1)) return false;
        }
      }
      if (!share.poll(share.context)) return false;
    }
    return true;
  }

  static FUSEDRNN_INLINE bool sweep(const typename WeightGradientTile<E, G>::Args& a, const Share& share,
                                    const Blocks& blocks, int64_t columns, int64_t u0, int64_t u1) {
    return sweep_blocks<WeightGradientTile<E, G>, E, false>(a, share, blocks, columns, u0, u1, 1);
  }

  // h as W_hh has read it, in columns [c0, c1).
  static FUSEDRNN_INLINE void scale(T* h, const Sequence<T>& seq, int64_t j, int64_t c0, int64_t c1) {
    if (const T* factor = factor_row(seq, j))
      for (int64_t i = c0; i < smaller(c1, seq.P); ++i) h[i - c0] *= factor[i];
  }

  // Columns [c0, c1) of the row, followed by its constant 1 at column `ones`. A null row is zeros.
  static FUSEDRNN_INLINE void gather(T* to, const T* const (&source)[1], int64_t c0, int64_t c1, int64_t ones) {
    const T* row = source[0];
    const int64_t end = smaller(c1, ones);
    int64_t i = c0;
    for (; row && i + L <= end; i += L) V::load(row + i).store(to + i - c0);
    for (; i < end; ++i) to[i - c0] = row ? row[i] : T(0);
    if (ones < c1) to[ones - c0] = T(1);
  }

  // The same for two rows, value by value side by side. What stands beside a row that is missing meets dz = 0.
  static FUSEDRNN_INLINE void gather(Pair* to, const T* const (&source)[2], int64_t c0, int64_t c1, int64_t ones) {
    const int64_t end = smaller(c1, ones);
    const auto values_of = [&](const T* row, int64_t i) {
      return row ? rounded(load_within(row, i, end)) : Vec<Pair>(Pair{0});
    };
    for (int64_t i = c0; i < end; i += L) {
      const Vec<Pair> both = interleave(values_of(source[0], i), values_of(source[1], i));
      if (i + L <= end)
        both.store(to + i - c0);
      else
        __builtin_memcpy(to + i - c0, &both.v, static_cast<size_t>(end - i) * sizeof(Pair));
    }
    constexpr uint32_t one = 0x3F80;
    if (ones < c1) to[ones - c0] = Pair{one << 16 | one};
  }

  // `vectors` of gate gradients, from column `first` on, of rows 2i and 2i + 1 of one unit, lane by lane side by side;
  // zero past the last row.
  static FUSEDRNN_INLINE void pair_rows(const T* gates, int64_t first, int64_t vectors, int64_t rows, Pair* to) {
    for (int64_t row = 0; row < rows; row += 2)
      for (int64_t v = 0; v < vectors; ++v, to += L) {
        const uint16_t* dz = reinterpret_cast<const uint16_t*>(gates + row * S * L) + first + v * L;
        const Vec<Pair> next = row + 1 < rows ? load_halves(dz + 2 * S * L) : Vec<Pair>(Pair{0});
        interleave(load_halves(dz), next).store(to);
      }
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
