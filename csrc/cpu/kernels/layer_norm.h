// Layer normalisation inside of cells (Ba, Kiros & Hinton 2016): W_ih x and W_hh h of a step are normalised apart, over
// all gates of an LSTM, in a GRU over r and z together and over n; c of an LSTM where h reads it.
//   LN(v) = gain (v - mean(v)) / sqrt(variance(v) + 1e-5) + bias
// The products go to memory and are normalised row by row, because a row's mean needs all of its units. So a thread has
// whole rows. The formulas are those of the cell, run on what this makes.
#pragma once
#include "cpu/kernels/projection.h"
#include "cpu/kernels/rows.h"
#include "cpu/kernels/time_loop.h"
#include "cpu/kernels/varied_functions.h"
#include "cpu/kernels/workspace.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Compiled once for all cells. Here and below: cold, that is, as small as it can be; a row's loops over vectors lose
// nothing by it.
template <class T> struct LayerNorm {
  using V = Vec<T>;
  static constexpr int L = V::lanes;

  // Some gates of all blocks of units of one row.
  struct Row {
    T* data;
    int64_t unit;      // between blocks
    int64_t last = L;  // between slots in the last block; L in all others
    int slot = 0;      // of the first gate
    FUSEDRNN_INLINE T* at(int64_t u, int g, int64_t units) const {
      return data + u * unit + (slot + g) * (u + 1 < units ? L : last);
    }
  };
  // Gates [begin, end) of `all`; the arrays have vectors (u, all) from the first gate on.
  struct Gates {
    int begin, end, all;
  };

  // Calls body(u, g, i, left) for each vector: i is its place in the arrays, `left` units are in it or behind it.
  template <class Body> static FUSEDRNN_INLINE void each_vector(const Gates& gates, int64_t H, const Body& body) {
    int64_t u = 0;
    for (int64_t left = H; left > 0; left -= L, ++u)
      for (int g = gates.begin; g < gates.end; ++g) body(u, g, (u * gates.all + g) * L, left);
  }
  static FUSEDRNN_INLINE V within(V x, int64_t left) { return left < L ? cut(x, left) : x; }
  static __attribute__((noinline, cold)) V cut(V x, int64_t left) { return first_lanes(x, left); }
  static FUSEDRNN_INLINE T total(V x) {
    T lane[L], sum = 0;
    x.store(lane);
    for (int i = 0; i < L; ++i) sum += lane[i];
    return sum;
  }

  // to = LN(from). Keeps the normalised values and what they were multiplied by, if wanted.
  static __attribute__((noinline, cold)) void forward(const Gates& gates, int64_t H, const Row& from, const Row& to,
                                                      const T* gain, const T* bias, T* normalised, T* factor) {
    const T count = static_cast<T>((gates.end - gates.begin) * H);
    const int64_t units = ceil_div(H, L);
    V sum(T(0)), squares(T(0));
    each_vector(gates, H, [&](int64_t u, int g, int64_t, int64_t left) FUSEDRNN_BODY {
      sum = sum + within(V::load(from.at(u, g, units)), left);
    });
    const V mean(total(sum) / count);
    each_vector(gates, H, [&](int64_t u, int g, int64_t, int64_t left) FUSEDRNN_BODY {
      const V d = within(V::load(from.at(u, g, units)) - mean, left);
      squares = fma(d, d, squares);
    });
    const T inverse = T(1) / __builtin_sqrt(total(squares) / count + T(1e-5));
    each_vector(gates, H, [&](int64_t u, int g, int64_t i, int64_t left) FUSEDRNN_BODY {
      const V value = within((V::load(from.at(u, g, units)) - mean) * V(inverse), left);
      if (normalised) value.store(normalised + i);
      fma(value, V::load(gain + i), V::load(bias + i)).store(to.at(u, g, units));
    });
    if (factor) *factor = inverse;
  }

  // The gradient of what was normalised from that of what came of it; added to what is there, or instead of it.
  static __attribute__((noinline, cold)) void backward(const Gates& gates, int64_t H, const Row& d, const Row& to,
                                                       const T* gain, const T* normalised, T factor, bool add) {
    const T count = static_cast<T>((gates.end - gates.begin) * H);
    const int64_t units = ceil_div(H, L);
    V sum(T(0)), moment(T(0));
    const auto gained = [&](int64_t u, int g, int64_t i, int64_t left)
                            FUSEDRNN_BODY { return within(V::load(d.at(u, g, units)), left) * V::load(gain + i); };
    each_vector(gates, H, [&](int64_t u, int g, int64_t i, int64_t left) FUSEDRNN_BODY {
      const V x = gained(u, g, i, left);
      sum = sum + x;
      moment = fma(x, V::load(normalised + i), moment);
    });
    const V mean(total(sum) / count), slope(total(moment) / count);
    each_vector(gates, H, [&](int64_t u, int g, int64_t i, int64_t left) FUSEDRNN_BODY {
      const V x = fnma(V::load(normalised + i), slope, gained(u, g, i, left) - mean);
      T* at = to.at(u, g, units);
      const V value = within(x * V(factor), left);
      (add ? V::load(at) + value : value).store(at);
    });
  }
};

