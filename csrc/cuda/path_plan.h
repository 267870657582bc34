// Which path the directions of a call take through time, and how the resident one lays out W_hh in a block of threads.
// Pure functions of the sizes and the device; no CUDA headers.
//
//   resident   a block of threads holds all of W_hh and goes through time without meeting other blocks
//   fused      one launch per step: product and cell; for few samples
//   stepwise   a product of a library and a pointwise launch per step
//
// Whether the resident path is taken, and its order of sums, depend on cell, dtype, H and device alone, never on the
// batch, whose only effect is on the number of samples a block has. Between the other two fused_limits() decides.
#pragma once
#include <cstdint>
#include <string>

#include "core/cell.h"
#include "core/plan.h"

namespace fusedrnn::cuda {

constexpr int most_threads = 512;  // of a block: 128 registers each
constexpr int outputs_each = 4;    // sums that a thread makes for each sample
constexpr int most_samples(int64_t item_bytes) { return item_bytes > 4 ? 1 : 2; }  // of a block; registers decide
// Weights of one output that a thread holds in registers, in the type of the sums: with four outputs 64 registers.
constexpr int kept_inputs(int64_t item_bytes) { return item_bytes > 4 ? 8 : 16; }

// out (M) = W (M, K) in (K) for the samples of a block. Thread (slice, group) = slice*groups + group makes what the
// inputs [slice*slice_inputs, (slice + 1)*slice_inputs) add to outputs [4*group, 4*group + 4).
struct Residence {
  int outputs, inputs;       // M, K
  int groups;                // ceil(M / outputs_each)
  int slices, slice_inputs;  // kept_inputs at least and a multiple of 4; inputs past K are zeros
  int workers;               // threads that multiply: slices*groups
  int block_threads;         // multiple of 32; one for each (sample, unit) at least, which then has a thread of its own
  // Shared memory: weights that the registers do not hold, inputs, partial sums, biases; where they begin, in bytes.
  int inputs_at, sums_at, biases_at;
  int64_t shared_bytes;
};

// A launch of blocks of threads.
struct Grid {
  int64_t blocks;
  int threads;
  int64_t shared_bytes;  // of a block
};

struct Limits {
  int64_t multiprocessors, shared_bytes;  // the latter of a block that opts in
};

enum class Path { stepwise, fused, resident };

// Where the fused path ends and the stepwise one begins: more samples in a pass, or a larger hidden size. A sweep over
// both paths on a device is to fill this table. Until then it holds estimates: tensor cores should win from about 1024
// units on, and a fused step backward reads W_hh against its order, which few samples only make up for.
struct FusedLimits {
  int forward_rows, backward_rows;  // a thread has a sum of each sample in its registers, for each gate
  int64_t hidden_size;
};
constexpr FusedLimits fused_limits(int64_t item_bytes, bool tf32) {
  if (item_bytes == 8) return {4, 4, INT64_MAX};
  if (item_bytes == 2 || tf32) return {16, 4, 1023};
  return {16, 4, INT64_MAX};
}
// Of any call: what there are kernels for.
constexpr int most_fused_rows(int64_t item_bytes, Pass pass) {
  return pass == Pass::forward ? fused_limits(item_bytes, false).forward_rows
                               : fused_limits(item_bytes, false).backward_rows;
}

struct PathPlan {
  Path path;
  // Of the resident path:
  int samples;  // of a block
  int64_t blocks;
  Residence forward, backward;
  Grid grid(const Residence& r) const { return {blocks, r.block_threads, r.shared_bytes}; }
  // "cuda: stepwise", "cuda: fused", or "cuda: resident x16 (1 x 256 threads, 6 KiB)": blocks, samples a block, and
  // what it takes.
  std::string describe() const;
};

// The fastest path that these sizes allow, of `most` and those before it in the enumeration. tf32: products may use it.
PathPlan plan_path(Path most, Pass pass, const CellLayout& layout, int64_t hidden_size, int64_t item_bytes, bool tf32,
                   int64_t batch, int64_t num_directions, const Limits& limits);

}  // namespace fusedrnn::cuda
