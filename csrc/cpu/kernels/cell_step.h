// The formulas of a cell, run on the accumulators of a tile: what a time loop calls after a product.
// One function for each number N of cells side by side, not for each tile shape: inlined into the tiles, the formulas
// would make up most of the library.
#pragma once
#include "cpu/kernels/backward_pass.h"
#include "cpu/kernels/forward_pass.h"
#include "cpu/kernels/varied_functions.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class C, class T, class E> struct ForwardCell {
  using Pass = ForwardPass<ShapeOf<C>, T, E>;
  using V = Vec<T>;
  using Sum = typename Pass::Sum;
  static constexpr int L = V::lanes, G = Pass::G, S = Pass::S, rec = Pass::rec, values = Pass::values;

  // The slots of N cells: reading one adds up its sums, assigning to one keeps it for backward. They are read and
  // written only when the formula reaches them, because the registers cannot hold all slots of several cells.
  template <int N> struct Slots {
    using W = Group<T, N>;
    const typename Pass::Args& a;
    const Sum* acc;
    int64_t piece;
    T* z[N];
    int64_t unit[N], sample[N];

    struct Slot {
      const Slots& of;
      int i;
      FUSEDRNN_INLINE operator W() const {
        W sum;
        const bool recurrent = i >= rec && i < rec + G;
        each<N>([&](auto n) FUSEDRNN_BODY {
          T* z = of.z[n] + i * L;
          sum.v[n] = V::load(recurrent ? Pass::Step::earlier_sum(of.a, z, i, of.unit[n], of.piece) : z);
          if (recurrent) {
            const int64_t column = (of.unit[n] * G + i - rec) * L;
            sum.v[n] = sum.v[n] + of.a.factors.value(of.acc[n * G + i - rec], of.sample[n], column);
          }
        });
        return sum;
      }
      FUSEDRNN_INLINE W operator=(const W& value) const {
        if (of.a.seq->gates) each<N>([&](auto n) FUSEDRNN_BODY { value.v[n].store(of.z[n] + i * L); });
        return value;
      }
    };
    FUSEDRNN_INLINE Slot operator[](int i) const { return {*this, i}; }
  };

  template <int N>
  static void step(const typename Pass::Args& a, const Sum* acc, T* z, int64_t z_unit, int64_t j0, int64_t unit0,
                   int64_t piece, int first, int units) {
    using W = Group<T, N>;
    const int shift = __builtin_ctz(static_cast<unsigned>(units));
    const Sequence<T>& seq = *a.seq;
    Slots<N> s{a, acc, piece, {}, {}, {}};
    W h0, c(T(0));
    int64_t at[N], sample[N];
    each<N>([&](auto n) FUSEDRNN_BODY {
      const int r = (first + n) >> shift, u = (first + n) & (units - 1);
      sample[n] = j0 + r;
      s.z[n] = z + u * z_unit + r * S * L;
      s.unit[n] = unit0 + u;
      s.sample[n] = j0 + r;
      at[n] = (j0 + r) * a.space.row + s.unit[n] * L;
      h0.v[n] = V::load(a.space.h(a.step) + at[n]);
      if (C::layout.has_cell_state) c.v[n] = V::load(a.space.c() + at[n]);
    });
    W h1;
    if constexpr (has_options<C>) {
      const VariedFunctions<T, N> fn(seq, a.step, sample, s.unit);
      const W c0 = c;
      h1 = C::forward(s, h0, c, fn);
      if (fn.zones_h()) h1 = fma(fn.h_zone(), h0 - h1, h1);
      if (C::layout.has_cell_state && fn.zones_c()) c = fma(fn.c_zone(), c0 - c, c);
      // Units past H have no weights, but functions that are not 0 at 0: they must not grow from step to step.
      each<N>([&](auto n) FUSEDRNN_BODY {
        const int64_t left = seq.H - s.unit[n] * L;
        if (left < L) h1.v[n] = first_lanes(h1.v[n], left), c.v[n] = first_lanes(c.v[n], left);
      });
      if (fn.reads_factored()) {
        const W read = fn.as_read(h1);
        each<N>([&](auto n) FUSEDRNN_BODY { read.v[n].store(a.space.operand(a.step + 1) + at[n]); });
      }
    } else {
      h1 = C::forward(s, h0, c);
    }
    each<N>([&](auto n) FUSEDRNN_BODY {
      const int64_t j = j0 + ((first + n) >> shift), unit = s.unit[n];
      if (C::layout.has_cell_state) c.v[n].store(a.space.c() + at[n]);
      const bool projects = has_options<C> && seq.projection;  // then h1 is what W_hr reads
      h1.v[n].store((projects ? a.space.between() : a.space.h(a.step + 1)) + at[n]);
      if constexpr (values == 2)
        store_rounded(h1.v[n], reinterpret_cast<uint16_t*>(a.space.operand(a.step + 1)) + at[n]);
      if (!projects) store_within(h1.v[n], a.y_row[j], unit * L, seq.H);
      if (C::layout.has_cell_state && seq.gates) c.v[n].store(seq.cells + (unit * a.z_rows + a.z_first + j) * L);
    });
  }

  template <int N>
  static void in_pairs(const typename Pass::Args& a, const Sum* acc, T* z, int64_t z_unit, int64_t j0, int64_t unit0,
                       int64_t piece, int first, int units) {
    for (int i = 0; i + 2 <= N; i += 2) step<2>(a, acc + i * G, z, z_unit, j0, unit0, piece, first + i, units);
    if (N % 2) step<1>(a, acc + (N - 1) * G, z, z_unit, j0, unit0, piece, first + N - 1, units);
  }
};