// Where the parts of norm begin.
template <class T> struct NormWeights {
  const T *gain[2], *bias[2];  // of W_ih x, of W_hh h
  const T *gain_c, *bias_c;
  FUSEDRNN_INLINE NormWeights(const T* norm, int64_t of_gates, int64_t of_c)
      : gain{norm, norm + 2 * of_gates},
        bias{norm + of_gates, norm + 3 * of_gates},
        gain_c(norm + 4 * of_gates),
        bias_c(norm + 4 * of_gates + of_c) {}
};

// The steps of a time loop, of cells of one shape.
template <class C, class T> struct NormalisedSteps {
  using V = Vec<T>;
  using Norm = LayerNorm<T>;
  using Row = typename Norm::Row;
  static constexpr int L = V::lanes, G = C::gates, S = C::slots, c_factor = 4;
  // Gates that the first group has of them: all of an LSTM; r z of a GRU, n.
  static constexpr int first_group[2] = {C::has_cell_state ? G : G - 1, C::has_cell_state ? G : 1};
  static constexpr int all_units = 1 << 30;  // a tile that is as wide as a row

  // Calls body(side, gates, i) for every group of either side, the i-th of the factors being its own.
  template <class Body> static FUSEDRNN_INLINE void each_part(const Body& body) {
    for (int i = 0; i < 4; ++i) {
      const int side = i / 2, middle = first_group[side];
      const typename Norm::Gates gates{i % 2 ? middle : 0, i % 2 ? G : middle, G};
      if (gates.begin < gates.end) body(side, gates, i);
    }
  }
  // Calls body(N, u) for blocks [u, u + N).
  template <class Body> static FUSEDRNN_INLINE void each_pair_of(int64_t units, const Body& body) {
    for (int64_t u = 0; u < units; u += 2) body(u + 1 < units ? 2 : 1, u);
  }

  // Two blocks of a row, or the last one twice.
  static FUSEDRNN_INLINE Group<T, 2> two(const T* row, int64_t u, int64_t units, int64_t unit = L) {
    Group<T, 2> x;
    x.v[0] = V::load(row + u * unit);
    x.v[1] = V::load(row + (u + 1 < units ? u + 1 : u) * unit);
    return x;
  }

  template <class Pass>
  static __attribute__((noinline, cold)) bool take(const typename Pass::Args& a, const Share& share, int64_t n,
                                                   int64_t pieces) {
    const int64_t U = a.blocks.units;
    // The rows of the input products of this chunk are not needed any more.
    const T** h = a.space.x_rows(share.rank);
    int64_t* to = a.space.z_rows(share.rank);
    for (int64_t i = 0; i < n; ++i) {
      h[i] = a.h + (a.j0 + i) * a.space.row;
      to[i] = a.j0 + i;
    }
    const typename Project<T, G>::Args product{
        .blocks = &a.blocks,
        .weights = a.weights,
        .bias = a.seq->input_bias,  // zeros: the biases are those of the normalisation
        .factors = {},
        .planes = 1,
        .x_row = h,
        .z_row = to,
        .z = a.space.products(),
        .z_unit = G * L,
        .z_stride = U * G * L,
        .swept_bytes = a.swept_bytes,
    };
    if (!Project<T, G>::cover(product, share, n, 0, U, pieces)) return false;
    for (int64_t j = a.j0; j < a.j0 + n; ++j) take_row<Pass>(a, j);
    return true;
  }

  // Of one sample, from its products to h.
  template <class Pass> static FUSEDRNN_INLINE void take_row(const typename Pass::Args& a, int64_t j) {
    const Sequence<T>& seq = *a.seq;
    const int64_t U = a.blocks.units, z_unit = a.z_rows * S * L, H = seq.H;
    const NormWeights<T> weights(seq.norm, U * G * L, U * L);
    T* z = a.z + (a.z_first + j) * S * L;
    T* sums = a.space.products() + j * U * G * L;
    T* kept = seq.gates ? seq.normalised + (a.z_first + j) * norm_row_size(U, G, L) : nullptr;
    T* factors = kept ? kept + (2 * G + 1) * U * L : nullptr;
    each_part([&](int side, const typename Norm::Gates& gates, int i) FUSEDRNN_BODY {
      const Row row = side == 0 ? Row{z + C::input_slot * L, z_unit} : Row{sums, G * L};
      Norm::forward(gates, H, row, row, weights.gain[side], weights.bias[side],
                    kept ? kept + side * U * G * L : nullptr, factors ? factors + i : nullptr);
    });
    each_pair_of(U, [&](int N, int64_t u) FUSEDRNN_BODY {
      V sum[2 * G];
      for (int i = 0; i < N * G; ++i) sum[i] = V::load(sums + (u * G + i) * L);
      a.finish[N](a, sum, z, z_unit, j, 0, 0, static_cast<int>(u), all_units);
    });
    if constexpr (C::has_cell_state) {
      const Row c{a.space.c() + j * a.space.row, L}, read{sums, L};
      Norm::forward({0, 1, 1}, H, c, read, weights.gain_c, weights.bias_c, kept ? kept + 2 * U * G * L : nullptr,
                    factors ? factors + c_factor : nullptr);
      T* h = a.space.h(a.step + 1) + j * a.space.row;  // o as yet
      each_pair_of(U, [&](int N, int64_t u) FUSEDRNN_BODY {
        const Group<T, 2> h1 = two(h, u, U) * apply(seq.options->output, two(sums, u, U));
        for (int i = 0; i < N; ++i) {
          h1.v[i].store(h + (u + i) * L);
          store_within(h1.v[i], a.y_row[j], (u + i) * L, H);
        }
      });
    }
  }

  // Backward: the samples below `now` that are this thread's, whose dL/dh stands in a.between.
  template <class Args> static __attribute__((noinline, cold)) void back(const Args& a, const Share& share,
                                                                         int64_t now) {
    const Sequence<T>& seq = *a.seq;
    const int64_t U = a.blocks->units, unit = a.total_rows * S * L, H = seq.H, distance = a.blocks->distance(U - 1);
    const NormWeights<T> weights(seq.norm, U * G * L, U * L);
    for (int64_t j = share.sample_begin; j < smaller(now, share.sample_end); ++j) {
      const int64_t row = seq.ragged->first[a.step] + j;
      const T* kept = seq.normalised + row * norm_row_size(U, G, L);
      const T* factors = kept + (2 * G + 1) * U * L;
      T *dh = a.between + j * a.row, *gates = seq.gates + row * S * L;
      if constexpr (C::has_cell_state) {
        const T* c = kept + 2 * U * G * L;
        T* d = seq.dnormalised_c + row * U * L;
        each_pair_of(U, [&](int N, int64_t u) FUSEDRNN_BODY {
          const Group<T, 2> f =
              apply(seq.options->output, fma(two(weights.gain_c, u, U), two(c, u, U), two(weights.bias_c, u, U)));
          const Group<T, 2> dh1 = two(dh, u, U), do_ = dh1 * f;
          const Group<T, 2> dc = times_slope(seq.options->output, dh1 * two(gates + 3 * L, u, U, unit), f);
          for (int i = 0; i < N; ++i) {
            dc.v[i].store(d + (u + i) * L);
            do_.v[i].store(dh + (u + i) * L);
          }
        });
        Norm::backward({0, 1, 1}, H, {d, L}, {a.dc + j * a.row, L}, weights.gain_c, c, factors[c_factor], true);
      }
      each_pair_of(U, [&](int N, int64_t u) FUSEDRNN_BODY {
        V d[2];
        for (int i = 0; i < N; ++i) d[i] = V::load(dh + (u + i) * L);
        a.finish_cells[N](a, d, j, 0, static_cast<int>(u), all_units);
      });
      each_part([&](int side, const typename Norm::Gates& of, int i) FUSEDRNN_BODY {
        T* to = (side == 0 ? seq.input_dz : seq.recurrent_dz) + row * S * L;
        const int slot = side == 0 ? C::input_slot : C::recurrent_slot;
        Norm::backward(of, H, {gates, unit, distance, slot}, {to, unit, distance, slot}, weights.gain[side],
                       kept + side * U * G * L, factors[i], false);
      });
    }
  }
};

