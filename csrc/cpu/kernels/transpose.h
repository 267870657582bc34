// Between a row-major matrix and the order of the kernels, in which the vectors run over its rows: blocks of lanes x
// lanes elements, turned over in registers.
#pragma once
#include "cpu/kernels/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class T> struct Transpose {
  using V = Vec<T>;
  static constexpr int L = V::lanes;

  // to(k, i) = from(i, k) for i < rows <= lanes, k < columns. Element (i, k) of `from` at i*stride + k, of `to` at
  // k*step + i.
  static void copy(const T* from, int64_t stride, int64_t rows, int64_t columns, T* to, int64_t step) {
    for (int64_t k = 0; k < columns; k += L) {
      V block[L];
      for (int i = 0; i < L; ++i) block[i] = i < rows ? load_within(from + i * stride, k, columns) : V(T(0));
      turn(block);
      for (int i = 0; i < L && k + i < columns; ++i) store_within(block[i], to + (k + i) * step, 0, rows);
    }
  }

  // to(i, k) += from(k, i), the same way round.
  static void add(const T* from, int64_t step, int64_t rows, int64_t columns, T* to, int64_t stride) {
    for (int64_t k = 0; k < columns; k += L) {
      V block[L];
      for (int i = 0; i < L; ++i) block[i] = k + i < columns ? V::load(from + (k + i) * step) : V(T(0));
      turn(block);
      for (int i = 0; i < rows; ++i) {
        T* row = to + i * stride;
        store_within(load_within(row, k, columns) + block[i], row, k, columns);
      }
    }
  }

 private:
  // Swaps the off-diagonal quarters of every block of 2D x 2D, for D = lanes/2 down to 1.
  template <int D = L / 2> static FUSEDRNN_INLINE void turn(V (&block)[L]) {
    if constexpr (D > 0) {
      for (int i = 0; i < L; ++i) {
        if (i & D) continue;
        const V a = block[i], b = block[i + D];
        block[i] = V(low_quarters<D>(a.v, b.v));
        block[i + D] = V(high_quarters<D>(a.v, b.v));
      }
      turn<D / 2>(block);
    }
  }

  // Lane j of the first: a[j], or where bit D of j is set b[j - D]. Of the second: b[j], or where it is not, a[j + D].
  using Type = typename V::Type;
  template <int D> static FUSEDRNN_INLINE Type low_quarters(Type a, Type b) {
    return pick(a, b, [](int j) FUSEDRNN_BODY { return j & D ? L + j - D : j; });
  }
  template <int D> static FUSEDRNN_INLINE Type high_quarters(Type a, Type b) {
    return pick(a, b, [](int j) FUSEDRNN_BODY { return j & D ? L + j : j + D; });
  }

  // Lane j: lane from(j) of a and b, one after the other.
  template <class From> static FUSEDRNN_INLINE Type pick(Type a, Type b, From from) {
#if defined(__clang__)
    if constexpr (L == 2) return __builtin_shufflevector(a, b, from(0), from(1));
    if constexpr (L == 4) return __builtin_shufflevector(a, b, from(0), from(1), from(2), from(3));
    if constexpr (L == 8)
      return __builtin_shufflevector(a, b, from(0), from(1), from(2), from(3), from(4), from(5), from(6), from(7));
    if constexpr (L == 16)
      return __builtin_shufflevector(a, b, from(0), from(1), from(2), from(3), from(4), from(5), from(6), from(7),
                                     from(8), from(9), from(10), from(11), from(12), from(13), from(14), from(15));
#else
    typename V::Bits lanes{};
    for (int j = 0; j < L; ++j) lanes[j] = from(j);
    return __builtin_shuffle(a, b, lanes);
#endif
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
