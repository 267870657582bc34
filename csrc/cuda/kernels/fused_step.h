// The fused path: a step is one launch. A block of threads makes what W_hh h (backward W_hh^T dz) adds to a few units,
// for all samples, and runs their cells at once, so that no sum passes through memory and nothing else is launched. For
// few samples: with many, a library's product is faster. No block waits for another; the next step is the next launch.
// What a product reads (h, dz) therefore has two places, which take turns.
//
//   begin    the first weights and what they are multiplied with are asked for; then the threads that own a
//            (sample, unit) ask for all that the cell reads beside the product, by pointers that wait for each other
//   first    partial sums: a thread has one unit and one slice of k
//   second   the owners: sums of the slices in order, the cell
//
// Threads are dealt out so that a warp reads whole sectors of the weights: 4 units x 8 slices, where the k of a unit
// are adjacent. Backward reads a transposed copy of W_hh, in which they are (runs_of_four.h). Partial sums lie so that
// no two threads of a warp meet in a bank.
//
// Cost of a step, estimated for an H100 and not measured: LSTM, float, H = 512, 16 samples. 128 blocks of 4 warps read
// 4 MiB from the second-level cache (~0.8 us) while each thread makes 1024 multiply-adds (~0.6 us); reads that wait for
// each other, a barrier and the sums of the slices ~0.6 us; from launch to launch in a graph ~1.2 us.
#pragma once
#include "cuda/kernels/runs_of_four.h"
#include "cuda/kernels/steps.h"

