// The last block of units where its gates lie side by side (cpu/blocks.h): fewer vectors than gates.
#pragma once
#include "cpu/blocks.h"
#include "cpu/kernels/tile.h"

namespace fusedrnn::FUSEDRNN_ISA {

// The product of the dense block: (rows, vectors) sums. One function for each shape, whatever the product is for: a
// call has one such block, too little to be worth a copy in every kind of tile.
template <class E> struct DenseTile {
  using T = typename Operand<E>::Sum;
  using V = Vec<T>;
  static constexpr int L = V::lanes, vectors_max = 3, rows_max = 6;
  static constexpr int most_rows(int64_t vectors) {
    return vectors * rows_max <= max_accumulators ? rows_max : static_cast<int>(max_accumulators / vectors);
  }

  // And a vector of zeros: a gate is loaded as a whole vector from where it begins. What follows it there are other
  // gates, in lanes that nobody reads.
  T acc[(rows_max * vectors_max + 1) * L];

  FUSEDRNN_INLINE void multiply(int rows, const Blocks& blocks, const E* const* row, RowRun a, const E* w,
                                int64_t w_step) {
    if constexpr (is_quantized<E>) {
      multiply_in_twos(rows, blocks.vectors, row, a.last_length, w, w_step);
    } else {
      static constexpr Table table = make();
      table.at[blocks.vectors][rows](row, a, w, w_step, acc);
    }
    V(T(0)).store(acc + rows * blocks.vectors * L);
  }
  FUSEDRNN_INLINE V gate(const Blocks& blocks, int row, int gate) const {
    return V::load(acc + row * blocks.vectors * L + gate * blocks.slot);
  }

 private:
  FUSEDRNN_INLINE void multiply_in_twos(int rows, int64_t vectors, const E* const* row, int64_t length, const E* w,
                                        int64_t w_step) {
    AnyTile<E, 1> t;
    for (int64_t v = 0; v < vectors; v += 2) {
      const int two = v + 1 < vectors, width = 1 + two;
      t.multiply(rows, two, row, length, w + v * L, w_step, L, {w, 0});
      for (int i = 0; i < rows * width; ++i) t.acc[i].store(acc + ((i / width) * vectors + v + i % width) * L);
    }
  }

  using Product = void (*)(const E* const* row, RowRun a, const E* w, int64_t w_step, T* acc);
  template <int Rows, int Vectors>
  static void product(const E* const* row, RowRun a, const E* w, int64_t w_step, T* acc) {
    Tile<E, Rows, 1, Vectors> t;
    t.multiply(row, a, w, w_step, 0, {w, 0});
    for (int i = 0; i < Rows * Vectors; ++i) t.acc[i].store(acc + i * L);
  }
  struct Table {
    Product at[vectors_max + 1][rows_max + 1];
  };
  template <int Rows, int Vectors> static constexpr void fill(Table& table) {
    if constexpr (Rows <= most_rows(Vectors)) {
      table.at[Vectors][Rows] = product<Rows, Vectors>;
      fill<Rows + 1, Vectors>(table);
    } else if constexpr (Vectors < vectors_max) {
      fill<1, Vectors + 1>(table);
    }
  }
  static constexpr Table make() {
    Table table{};
    fill<1, 1>(table);
    return table;
  }
};

// One row's product of the dense block and of the block before it, side by side: alone, neither has enough
// accumulators to hide the latency of the fma.
template <class E, int G> struct JoinedTile {
  using T = typename Operand<E>::Sum;
  using V = Vec<T>;
  static constexpr int L = V::lanes;
  V acc[2 * G];  // (block, gate)

  FUSEDRNN_INLINE void multiply(const Blocks& blocks, const E* row, int64_t K, const E* wide, const E* dense) {
    if (blocks.vectors == 1) return product<1>(blocks, row, K, wide, dense);
    if (blocks.vectors == 2) return product<2>(blocks, row, K, wide, dense);
    if constexpr (G > 3) product<3>(blocks, row, K, wide, dense);
  }

 private:
  template <int Vectors>
  FUSEDRNN_INLINE void product(const Blocks& blocks, const E* row, int64_t K, const E* wide, const E* dense) {
    V sum[G + Vectors];
    each<G + Vectors>([&](auto i) FUSEDRNN_BODY { sum[i] = V(T(0)); });
    for (int64_t k = 0; k < K; ++k, wide += G * L, dense += Vectors * L) {
      const Vec<E> a(row[k]);
      each<G>([&](auto g) FUSEDRNN_BODY { sum[g] = fma(a, Vec<E>::load(wide + g * L), sum[g]); });
      each<Vectors>([&](auto v) FUSEDRNN_BODY { sum[G + v] = fma(a, Vec<E>::load(dense + v * L), sum[G + v]); });
    }
    T columns[(Vectors + 1) * L];
    each<Vectors>([&](auto v) FUSEDRNN_BODY { sum[G + v].store(columns + v * L); });
    V(T(0)).store(columns + Vectors * L);
    each<G>([&](auto g) FUSEDRNN_BODY { acc[g] = sum[g]; });
    for (int g = 0; g < G; ++g) acc[G + g] = V::load(columns + g * blocks.slot);
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
