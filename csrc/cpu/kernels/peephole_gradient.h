// The gradients of an LSTM's peepholes, after the time loop of backward.
#pragma once
#include "core/share.h"
#include "cpu/blocks.h"
#include "cpu/kernels/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

// dp of i and f is the sum over rows of dz c0, that of o the sum of dz c1. Each thread owns blocks of units; a sum runs
// over all rows in order.
template <class C, class T> struct PeepholeGradient {
  using V = Vec<T>;
  static constexpr int L = V::lanes, G = C::gates, S = C::slots;
  static constexpr int gate[3] = {0, 1, 3}, sees_c1[3] = {0, 0, 1};  // i, f, o among i, f, g, o

  static bool run(const Sequence<T>& seq, const Share& share) {
    if (!seq.dpeephole) return true;
    const Ragged& ragged = *seq.ragged;
    const Blocks blocks(seq.H, G, L, 1);
    const int64_t R = ragged.rows();
    const auto [begin, end] = share.part_of(blocks.units);
    for (int64_t unit = begin; unit < end; ++unit) {
      V sum[3] = {V(T(0)), V(T(0)), V(T(0))};
      const T *gates = seq.gates + unit * R * S * L, *cells = seq.cells + unit * R * L;
      for (int64_t step = 0; step < ragged.steps; ++step)
        for (int64_t j = 0; j < ragged.count(step); ++j) {
          const int64_t row = ragged.first[step] + j;
          V c0(T(0));
          if (step > 0)
            c0 = V::load(cells + (ragged.first[step - 1] + j) * L);
          else if (seq.c0.data)
            c0 = load_within(seq.c0.data + ragged.state[j] * seq.c0.stride, unit * L, seq.H);
          const V c[2] = {c0, V::load(cells + row * L)};
          for (int i = 0; i < 3; ++i)
            sum[i] = fma(V::load(gates + row * S * L + gate[i] * blocks.distance(unit)), c[sees_c1[i]], sum[i]);
        }
      // In a dense block what follows a gate's units is of other gates: nobody reads these sums.
      for (int i = 0; i < 3; ++i) sum[i].store(seq.dpeephole + (i * blocks.units + unit) * L);
      if (!share.poll(share.context)) return false;
    }
    return true;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