namespace fusedrnn::cuda {

// The partial sums of a block, (slices, outputs, rows, units): `outputs` of each unit, `rows` samples.
template <class E, int outputs, int rows, int units, int slices> struct PartialSums {
  using A = Sum<E>;
  static constexpr int stride = (outputs * rows + 1) * units;
  static constexpr int64_t bytes = int64_t(slices) * stride * sizeof(A);
  A* at;

  FUSEDRNN_PHASE explicit PartialSums(char* memory) : at(reinterpret_cast<A*>(memory)) {}

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

// The product of a block: sum (output, row) of a unit, of `outputs` matrices (H, K) that lie behind each other and up
// to `rows` samples. Iteration i of a slice is k = 4 (slice + i slices) and the three after it.
template <class E, int outputs, int rows, int slices> struct SlicedProduct {
  using A = Sum<E>;
  using Four = Run<E, 4>;
  using Partial = PartialSums<E, outputs, rows, 4, slices>;
  static constexpr int units = 4, threads = units * slices;  // of a block
  // Iterations whose weights, and whose inputs, are on their way at a time; registers decide.
  static constexpr int ahead = rows > 4 || sizeof(E) > 4 ? 2 : outputs == 1 ? 8 : 4;
  static constexpr bool keeps_inputs = rows <= 4;

  const E* weights;  // (outputs, H, stride), where runs of four may be read
  const E* in;       // (B, stride)
  int64_t stride;    // operand_row(K)
  int H, K, active;  // active: samples

  static Grid grid(int64_t H) { return {(H + units - 1) / units, threads, Partial::bytes}; }

  struct Thread {
    int unit, slice;  // of the product
    int j, u;         // of the cell
    const E *weights, *in;
    Four w[ahead][outputs], x[keeps_inputs ? ahead : 1][rows];  // of the next iterations
  };

  FUSEDRNN_PHASE void begin(Thread& t, int block, int thread) const {
    t.unit = thread / 8 % units;
    t.slice = thread / 32 * 8 + thread % 8;
    t.j = thread / units;
    t.u = block * units + thread % units;
    const int u = block * units + t.unit;
    // Nobody reads the sums of units past the last one.
    t.weights = weights + (u < H ? u : H - 1) * stride + 4 * t.slice;
    t.in = in + 4 * t.slice;
    FUSEDRNN_UNROLL
    for (int i = 0; i < ahead; ++i) load_weights(t, i, t.w[i]);
    FUSEDRNN_UNROLL
    for (int i = 0; keeps_inputs && i < ahead; ++i) load_inputs(t, i, t.x[i]);
  }

  FUSEDRNN_PHASE void run(Thread& t, const Partial& partial) const {
    A sum[outputs][rows] = {};
    FUSEDRNN_DO_NOT_UNROLL
    for (int first = 0; inside(t, first) > 0; first += ahead) {
      FUSEDRNN_UNROLL
      for (int i = 0; i < ahead; ++i) {
        if (inside(t, first + i) <= 0) break;
        Four(&x)[rows] = t.x[keeps_inputs ? i : 0];
        if (!keeps_inputs) load_inputs(t, first + i, x);
        FUSEDRNN_UNROLL
        for (int k = 0; k < 4; ++k) {
          FUSEDRNN_UNROLL
          for (int r = 0; r < rows; ++r) {
            FUSEDRNN_UNROLL
            for (int j = 0; j < outputs; ++j)
              sum[j][r] = fma(static_cast<A>(t.w[i][j].value[k]), static_cast<A>(x[r].value[k]), sum[j][r]);
          }
        }
        if (keeps_inputs) load_inputs(t, first + i + ahead, x);
        load_weights(t, first + i + ahead, t.w[i]);
      }
    }
    partial.put(t.slice, t.unit, sum);
  }

 private:
  // How many k there are from the first of an iteration on.
  FUSEDRNN_PHASE int inside(const Thread& t, int i) const { return K - 4 * (t.slice + i * slices); }

  FUSEDRNN_PHASE void load_weights(const Thread& t, int i, Four (&w)[outputs]) const {
    if (inside(t, i) <= 0) return;
    FUSEDRNN_UNROLL
    for (int j = 0; j < outputs; ++j)
      w[j] = *reinterpret_cast<const Four*>(t.weights + j * (H * stride) + 4 * slices * i);
  }
  FUSEDRNN_PHASE void load_inputs(const Thread& t, int i, Four (&x)[rows]) const {
    if (inside(t, i) <= 0) return;
    FUSEDRNN_UNROLL
    for (int r = 0; r < rows; ++r)  // those past the last one repeat it; nobody reads their sums
      x[r] = *reinterpret_cast<const Four*>(t.in + (r < active ? r : active - 1) * stride + 4 * slices * i);
  }
};

template <class C, class E, int rows> struct FusedForward {
  static constexpr int G = C::layout.gates;
  using Product = SlicedProduct<E, G, rows, 32>;
  using Partial = typename Product::Partial;

  ForwardStep<C, E> step;  // its operand: where h goes
  Product product;         // of W_hh with h before the step

  struct Thread : Product::Thread {
    typename ForwardStep<C, E>::Inputs in;
  };

  static constexpr int threads = Product::threads, stride = 1;
  static constexpr bool is_one_step = true;  // begin and second leave nothing in shared memory for others
  FUSEDRNN_PHASE int first_step(int) const { return 0; }
  FUSEDRNN_PHASE int end_step(int) const { return 1; }

  FUSEDRNN_PHASE void begin(Thread& t, char*, int block, int thread, int) const {
    product.begin(t, block, thread);
    t.in.there = false;
    if (t.j < product.active && t.u < product.H) t.in = step.load(t.j, t.u);
  }

  FUSEDRNN_PHASE void first(Thread& t, char* memory, int) const { product.run(t, Partial{memory}); }

  FUSEDRNN_PHASE void second(Thread& t, char* memory, int) const {
    if (!t.in.there) return;
    const Partial partial{memory};
    Sum<E> zh[G];
    FUSEDRNN_UNROLL
    for (int g = 0; g < G; ++g) zh[g] = partial.total(g, t.j, t.u % Product::units);
    step.finish(t.j, t.u, t.in, zh);
  }

  FUSEDRNN_PHASE void finish(const Thread&, char*) const {}
};

template <class C, class E, int rows> struct FusedBackward {
  using Product = SlicedProduct<E, 1, rows, 64>;
  using Partial = typename Product::Partial;

  BackwardStep<C, E> step;  // its operand: where dz goes
  Product product;          // of W_hh^T with dz of the step after this one
  bool before_all;          // the step before the first one: there is nothing but the product, the gradient of h0

  struct Thread : Product::Thread {
    typename BackwardStep<C, E>::Inputs in;
  };

  static constexpr int threads = Product::threads, stride = 1;
  static constexpr bool is_one_step = true;  // begin and second leave nothing in shared memory for others
  FUSEDRNN_PHASE int first_step(int) const { return 0; }
  FUSEDRNN_PHASE int end_step(int) const { return 1; }

  FUSEDRNN_PHASE void begin(Thread& t, char*, int block, int thread, int) const {
    product.begin(t, block, thread);
    t.in.there = false;
    if (t.j >= product.active || t.j >= rows || t.u >= product.H) return;
    if (before_all)
      t.in.there = true;
    else
      t.in = step.load(t.j, t.u);
  }

  FUSEDRNN_PHASE void first(Thread& t, char* memory, int) const { product.run(t, Partial{memory}); }

  FUSEDRNN_PHASE void second(Thread& t, char* memory, int) const {
    if (!t.in.there) return;
    const Sum<E> sum = Partial{memory}.total(0, t.j, t.u % Product::units);
    if (before_all)
      step.dh_product[int64_t(t.j) * product.H + t.u] = sum;
    else
      step.finish(t.j, t.u, t.in, sum);
  }

  FUSEDRNN_PHASE void finish(const Thread&, char*) const {}
};

}  // namespace fusedrnn::cuda
