// W_hh in a block of threads for the whole of a time loop, and products with it. See path_plan.h for who holds
// what.
//
// Every partial sum is a chain of fused multiply-adds over the inputs of a slice, in order, from zero; whoever reads
// the result adds the slices in order. So the bits depend neither on the samples beside it nor on the place in the
// batch.
//
// Shared memory: threads of a warp have the same slice or few, so an input is one broadcast for all of them; sums are
// written and read in runs of adjacent 16 bytes (LSTM) or words at odd strides (the others). No two threads of an
// access meet in a bank, but for float64, where runs of 32 bytes meet in pairs.
#pragma once
#include "cuda/kernels/element.h"
#include "cuda/path_plan.h"

namespace fusedrnn::cuda {

template <class E> constexpr int kept = kept_inputs(sizeof(E));
// How many steps before it is used a thread asks for what it reads of memory; registers decide.
constexpr int steps_ahead(int64_t item_bytes) { return item_bytes > 4 ? 1 : 2; }

// The matrix of a product out = W in, made of W_hh (G, H, H): where the row of an output begins, and from input to
// input. Outputs forward: (unit, block of W_hh), so that those of a unit are adjacent.
template <class E> struct WeightsForward {
  const E* weight_hh;
  int H, gates;
  FUSEDRNN_PHASE const E* row(int output) const { return weight_hh + (output % gates * H + output / gates) * H; }
  FUSEDRNN_PHASE int stride() const { return 1; }
  // Whether four inputs from a multiple of four on may be read as a Run.
  FUSEDRNN_PHASE bool has_runs() const {
    return H % 4 == 0 && reinterpret_cast<uintptr_t>(weight_hh) % alignof(Run<E, 4>) == 0;
  }
};
template <class E> struct WeightsBackward {
  const E* weight_hh;
  int H;
  FUSEDRNN_PHASE const E* row(int output) const { return weight_hh + output; }
  FUSEDRNN_PHASE int stride() const { return H; }
  FUSEDRNN_PHASE bool has_runs() const { return false; }
};

// Inputs k .. k + 3 of a row, zeros from `inside` on.
template <class E>
FUSEDRNN_PHASE Run<E, 4> four_weights(const E* row, int k, int inside, int stride, bool has_runs) {
  if (has_runs && k < inside) return *reinterpret_cast<const Run<E, 4>*>(row + k);
  Run<E, 4> w;
  FUSEDRNN_UNROLL
  for (int i = 0; i < 4; ++i) w.value[i] = k + i < inside ? row[int64_t(k + i) * stride] : static_cast<E>(0.0f);
  return w;
}

// The shared memory of a block, which path_plan.cpp lays out.
template <class E> struct SharedMemory {
  E* weights;      // (slice_inputs - kept, outputs_each / unit, workers, unit): those that the registers do not hold
  Sum<E>* inputs;  // (samples, slices*slice_inputs)
  Sum<E>* sums;    // (samples, workers, 4) = (samples, slices, groups*4)
  Sum<E>* biases;  // (H, slots), of the forward pass

  FUSEDRNN_PHASE SharedMemory(const Residence& r, char* base)
      : weights(reinterpret_cast<E*>(base)),
        inputs(reinterpret_cast<Sum<E>*>(base + r.inputs_at)),
        sums(reinterpret_cast<Sum<E>*>(base + r.sums_at)),
        biases(reinterpret_cast<Sum<E>*>(base + r.biases_at)) {}
  FUSEDRNN_PHASE static int input_stride(const Residence& r) { return r.slices * r.slice_inputs; }
};

// What one thread does of a product.
template <class E> class ResidentWeights {
  using A = Sum<E>;
  static constexpr int unit = sizeof(E) > 4 ? 2 : 4;  // weights of one input in shared memory that are read at a time
  static constexpr int few = 16 / sizeof(A);          // inputs of one sample that are read at a time

 public:
  template <class Matrix>
  FUSEDRNN_PHASE void load(const Residence& r, const Matrix& matrix, int thread, const SharedMemory<E>& shared) {
    const int first_input = thread / r.groups * r.slice_inputs;
    works_ = thread < r.workers;
    inputs_ = shared.inputs + first_input;
    sums_ = reinterpret_cast<Run<A, outputs_each>*>(shared.sums) + thread;
    beyond_ = shared.weights + thread * unit;
    if (!works_) return;
    const int inside = r.inputs - first_input, stride = matrix.stride();
    const bool has_runs = matrix.has_runs();
    const E* rows[outputs_each];
    FUSEDRNN_UNROLL
    for (int row = 0; row < outputs_each; ++row) {
      const int output = thread % r.groups * outputs_each + row;
      // Nobody reads outputs past the last one.
      rows[row] = matrix.row(output < r.outputs ? output : r.outputs - 1) + first_input * stride;
    }
    FUSEDRNN_UNROLL
    for (int k = 0; k < kept<E>; k += 4) {
      FUSEDRNN_UNROLL
      for (int row = 0; row < outputs_each; ++row) {
        const Run<E, 4> w = four_weights(rows[row], k, inside, stride, has_runs);
        FUSEDRNN_UNROLL
        for (int i = 0; i < 4; ++i) weights_[row][k + i] = static_cast<A>(w.value[i]);
      }
    }
    E* to = beyond_;
    FUSEDRNN_DO_NOT_UNROLL
    for (int k = kept<E>; k < r.slice_inputs; k += 4, to += 4 * outputs_each * r.workers) {
      FUSEDRNN_UNROLL
      for (int row = 0; row < outputs_each; ++row) {
        const Run<E, 4> w = four_weights(rows[row], k, inside, stride, has_runs);
        FUSEDRNN_UNROLL
        for (int i = 0; i < 4; ++i) to[place(r, i, row / unit) + row % unit] = w.value[i];
      }
    }
  }

  // Writes the partial sums of this thread for each sample.
  template <int samples> FUSEDRNN_PHASE void multiply(const Residence& r) {
    if (!works_) return;
    A sum[samples][outputs_each] = {};
    FUSEDRNN_UNROLL
    for (int k = 0; k < kept<E>; k += few)
      add<samples>(r, k, sum, [&](int row, int i) { return weights_[row][k + i]; });
    const E* beyond = beyond_;
    FUSEDRNN_DO_NOT_UNROLL
    for (int k = kept<E>; k < r.slice_inputs; k += few, beyond += few * outputs_each * r.workers) {
      Run<E, unit> weights[few][outputs_each / unit];
      FUSEDRNN_UNROLL
      for (int i = 0; i < few; ++i) {
        FUSEDRNN_UNROLL
        for (int part = 0; part < outputs_each / unit; ++part)
          weights[i][part] = *reinterpret_cast<const Run<E, unit>*>(beyond + place(r, i, part));
      }
      add<samples>(r, k, sum, [&](int row, int i) { return static_cast<A>(weights[i][row / unit].value[row % unit]); });
    }
    FUSEDRNN_UNROLL
    for (int b = 0; b < samples; ++b) {
      Run<A, outputs_each> out;
      FUSEDRNN_UNROLL
      for (int row = 0; row < outputs_each; ++row) out.value[row] = sum[b][row];
      sums_[b * r.workers] = out;
    }
  }

 private:
  // Of an input, counted from the one at which a pointer stands.
  FUSEDRNN_PHASE static int place(const Residence& r, int input, int part) {
    return (input * (outputs_each / unit) + part) * r.workers * unit;
  }

  // Inputs k .. k + few - 1 of the slice.
  template <int samples, class Weight>
  FUSEDRNN_PHASE void add(const Residence& r, int k, A (&sum)[samples][outputs_each], Weight weight) const {
    Run<A, few> in[samples];
    FUSEDRNN_UNROLL
    for (int b = 0; b < samples; ++b)
      in[b] = *reinterpret_cast<const Run<A, few>*>(inputs_ + b * SharedMemory<E>::input_stride(r) + k);
    FUSEDRNN_UNROLL
    for (int i = 0; i < few; ++i) {
      FUSEDRNN_UNROLL
      for (int row = 0; row < outputs_each; ++row) {
        const A w = weight(row, i);
        FUSEDRNN_UNROLL
        for (int b = 0; b < samples; ++b) sum[b][row] = fma(w, in[b].value[i], sum[b][row]);
      }
    }
  }

  A weights_[outputs_each][kept<E>];
  // In shared memory: the inputs of the slice, this thread's sums, its weights beyond those above.
  const A* inputs_;
  Run<A, outputs_each>* sums_;
  E* beyond_;
  bool works_;
};

// The result for n adjacent outputs of a sample, of which `part` is the first in the partial sums of the first slice.
// Slices are read a few at a time, so that one waits for the next no more than once.
template <class E, int n>
FUSEDRNN_PHASE void add_slices(const Residence& r, const Sum<E>* part, Sum<E> (&sum)[n]) {
  constexpr int together = sizeof(Sum<E>) > 4 ? 2 : n == 1 ? 8 : 4;
  const int stride = r.groups * outputs_each;
  FUSEDRNN_DO_NOT_UNROLL
  for (int slice = 0; slice < r.slices; slice += together, part += together * stride) {
    Run<Sum<E>, n> parts[together] = {};
    FUSEDRNN_UNROLL
    for (int i = 0; i < together; ++i)
      if (slice + i < r.slices) parts[i] = *reinterpret_cast<const Run<Sum<E>, n>*>(part + i * stride);
    FUSEDRNN_UNROLL
    for (int i = 0; i < together; ++i) {
      FUSEDRNN_UNROLL
      for (int k = 0; k < n; ++k) sum[k] += parts[i].value[k];
    }
  }
}
// Where that is, of a sample and its first output.
template <class E>
FUSEDRNN_PHASE Sum<E>* first_part(const Residence& r, const SharedMemory<E>& shared, int sample, int output) {
  return shared.sums + sample * r.workers * outputs_each + output;
}

}  // namespace fusedrnn::cuda
