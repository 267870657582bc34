// The input products of a chunk of steps: all rows at once, or beside the recurrent products of a single sequence.
#pragma once
#include "cpu/kernels/factors.h"
#include "cpu/kernels/sweep.h"

namespace fusedrnn::FUSEDRNN_ISA {

// z = b + W_ih x for a chunk of rows, straight into the slots where the time loop reads it.
template <class E, int G> struct Project {
  using T = typename Operand<E>::Value;
  using V = Vec<T>;
  using Sum = Vec<typename Operand<E>::Sum>;
  static constexpr int L = V::lanes, gates = G;
  static constexpr bool any_shape = is_quantized<E>;

  struct Args {
    const Blocks* blocks;
    PackedMatrix<E, G> weights;  // K: of I, in elements of E
    const T* bias;
    Factors<E> factors;
    int planes;       // rows of the product that belong to a row of x
    const E** x_row;  // (n planes): input row of the i-th row of the product
    int64_t* z_row;   // (n planes): and its row in z
    T* z;             // first gate of row i of unit u at z + u*z_unit + i*z_stride
    int64_t z_unit, z_stride;
    int64_t swept_bytes;
  };

  template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
    Tile<E, Rows, Units, G> t;
    const E* x[Rows];
    const int64_t K = a.weights.K, next_k = piece_of<E>(at.next_piece, K).begin;
    const auto [k0, k] = piece_of<E>(at.piece, K);
    for (int r = 0; r < Rows; ++r) x[r] = a.x_row[at.row + r] + k0;
    const E* w = a.weights.from(at.unit, k0);
    t.multiply(x, RowRun::single(k), w, G * L, K * G * L, a.weights.ahead(Units, at, w, k, next_k, a.swept_bytes));
    each<Rows>([&](auto r) FUSEDRNN_BODY {
      const Sums to(a, at, r);
      each<Units * G>([&](auto j) FUSEDRNN_BODY { to.add(j, t.acc[r * t.vectors + j]); });
    });
  }

  static void any_tile(const Args& a, const Place& at, int rows, int log2_units)
    requires is_quantized<E>
  {
    AnyTile<E, G> t;
    const E* x[t.rows_max];
    const int64_t K = a.weights.K, next_k = piece_of<E>(at.next_piece, K).begin;
    const auto [k0, k] = piece_of<E>(at.piece, K);
    for (int r = 0; r < rows; ++r) x[r] = a.x_row[at.row + r] + k0;
    const E* w = a.weights.from(at.unit, k0);
    t.multiply(rows, log2_units, x, k, w, G * L, K * G * L,
               a.weights.ahead(1 << log2_units, at, w, k, next_k, a.swept_bytes));
    const int columns = G << log2_units;
    for (int r = 0; r < rows; ++r) {
      const Sums to(a, at, r);
      const Sum* acc = t.acc + r * columns;
      if (a.planes == 2 && to.row % 2 == 0 && r + 1 < rows) {
#pragma GCC unroll 1
        for (int j = 0; j < columns; ++j) to.add(j, acc[j], acc[columns + j]);
        ++r;
        continue;
      }
#pragma GCC unroll 1
      for (int j = 0; j < columns; ++j) to.add(j, acc[j]);
    }
  }

  // Rows [0, n) of blocks [u0, u1). One function: a call costs nothing beside it, and there are many.
  static __attribute__((noinline)) bool cover(const Args& a, const Share& share, int64_t n, int64_t u0, int64_t u1,
                                              int64_t pieces) {
    return sweep_blocks<Project, E, !is_quantized<E>>(a, share, *a.blocks, n, u0, u1, pieces);
  }

  static void dense(const Args& a, const Place& at, int rows) {
    DenseTile<E> t;
    const E* x[t.rows_max];
    const int64_t step = a.blocks->vectors * L;
    const auto [k0, k] = piece_of<E>(at.piece, a.weights.K);
    for (int r = 0; r < rows; ++r) x[r] = a.x_row[at.row + r] + k0;
    t.multiply(rows, *a.blocks, x, RowRun::single(k), a.weights.from(at.unit, 0) + k0 * step, step);
    for (int r = 0; r < rows; ++r)
      for (int g = 0; g < G; ++g) Sums(a, at, r).add(g, t.gate(*a.blocks, r, g));
  }

