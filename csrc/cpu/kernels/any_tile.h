// Tiles of any shape behind one function, for operands whose sums go through memory anyway on their way to values.
#pragma once
#include "cpu/kernels/tile.h"

namespace fusedrnn::FUSEDRNN_ISA {

// One function for each shape, whatever the product is for.
template <class E, int Gates> struct AnyTile {
  using Sum = Vec<typename Operand<E>::Sum>;
  static constexpr int most = max_accumulators, rows_max = max_rows(Gates);
  Sum acc[most];  // (row, unit, gate)

  FUSEDRNN_INLINE void multiply(int rows, int log2_units, const E* const* row, int64_t length, const E* w,
                                int64_t w_step, int64_t w_unit, Ahead<E> ahead) {
    if (one_after_the_other && rows == 1) return multiply_row(acc, row[0], length, w, w_step, w_unit, 1 << log2_units);
    static constexpr Table table = make();
    table.at[rows][log2_units](acc, row, length, w, w_step, w_unit, ahead);
  }

 private:
  // One row waits for its weights, and one stream of them comes in faster than several. Even and odd k have sums of
  // their own, because a few alone would wait for the latency of each addition.
  static constexpr bool one_after_the_other = Gates > 1;
  static __attribute__((noinline)) void multiply_row(Sum* acc, const E* row, int64_t length, const E* w, int64_t w_step,
                                                     int64_t w_unit, int units) {
    using Shape = Tile<E, 1, 1, Gates>;
    const E* const p[1] = {row};
    for (; units-- > 0; w += w_unit, acc += Gates) {
      Sum even[Gates], odd[Gates];
      each<Gates>([&](auto g) FUSEDRNN_BODY { even[g] = odd[g] = Sum(typename Sum::Scalar(0)); });
      const E* at = w;
      int64_t k = 0;
      for (; k + 2 <= length; k += 2, at += 2 * w_step) {
        Shape::add_product(even, p, k, at, 0);
        Shape::add_product(odd, p, k + 1, at + w_step, 0);
      }
      if (k < length) Shape::add_product(even, p, k, at, 0);
      each<Gates>([&](auto g) FUSEDRNN_BODY { acc[g] = even[g] + odd[g]; });
    }
  }

  using Product = void (*)(Sum* acc, const E* const* row, int64_t length, const E* w, int64_t w_step, int64_t w_unit,
                           Ahead<E> ahead);
  template <int Rows, int Units>
  static void product(Sum* acc, const E* const* row, int64_t length, const E* w, int64_t w_step, int64_t w_unit,
                      Ahead<E> ahead) {
    using Shape = Tile<E, Rows, Units, Gates>;
    const E* p[Rows];
    Sum sum[Rows * Shape::vectors];
    each<Rows>([&](auto r) FUSEDRNN_BODY { p[r] = row[r]; });
    each<Rows * Shape::vectors>([&](auto i) FUSEDRNN_BODY { sum[i] = Sum(typename Sum::Scalar(0)); });
    for (int64_t k = 0; k < length; ++k, w += w_step, ahead.at += ahead.step) {
      if constexpr (Rows > 1) __builtin_prefetch(ahead.at, 0, 2);
      Shape::add_product(sum, p, k, w, w_unit);
    }
    each<Rows * Shape::vectors>([&](auto i) FUSEDRNN_BODY { acc[i] = sum[i]; });
  }
  struct Table {
    Product at[rows_max + 1][4];  // [rows][log2 units]
  };
  template <int Rows> static constexpr void fill(Table& table) {
    if constexpr (Rows >= 1) {
      constexpr int units = max_units(Rows, Gates);
      if constexpr (Rows == 1 && one_after_the_other) return;
      table.at[Rows][0] = product<Rows, 1>;
      if constexpr (units >= 2) table.at[Rows][1] = product<Rows, 2>;
      if constexpr (units >= 4) table.at[Rows][2] = product<Rows, 4>;
      if constexpr (units >= 8) table.at[Rows][3] = product<Rows, 8>;
      fill<Rows - 1>(table);
    }
  }
  static constexpr Table make() {
    Table table{};
    fill<rows_max>(table);
    return table;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
