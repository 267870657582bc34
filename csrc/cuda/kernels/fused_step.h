// The fused path: a step is one launch. A block of threads makes what W_hh h (backward W_hh^T dz) adds to a few units,
// for all samples, and runs their cells at once, so that no sum passes through memory and nothing else is launched. For
// few samples: with many, a library's product is faster. No block waits for another; the next step is the next launch.
// What a product reads (h, dz) therefore has two places, which take turns.
//
//   begin    the threads that own a (sample, unit): all that the cell reads beside the product
//   first    partial sums: a thread has one unit and one slice of k
//   second   the owners: sums of the slices in order, the cell
//
// Threads are dealt out so that a warp reads whole sectors of W_hh: forward, where a unit's k are adjacent, 4 units x 8
// slices; backward, where a k's units are, 32 bytes of units x the slices that fill the warp. Partial sums lie so that
// no two threads of a warp meet in a bank.
//
// Cost of a step, estimated for an H100 and not measured: LSTM, float, H = 512, 16 samples. 128 blocks of 4 warps read
// 4 MiB from the second-level cache (~0.8 us) while each thread makes 1024 multiply-adds (~0.6 us); reads that wait for
// each other, two barriers and the sums of the slices ~0.6 us; from launch to launch in a graph ~1.2 us.
#pragma once
#include "cuda/kernels/resident_weights.h"
#include "cuda/kernels/steps.h"