template <class C, class T, class E> struct BackwardCell {
  using Pass = BackwardPass<ShapeOf<C>, T, E>;
  using V = Vec<T>;
  static constexpr int L = V::lanes, S = Pass::S, values = Pass::values;

  template <int N>
  static void step(const typename Pass::Args& a, const V* acc, int64_t j0, int64_t unit0, int first, int units) {
    using W = Group<T, N>;
    const int shift = __builtin_ctz(static_cast<unsigned>(units));
    const Sequence<T>& seq = *a.seq;
    const Ragged& ragged = *seq.ragged;
    W s[S], dh, h0(T(0)), c0(T(0)), c1(T(0)), dc(T(0));
    int64_t at[N], blocks[N], sample[N];
    T* saved[N];
    each<N>([&](auto n) FUSEDRNN_BODY {
      const int64_t j = j0 + ((first + n) >> shift), unit = unit0 + ((first + n) & (units - 1));
      blocks[n] = unit;
      sample[n] = j;
      const int64_t b = ragged.state[j], here = unit * a.total_rows + ragged.first[a.step] + j;
      at[n] = j * a.row + unit * L;
      saved[n] = seq.gates + here * S * L;
      dh.v[n] = acc[n];
      each<S>([&](auto i) FUSEDRNN_BODY { s[i].v[n] = V::load(saved[n] + i * L); });
      if constexpr (C::layout.has_cell_state) {
        c1.v[n] = V::load(seq.cells + here * L);
        if (a.step > 0)
          c0.v[n] = V::load(seq.cells + (unit * a.total_rows + ragged.first[a.step - 1] + j) * L);
        else if (seq.c0.data)
          c0.v[n] = load_within(seq.c0.data + b * seq.c0.stride, unit * L, seq.H);
        dc.v[n] = V::load(a.dc + at[n]);
      }
      if constexpr (C::backward_reads_h0)
        if (const T* h = previous_h(seq, a.step, j)) h0.v[n] = load_within(h, unit * L, seq.H);
    });
    W bypass;
    if constexpr (has_options<C> && C::layout.has_cell_state)
      if (seq.projection) {  // its weights read what c is not needed for any more
        const W left = C::hidden(s[3], c1, VariedFunctions<T, N>(seq, a.step, sample, blocks));
        each<N>([&](auto n) FUSEDRNN_BODY { left.v[n].store(seq.cells + (saved[n] - seq.gates) / S); });
      }
    if constexpr (has_options<C>) {
      const VariedFunctions<T, N> fn(seq, a.step, sample, blocks);
      const W dh1 = dh, dc1 = dc;
      if (fn.zones_h()) dh = fnma(fn.h_zone(), dh, dh);
      if constexpr (C::layout.has_cell_state)
        if (fn.zones_c()) c1 = C::cell(s, c0, fn), dc = fnma(fn.c_zone(), dc, dc);
      bypass = C::backward(s, h0, c0, c1, dh, dc, fn);
      if (fn.zones_h()) bypass = fma(fn.h_zone(), dh1, bypass);
      if (C::layout.has_cell_state && fn.zones_c()) dc = fma(fn.c_zone(), dc1, dc);
    } else {
      bypass = C::backward(s, h0, c0, c1, dh, dc);
    }
    each<N>([&](auto n) FUSEDRNN_BODY {
      const int64_t distance = a.blocks->distance(unit0 + ((first + n) & (units - 1)));
      // In this order: in a dense block each gate overwrites what the vector of the one before left behind its end.
      each<S>([&](auto i) FUSEDRNN_BODY {
        if constexpr (values == 1)
          s[i].v[n].store(saved[n] + i * distance);
        else
          store_rounded(s[i].v[n], reinterpret_cast<uint16_t*>(saved[n]) + i * distance);
      });
      bypass.v[n].store(a.carry + at[n]);
      if (C::layout.has_cell_state) dc.v[n].store(a.dc + at[n]);
    });
  }

  template <int N>
  static void in_pairs(const typename Pass::Args& a, const V* acc, int64_t j0, int64_t unit0, int first, int units) {
    for (int i = 0; i + 2 <= N; i += 2) step<2>(a, acc + i, j0, unit0, first + i, units);
    if (N % 2) step<1>(a, acc + N - 1, j0, unit0, first + N - 1, units);
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