// The gradients of gains and biases, after the time loop of backward. Each thread owns blocks of units; a sum runs over
// all rows in order.
template <class T> struct NormGradient {
  using V = Vec<T>;
  static constexpr int L = V::lanes, most_sums = 18;

  template <class C> static bool run(const Sequence<T>& seq, const Share& share) {
    return !seq.dnorm || sum(seq, share, C::gates, C::slots, C::input_slot, C::recurrent_slot);
  }

 private:
  static __attribute__((noinline, cold)) bool sum(const Sequence<T>& seq, const Share& share, int G, int S,
                                                  int input_slot, int recurrent_slot) {
    const Blocks blocks(seq.H, G, L, 1);
    const int64_t R = seq.ragged->rows(), U = blocks.units, row_size = norm_row_size(U, G, L);
    const auto [begin, end] = share.part_of(U);
    for (int64_t unit = begin; unit < end; ++unit) {
      V sums[most_sums];
      for (V& each : sums) each = V(T(0));
      const int64_t distance = blocks.distance(unit);
      for (int64_t row = 0; row < R; ++row) {
        const T *dz = seq.gates + (unit * R + row) * S * L, *kept = seq.normalised + row * row_size;
        for (int i = 0; i <= 2 * G; ++i) {  // W_ih x and W_hh h in turns, then c
          const int g = i / 2, slot = (i % 2 ? recurrent_slot : input_slot) + g;
          const T* d = dz + slot * distance;
          int64_t at = (i % 2 ? U * G : 0) + unit * G + g;
          if (i == 2 * G) {
            if (!seq.dnormalised_c) break;
            d = seq.dnormalised_c + (row * U + unit) * L;
            at = 2 * U * G + unit;
          }
          sums[2 * i] = fma(V::load(d), V::load(kept + at * L), sums[2 * i]);
          sums[2 * i + 1] = sums[2 * i + 1] + V::load(d);
        }
      }
      for (int i = 0; i < 4 * G + 2; ++i) sums[i].store(seq.dnorm + (unit * (4 * G + 2) + i) * L);
      if (!share.poll(share.context)) return false;
    }
    return true;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