namespace fusedrnn::cuda {

// The partial sums of a block, (slices, outputs, rows, units): `outputs` of each unit, `rows` samples.
template <class E, int outputs, int rows, int units, int slices> struct PartialSums {
  using A = Sum<E>;
  static constexpr int stride = (outputs * rows + 1) * units;
  static constexpr int64_t bytes = int64_t(slices) * stride * sizeof(A);
  A* at;

  FUSEDRNN_PHASE void put(int slice, int unit, const A (&sum)[outputs][rows]) const {
    FUSEDRNN_UNROLL
    for (int i = 0; i < outputs; ++i) {
      FUSEDRNN_UNROLL
      for (int r = 0; r < rows; ++r) at[slice * stride + (i * rows + r) * units + unit] = sum[i][r];
    }
  }

  // Four chains, so that an addition need not wait for the one before.
  FUSEDRNN_PHASE A total(int output, int row, int unit) const {
    const A* part = at + (output * rows + row) * units + unit;
    A sum[4] = {};
    FUSEDRNN_UNROLL
    for (int slice = 0; slice < slices; slice += 4) {
      FUSEDRNN_UNROLL
      for (int i = 0; i < 4; ++i) sum[i] += part[(slice + i) * stride];
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
};

// sum (output, row) += w(output, i) in(row, i) for four k, in order.
template <class E, int outputs, int rows>
FUSEDRNN_PHASE void add_four(Sum<E> (&sum)[outputs][rows], const Run<E, 4> (&w)[outputs], const E* in, int row_stride,
                             int active) {
  FUSEDRNN_UNROLL
  for (int r = 0; r < rows; ++r) {
    // Rows past the last one repeat it; nobody reads their sums.
    const Run<E, 4> x = *reinterpret_cast<const Run<E, 4>*>(in + (r < active ? r : active - 1) * row_stride);
    FUSEDRNN_UNROLL
    for (int i = 0; i < 4; ++i) {
      FUSEDRNN_UNROLL
      for (int j = 0; j < outputs; ++j)
        sum[j][r] = fma(static_cast<Sum<E>>(w[j].value[i]), static_cast<Sum<E>>(x.value[i]), sum[j][r]);
    }
  }
}

// Elements from row to row of what a product reads: whole runs of four, the last one filled up with zeros.
constexpr int64_t operand_row(int64_t columns) { return (columns + 3) / 4 * 4; }

template <class C, class E, int rows> struct FusedForward {
  using A = Sum<E>;
  static constexpr int G = C::layout.gates, units = 4, slices = 32, threads = units * slices;  // of a block
  using Partial = PartialSums<E, G, rows, units, slices>;

  ForwardStep<C, E> step;  // its operand: where h goes
  const E* from;           // (B, operand_row): h before the step
  const E* weight_hh;      // (G, H, H)
  int H, active;           // active: samples

  static Grid grid(int64_t H) { return {(H + units - 1) / units, threads, Partial::bytes}; }

  struct Thread {
    int unit, slice;  // of the product
    int j, u;         // of the cell
    typename ForwardStep<C, E>::Inputs in;
  };

  static constexpr int stride = 1;
  static constexpr bool is_one_step = true;  // begin and second leave nothing in shared memory for others
  FUSEDRNN_PHASE int first_step(int) const { return 0; }
  FUSEDRNN_PHASE int end_step(int) const { return 1; }

  FUSEDRNN_PHASE void begin(Thread& t, char*, int block, int thread, int) const {
    t.unit = thread / 8 % units;
    t.slice = thread / 32 * 8 + thread % 8;
    t.j = thread / units;
    t.u = block * units + thread % units;
    t.in.there = false;
    if (t.j < active && t.u < H) t.in = step.load(t.j, t.u);
  }

  FUSEDRNN_PHASE void first(const Thread& t, char* memory, int) const {
    const int first_unit = t.u / units * units, u = first_unit + t.unit < H ? first_unit + t.unit : H - 1;
    const E* w_row = weight_hh + int64_t(u) * H;
    const int64_t block_of_gate = int64_t(H) * H;
    const bool aligned = H % 4 == 0 && reinterpret_cast<uintptr_t>(weight_hh) % alignof(Run<E, 4>) == 0;
    A sum[G][rows] = {};
    FUSEDRNN_DO_NOT_UNROLL
    for (int k = 4 * t.slice; k < H; k += 4 * slices) {
      Run<E, 4> w[G];
      FUSEDRNN_UNROLL
      for (int g = 0; g < G; ++g) {
        const E* at = w_row + g * block_of_gate + k;
        if (aligned) {
          w[g] = *reinterpret_cast<const Run<E, 4>*>(at);
        } else {
          FUSEDRNN_UNROLL
          for (int i = 0; i < 4; ++i) w[g].value[i] = k + i < H ? at[i] : static_cast<E>(0.0f);
        }
      }
      add_four<E, G, rows>(sum, w, from + k, static_cast<int>(step.operand_row), active);
    }
    Partial{reinterpret_cast<A*>(memory)}.put(t.slice, t.unit, sum);
  }

  FUSEDRNN_PHASE void second(Thread& t, char* memory, int) const {
    if (!t.in.there) return;
    const Partial partial{reinterpret_cast<A*>(memory)};
    A product[G];
    FUSEDRNN_UNROLL
    for (int g = 0; g < G; ++g) product[g] = partial.total(g, t.j, t.u % units);
    step.finish(t.j, t.u, t.in, product);
  }

  FUSEDRNN_PHASE void finish(const Thread&, char*) const {}
};

template <class C, class E, int rows> struct FusedBackward {
  using A = Sum<E>;
  static constexpr int G = C::layout.gates, units = 32 / sizeof(E), threads = most_threads, slices = threads / units;
  using Partial = PartialSums<E, 1, rows, units, slices>;

  BackwardStep<C, E> step;  // its operand: where dz goes
  const E* from;            // (B, operand_row): dz of the step after this one
  const E* weight_hh;
  int H, active;
  bool before_all;  // the step before the first one: there is nothing but the product, the gradient of h0

  static Grid grid(int64_t H) { return {(H + units - 1) / units, threads, Partial::bytes}; }

  struct Thread {
    int unit, slice;
    int j, u;
    typename BackwardStep<C, E>::Inputs in;
  };

  static constexpr int stride = 1;
  static constexpr bool is_one_step = true;  // begin and second leave nothing in shared memory for others
  FUSEDRNN_PHASE int first_step(int) const { return 0; }
  FUSEDRNN_PHASE int end_step(int) const { return 1; }

  FUSEDRNN_PHASE void begin(Thread& t, char*, int block, int thread, int) const {
    t.unit = thread % units;
    t.slice = thread / units;
    t.j = t.slice;
    t.u = block * units + t.unit;
    t.in.there = false;
    if (t.j >= active || t.j >= rows || t.u >= H) return;
    if (before_all)
      t.in.there = true;
    else
      t.in = step.load(t.j, t.u);
  }

  FUSEDRNN_PHASE void first(const Thread& t, char* memory, int) const {
    const int u = t.u < H ? t.u : H - 1, K = G * H;
    A sum[1][rows] = {};
    Run<E, 4> w[1] = {four_weights(weight_hh + u, 4 * t.slice, K, H, false)};
    FUSEDRNN_DO_NOT_UNROLL
    for (int k = 4 * t.slice; k < K; k += 4 * slices) {
      // On their way while those before them are multiplied.
      const Run<E, 4> next = four_weights(weight_hh + u, k + 4 * slices, K, H, false);
      add_four<E, 1, rows>(sum, w, from + k, static_cast<int>(step.operand_row), active);
      w[0] = next;
    }
    Partial{reinterpret_cast<A*>(memory)}.put(t.slice, t.unit, sum);
  }

  FUSEDRNN_PHASE void second(Thread& t, char* memory, int) const {
    if (!t.in.there) return;
    const A product = Partial{reinterpret_cast<A*>(memory)}.total(0, t.j, t.unit);
    if (before_all)
      step.dh_product[int64_t(t.j) * H + t.u] = product;
    else
      step.finish(t.j, t.u, t.in, product);
  }

  FUSEDRNN_PHASE void finish(const Thread&, char*) const {}
};

}  // namespace fusedrnn::cuda
