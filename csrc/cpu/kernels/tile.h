// The microkernel. Every product of this backend runs through Tile::add_product, with one exception: for a single
// sequence the last few units are multiplied together with the block before them by JoinedTile
// (cpu/kernels/dense_block.h).
//
// A tile holds rows x units x gates accumulators, each a vector over `lanes` adjacent hidden units, and computes
//
//   acc(r,u,g) = sum_k a[r][k] * w[u][k][g]             a: scalars, broadcast      w: vectors, adjacent in memory
//
// from zero, one fused multiply-add at a time, k ascending, in pieces of at most piece_length; the pieces are added up
// in order. So an output element is the same chain of roundings whatever the shape of the tile that computed it; that
// is why results do not depend on batch, position or thread count. Sums start from zero, not from a bias or an earlier
// product, because each rounding is as large as the sum at that moment.
#pragma once
#include "cpu/kernels/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Tile shapes. With 32 registers 24 accumulators leave room for the 4 vectors of w and one of a; with 16 registers 12.
// Fewer than ~8 accumulators cannot hide the latency of the fma, so small row counts take several units at once; not
// more than two, so that a row alone finds some of the weights of the step before in the first-level cache.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int max_accumulators = 24;
#elif defined(FUSEDRNN_OPERAND_int8) && !defined(__AVXVNNI__)
constexpr int max_accumulators = 8;  // the product of 8 bits takes registers of its own
#else
constexpr int max_accumulators = 12;
#endif
constexpr int max_rows(int gates) { return gates == 1 ? 6 : max_accumulators / gates; }
constexpr int max_units(int rows, int gates) {
  const int most = rows > 1 ? 4 : gates > 1 ? 2 : 8;
  int units = 1;
  while (2 * units * rows * gates <= max_accumulators && 2 * units <= most) units *= 2;
  return units;
}

// Pieces of k: short enough that a group of weights stays in the second-level cache while all rows pass over it, and
// that a float sum of one piece keeps its last bits; long, because every piece costs a pass over the sums.
constexpr int64_t piece_length = 512;

// Of operands E. Integer sums lose nothing, and of this many products none leaves 32 bits: 255 * 127 * 2^16 < 2^31.
template <class E> constexpr int64_t longest_piece = is_quantized<E> ? 1 << 16 : piece_length;

// Calls body(0), ..., body(N - 1) with constants, so that arrays indexed by them live in registers from the compiler's
// first pass on. (It unrolls loops only after it has put the arrays that they index into memory.)
template <int I> struct Constant {
  FUSEDRNN_INLINE constexpr operator int() const { return I; }
};
template <int N, int I = 0, class Body> FUSEDRNN_INLINE void each(const Body& body) {
  if constexpr (I < N) {
    body(Constant<I>());
    each<N, I + 1>(body);
  }
}

// k runs over `runs` stretches of `length` scalars, `jump` apart; the last one may be shorter and begin elsewhere.
struct RowRun {
  int64_t runs, length, jump;
  int64_t last_length, last_shift;
  int64_t step = 1;  // distance between successive k within a stretch

  static FUSEDRNN_INLINE RowRun single(int64_t length, int64_t step = 1) { return {1, 0, 0, length, 0, step}; }
  // Some of the stretches.
  FUSEDRNN_INLINE RowRun part(int64_t begin, int64_t end) const {
    const bool last = end == runs;
    return {end - begin, length, jump, last ? last_length : length, last ? last_shift : 0, step};
  }
};

// Memory that this tile or the next ones will want, fetched into the second-level cache: at most one line per k, less
// where `step` is shorter than a line. With step 0 it is a line that is there already, which costs nothing.
template <class T> struct Ahead {
  const T* at;
  int64_t step;
};

// E: the type of both operands; with Pair every k of this tile is two of the sum, with Quad four.
template <class E, int Rows, int Units, int Gates> struct Tile {
  using V = Vec<typename Operand<E>::Sum>;
  static constexpr int vectors = Units * Gates;
  V acc[Rows * vectors];  // (row, unit, gate)

  FUSEDRNN_INLINE void multiply(const E* const* rows, RowRun a, const E* w, int64_t w_step, int64_t w_unit,
                                Ahead<E> ahead) {
    const E* p[Rows];
    V sum[Rows * vectors];
    each<Rows>([&](auto r) FUSEDRNN_BODY { p[r] = rows[r]; });
    each<Rows * vectors>([&](auto i) FUSEDRNN_BODY { sum[i] = V(typename V::Scalar(0)); });
    for (int64_t run = 0; run < a.runs; ++run) {
      const bool last = run + 1 == a.runs;
      const int64_t length = last ? a.last_length : a.length;
      int64_t at = run * a.jump + (last ? a.last_shift : 0);
      if (!last) fetch_run(p, at + a.jump, length);
      for (int64_t k = 0; k < length; ++k, at += a.step, w += w_step, ahead.at += ahead.step) {
        if constexpr (Rows > 1) __builtin_prefetch(ahead.at, 0, 2);  // of one row's weights it would fetch little
        add_product(sum, p, at, w, w_unit);
      }
    }
    each<Rows * vectors>([&](auto i) FUSEDRNN_BODY { acc[i] = sum[i]; });
  }

  // sum (row, unit, gate) += the products of one k. Whichever operand has fewer vectors stays in registers, the other
  // one passes through.
  static FUSEDRNN_INLINE void add_product(V (&sum)[Rows * vectors], const E* const (&p)[Rows], int64_t at, const E* w,
                                          int64_t w_unit) {
    if constexpr (Rows < vectors) {
      const E* unit[Units];
      Vec<E> a[Rows];
      each<Units>([&](auto u) FUSEDRNN_BODY { unit[u] = opaque(w + u * w_unit); });
      each<Rows>([&](auto r) FUSEDRNN_BODY { a[r] = Vec<E>(p[r][at]); });
      each<vectors>([&](auto j) FUSEDRNN_BODY {
        Vec<E> b = Vec<E>::load(unit[j / Gates] + (j % Gates) * V::lanes);
        if constexpr (Rows > 1) b = opaque(b);
        each<Rows>([&](auto r) FUSEDRNN_BODY { sum[r * vectors + j] = fma(a[r], b, sum[r * vectors + j]); });
      });
    } else {
      Vec<E> b[vectors];
      each<vectors>([&](auto j)
                        FUSEDRNN_BODY { b[j] = Vec<E>::load(w + (j / Gates) * w_unit + (j % Gates) * V::lanes); });
      each<Rows>([&](auto r) FUSEDRNN_BODY {
        const Vec<E> a(p[r][at]);
        each<vectors>([&](auto j) FUSEDRNN_BODY { sum[r * vectors + j] = fma(a, b[j], sum[r * vectors + j]); });
      });
    }
  }

 private:
  // The hardware does not foresee where the next stretch of the rows begins.
  static FUSEDRNN_INLINE void fetch_run(const E* const (&p)[Rows], int64_t at, int64_t length) {
    constexpr int64_t line = 64 / int64_t(sizeof(E));
    for (int64_t i = 0; i < length; i += line)
      each<Rows>([&](auto r) FUSEDRNN_BODY { __builtin_prefetch(p[r] + at + i, 0, 3); });
  }
};

// A tile whose shape is known only when it is called (cpu/kernels/any_tile.h).
template <class E, int Gates> struct AnyTile;

}  // namespace fusedrnn::FUSEDRNN_ISA