  static void joined(const Args& a, const Place& at) {
    JoinedTile<E, G> t;
    const auto [k0, k] = piece_of<E>(at.piece, a.weights.K);
    const E *wide = a.weights.from(at.unit, 0), *dense = a.weights.from(at.unit + 1, 0);
    t.multiply(*a.blocks, a.x_row[at.row] + k0, k, wide + k0 * G * L, dense + k0 * a.blocks->vectors * L);
    for (int j = 0; j < 2 * G; ++j) Sums(a, at, 0).add(j, t.acc[j]);
  }

  // Where the sums of row r of a tile go, and what they are added to: the bias, or the sums over earlier pieces of k
  // and of the row before, if both belong to one row of x.
  struct Sums {
    const Factors<E>& factors;
    int64_t row, column;
    T* z;
    const T* before;
    int64_t z_unit, before_unit;
    FUSEDRNN_INLINE Sums(const Args& a, const Place& at, int r)
        : factors(a.factors),
          row(at.row + r),
          column(at.unit * G * L),
          z(a.z + at.unit * a.z_unit + a.z_row[row] * a.z_stride),
          before(goes_on(a, at, row) ? z : a.bias + column),
          z_unit(a.z_unit),
          before_unit(goes_on(a, at, row) ? a.z_unit : G * L) {}
    static FUSEDRNN_INLINE bool goes_on(const Args& a, const Place& at, int64_t row) {
      if constexpr (is_quantized<E>)
        return at.piece || (row & (a.planes - 1));
      else
        return at.piece;
    }
    // And of the next row, of the same row of x.
    FUSEDRNN_INLINE void add(int j, Sum sum, Sum next) const {
      const V value = factors.value(sum, row, column + j * L), other = factors.value(next, row + 1, column + j * L);
      const V first = V::load(before + (j / G) * before_unit + (j % G) * L) + value;
      (first + other).store(z + (j / G) * z_unit + (j % G) * L);
    }
    FUSEDRNN_INLINE void add(int j, Sum sum) const {  // j: (unit, gate)
      const V value = factors.value(sum, row, column + j * L);
      (V::load(before + (j / G) * before_unit + (j % G) * L) + value).store(z + (j / G) * z_unit + (j % G) * L);
    }
  };
};

