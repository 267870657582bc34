// The resident path backward: the steps of a chunk from the last to the first, for the samples of one block. Phases as
// in resident_forward.h:
//
//   begin    W_hh^T into registers and shared memory, gradients of the state from memory
//   first    each thread that owns a (sample, unit): dh from the partial sums, the cell; dz into shared memory and the
//            tape
//   second   multiply: partial sums of W_hh^T dz
//   finish   the gradients of the state into memory
//
// The threads share W_hh^T as they share W_hh forward: as many weights each, and G times the inputs for 1/G of the
// outputs, so more slices. The cost of a step is about that of a step forward.
#pragma once
#include "cuda/kernels/resident_weights.h"
#include "cuda/kernels/steps.h"

namespace fusedrnn::cuda {

template <class C, class E, int samples> struct ResidentBackward {
  using A = Sum<E>;

  Residence residence;
  BackwardBlock<E> block;
  int end;  // the first step of the chunk, computed last
  int H;
  const E* weight_hh;
  A *dh_product, *dh_bypass, *dc;  // (B, H), in place

  struct Thread {
    ResidentWeights<E> weights;
    int sample, u, j, length;
    int row, row_before, row_before_that;  // of this step and the two before it in the tape
    // Of this step: the activated gates, h and c before it, c after it, and the gradient from above.
    A slots[slots_of<C>], h0, c0, c1, from_above;
    A bypass, dc;
  };

  static constexpr int threads = most_threads;  // of a block, at most: that leaves each 128 registers
  static constexpr int stride = -1;
  static constexpr bool is_one_step = false;
  FUSEDRNN_PHASE int first_step(int block_index) const {
    const int last = static_cast<int>(block.rows.length_of(block_index * samples)) - 1;
    return last < block.step ? last : static_cast<int>(block.step);
  }
  FUSEDRNN_PHASE int end_step(int) const { return end - 1; }

  FUSEDRNN_PHASE void begin(Thread& t, char* memory, int block_index, int thread, int threads) const {
    constexpr CellLayout layout = C::layout;
    const SharedMemory<E> shared(residence, memory, samples);
    t.weights.load(residence, WeightsBackward<E>{weight_hh, H}, thread, shared);
    FUSEDRNN_DO_NOT_UNROLL
    for (int i = thread; i < samples * shared.input_stride; i += threads) shared.inputs[i] = A(0);
    const int owned = thread / H;
    t.sample = samples == 1 ? 0 : owned;  // known to the compiler where it can be
    t.u = thread % H;
    t.j = block_index * samples + t.sample;
    t.length = 0;
    if (owned >= samples || t.j >= block.rows.batch) return;
    t.length = static_cast<int>(block.rows.length_of(t.j));
    const int64_t at = int64_t(t.j) * H + t.u;
    // The steps after this chunk have left the gradients of the state in memory, if the sample has such steps.
    const bool begun = block.step + 1 < t.length;
    t.bypass = begun ? dh_bypass[at] : A(0);
    t.dc = begun && layout.has_cell_state ? dc[at] : A(0);
    for (int slice = 0; slice < residence.slices; ++slice)
      shared.sums[(t.sample * residence.slices + slice) * residence.groups * outputs_each + t.u] =
          begun && slice == 0 ? dh_product[at] : A(0);
    const int own_first = t.length - 1 < block.step ? t.length - 1 : static_cast<int>(block.step);
    if (own_first < end) return;
    t.row = row_of(t, own_first);
    t.row_before = row_of(t, own_first - 1);
    t.row_before_that = row_of(t, own_first - 2);
    if (layout.has_cell_state) t.c0 = block.cells[int64_t(t.row) * H + t.u];
    load(t, own_first, t.row, t.row_before);
  }

  FUSEDRNN_PHASE void first(Thread& t, char* memory, int s) const {
    constexpr CellLayout layout = C::layout;
    const SharedMemory<E> shared(residence, memory, samples);
    if (s >= t.length) return;
    A slots[slots_of<C>];
    FUSEDRNN_UNROLL
    for (int slot = 0; slot < slots_of<C>; ++slot) slots[slot] = t.slots[slot];
    const A h0 = t.h0, c0 = t.c0, c1 = t.c1, from_above = t.from_above;
    if (s > end) load(t, s - 1, t.row_before, t.row_before_that);

    A dh = sum_of_slices<1>(residence, shared, t.sample, t.u).value[0] + t.bypass;
    if (s + 1 == t.length) {
      dh = state_at(block.dhn, block.rows.sample_of(t.j), t.u);
      if (layout.has_cell_state) t.dc = state_at(block.dcn, block.rows.sample_of(t.j), t.u);
    }
    t.bypass = C::backward(slots, h0, c0, c1, dh + from_above, t.dc);

    E* saved = block.gates + int64_t(t.row) * slots_of<C> * H + t.u;
    FUSEDRNN_UNROLL
    for (int slot = 0; slot < slots_of<C>; ++slot) {
      const int position = position_of_slot(layout, slot);
      const E dz = static_cast<E>(slots[slot]);
      if (position < layout.gates)
        shared.inputs[t.sample * shared.input_stride + position * H + t.u] = static_cast<A>(dz);
      saved[position * H] = dz;
    }
    t.row = t.row_before;
    t.row_before = t.row_before_that;
    t.row_before_that = row_of(t, s - 3);
  }

  FUSEDRNN_PHASE void second(Thread& t, char* memory, int) const {
    t.weights.template multiply<samples>(residence, SharedMemory<E>(residence, memory, samples));
  }

  FUSEDRNN_PHASE void finish(const Thread& t, char* memory) const {
    constexpr CellLayout layout = C::layout;
    if (t.length <= end) return;
    const SharedMemory<E> shared(residence, memory, samples);
    const int64_t at = int64_t(t.j) * H + t.u;
    dh_product[at] = sum_of_slices<1>(residence, shared, t.sample, t.u).value[0];
    dh_bypass[at] = t.bypass;
    if (layout.has_cell_state) dc[at] = t.dc;
  }

 private:
  FUSEDRNN_PHASE int time(const Thread& t, int s) const {
    return static_cast<int>(time_of(s, t.length, block.reverse));
  }
  // 0 for steps before the first, which nobody reads.
  FUSEDRNN_PHASE int row_of(const Thread& t, int s) const {
    return s < 0 ? 0 : static_cast<int>(block.rows.row(time(t, s), t.j));
  }

  // What step s reads of memory; c after it is c before the step that came last.
  FUSEDRNN_PHASE void load(Thread& t, int s, int row, int row_before) const {
    constexpr CellLayout layout = C::layout;
    const E* saved = block.gates + int64_t(row) * slots_of<C> * H + t.u;
    FUSEDRNN_UNROLL
    for (int slot = 0; slot < slots_of<C>; ++slot)
      t.slots[slot] = static_cast<A>(saved[position_of_slot(layout, slot) * H]);
    t.h0 = static_cast<A>(block.previous[int64_t(row) * H + t.u]);
    if (layout.has_cell_state) {
      t.c1 = t.c0;
      t.c0 = s > 0 ? block.cells[int64_t(row_before) * H + t.u] : block.c_start[int64_t(t.j) * H + t.u];
    }
    t.from_above = A(0);
    if (block.inner) t.from_above = block.inner[int64_t(row) * block.inner_width + t.u];
    if (block.dy.data) t.from_above = static_cast<A>(block.dy.at(row, time(t, s), block.rows.sample_of(t.j))[t.u]);
  }
};

}  // namespace fusedrnn::cuda