// The input products of one sequence, made while it takes its steps. One row of h passes over W_hh more slowly than it
// could be multiplied, because W_hh comes from the second-level cache or beyond. So while it arrives, the input
// products of the next `group` steps are made in the same loop: one block of units of W_ih beside two of W_hh. No sum
// changes its order.
template <class E, int G> class Lookahead {
 public:
  using Projection = Project<E, G>;
  using Args = typename Projection::Args;
  using V = typename Projection::Sum;
  static constexpr int L = V::lanes, units = 2;               // of W_hh h
  static constexpr int group = max_accumulators / G - units;  // rows of the product, `planes` for each step
  static constexpr bool exists = G > 1 && group >= 4 && multiplies_at_once<E>;

  // `recurrent`: the columns of W_hh; swept_bytes: of it, per step. It pays where W_hh does not fit the first-level
  // cache, but both weights fit the second: beyond it W_ih, read once per group of steps, would push W_hh out. Of Quads
  // most of what exceeds the first level by little is still there from the step before.
  static bool pays(const Args& a, int64_t recurrent, int64_t swept_bytes) {
    constexpr int64_t one_piece = longest_piece<E> / Operand<E>::values;
    constexpr int64_t near = (is_quantized<E> ? 2 : 1) * first_level_bytes;
    return exists && swept_bytes > near && swept_bytes + a.swept_bytes <= second_level_bytes &&
           recurrent <= one_piece && a.weights.K <= smaller(one_piece, 2 * recurrent);
  }

  // Makes the dense block of [u0, u1) for all n rows, and all blocks for the first group.
  Lookahead(const Args& chunk, const Share& share, int64_t n)
      : chunk_(chunk),
        next_(chunk),
        share_(share),
        n_(n),
        u0_(share.unit_begin),
        u1_(smaller(share.unit_end, chunk.blocks->wide)),
        unit_(u1_) {
    const int64_t u1 = share.unit_end;
    sweep(chunk, n, u1_, u1);
    sweep(chunk, smaller(n, group), u0_, u1_);
  }

  // Before step s of the chunk: at the end of a group the next one is taken up.
  void begin_step(int64_t s) {
    if constexpr (!exists)
      return;
    else if (s * chunk_.planes % group)
      return;
    sweep(next_, group, unit_, u1_);
    const int64_t first = s * chunk_.planes + group, left = n_ - first;
    next_.x_row = chunk_.x_row + first;
    next_.z_row = chunk_.z_row + first;
    if constexpr (is_quantized<E>) next_.factors.rows = chunk_.factors.rows + first;
    unit_ = left < group ? u1_ : u0_;
    if (left < group) sweep(next_, left, u0_, u1_);
  }
  bool pending() const { return unit_ < u1_; }

  // sums (units, G) = W_hh h, w its first block, and the next block of the group beside it.
  FUSEDRNN_INLINE void multiply(V* sums, const E* h, int64_t K, const E* w) {
    using Recurrent = Tile<E, 1, units, G>;
    using Input = Tile<E, group, 1, G>;
    V recurrent[units * G], input[group * G];
    each<units * G>([&](auto i) FUSEDRNN_BODY { recurrent[i] = V(typename V::Scalar(0)); });
    each<group * G>([&](auto i) FUSEDRNN_BODY { input[i] = V(typename V::Scalar(0)); });
    const E *row[1] = {h}, *x[group], *in = next_.weights.from(unit_, 0);
    for (int r = 0; r < group; ++r) x[r] = next_.x_row[r];
    const int64_t inputs = next_.weights.K, both = smaller(K, inputs);
    for (int64_t k = 0; k < both; ++k) {
      Recurrent::add_product(recurrent, row, k, w + k * G * L, K * G * L);
      Input::add_product(input, x, k, in + k * G * L, 0);
    }
    for (int64_t k = both; k < K; ++k) Recurrent::add_product(recurrent, row, k, w + k * G * L, K * G * L);
    for (int64_t k = both; k < inputs; ++k) Input::add_product(input, x, k, in + k * G * L, 0);
    each<units * G>([&](auto i) FUSEDRNN_BODY { sums[i] = recurrent[i]; });
    if constexpr (is_quantized<E>) {  // which takes more instructions: one copy of them
      V kept[group * G];
      each<group * G>([&](auto i) FUSEDRNN_BODY { kept[i] = input[i]; });
#pragma GCC unroll 1
      for (int r = 0; r < group; ++r) {
        const typename Projection::Sums to(next_, {0, unit_, 0, 0, 0, 0}, r);
        each<G>([&](auto g) FUSEDRNN_BODY { to.add(g, kept[r * G + g]); });
      }
    } else {
      each<group>([&](auto r) FUSEDRNN_BODY {
        const typename Projection::Sums to(next_, {0, unit_, 0, 0, 0, 0}, r);
        each<G>([&](auto g) FUSEDRNN_BODY { to.add(g, input[r * G + g]); });
      });
    }
    ++unit_;
  }

 private:
  const Args chunk_;
  Args next_;  // the group of rows that is being made
  const Share& share_;
  const int64_t n_, u0_, u1_;
  int64_t unit_;  // the next of its blocks

  // Short: whether to stop is asked again at the end of the chunk.
  __attribute__((noinline)) void sweep(const Args& a, int64_t n, int64_t u0, int64_t u1) const {
    if constexpr (exists)
      if (u0 < u1) Projection::cover(a, share_, n, u0, u1, 1);
  }
};

// Of steps beside which nothing is made.
struct NoLookahead {
  static constexpr bool exists = false;
  template <class Args> static bool pays(const Args&, int64_t, int64_t) { return false; }
  template <class Args> NoLookahead(const Args&, const Share&, int64_t) {}
  void begin_step(int64_t) {}
};

}  // namespace fusedrnn::FUSEDRNN_ISA
