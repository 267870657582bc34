// The resident path backward: the steps of a chunk from the last to the first, for the samples of one block. Phases as
// in resident_forward.h:
//
//   begin    W_hh^T into registers and shared memory, gradients of the state from memory
//   first    each thread that owns a (sample, unit): dh from the partial sums, the cell; dz into shared memory. All
//            others wait for it
//   second   the same threads: dz into the tape, and what the next steps read; then all multiply: partial sums of
//            W_hh^T dz
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

  static constexpr int ahead = steps_ahead(sizeof(E));
  using Kept = typename Unit<C, E>::Kept;
  struct Thread {
    ResidentWeights<E> weights;
    int u, j, caller, length;  // as forward
    int row[ahead + 2];        // of this step and those before it in the tape
    Kept kept[ahead];          // of this step and the one before it
    A c1, bypass, dc;          // c1: c after this step
    const A* part;             // the unit's first partial sum
    A* operand;                // dz as the product reads it, H from gate to gate
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
    const SharedMemory<E> shared(residence, memory);
    t.weights.load(residence, WeightsBackward<E>{weight_hh, H}, thread, shared);
    FUSEDRNN_DO_NOT_UNROLL
    for (int i = thread; i < samples * shared.input_stride(residence); i += threads) shared.inputs[i] = A(0);
    const int owned = thread / H, sample = samples == 1 ? 0 : owned;  // known to the compiler where it can be
    t.u = thread % H;
    t.j = block_index * samples + sample;
    t.length = 0;
    t.part = first_part(residence, shared, sample, t.u);
    t.operand = shared.inputs + sample * shared.input_stride(residence) + t.u;
    if (owned >= samples || t.j >= block.rows.batch) return;
    t.length = static_cast<int>(block.rows.length_of(t.j));
    t.caller = static_cast<int>(block.rows.sample_of(t.j));
    const int64_t at = int64_t(t.j) * H + t.u;
    // The steps after this chunk have left the gradients of the state in memory, if the sample has such steps.
    const bool begun = block.step + 1 < t.length;
    t.bypass = begun ? dh_bypass[at] : A(0);
    t.dc = begun && layout.has_cell_state ? dc[at] : A(0);
    for (int slice = 0; slice < residence.slices; ++slice)
      first_part(residence, shared, sample, t.u)[slice * residence.groups * outputs_each] =
          begun && slice == 0 ? dh_product[at] : A(0);
    const int last = t.length - 1 < block.step ? t.length - 1 : static_cast<int>(block.step);
    if (last < end) return;
    FUSEDRNN_UNROLL
    for (int i = 0; i < ahead + 2; ++i) look_up(t, last - i, i);
    if (layout.has_cell_state) t.c1 = block.cells[unit(t).at(t.row[0])];
    FUSEDRNN_UNROLL
    for (int i = 0; i < ahead; ++i) load(t, last - i, i, t.row[i], t.row[i + 1]);
  }

  FUSEDRNN_PHASE void first(Thread& t, char*, int s) const {
    constexpr CellLayout layout = C::layout;
    if (s >= t.length) return;
    Kept& kept = t.kept[0];
    A dh;
    if (s + 1 == t.length) {
      dh = state_at(block.dhn, t.caller, t.u);
      if (layout.has_cell_state) t.dc = state_at(block.dcn, t.caller, t.u);
    } else {
      dh = product(t) + t.bypass;
    }
    t.bypass = C::backward(kept.slots, kept.h0, kept.c0, t.c1, dh + kept.above, t.dc);
    FUSEDRNN_UNROLL
    for (int slot = 0; slot < slots_of<C>; ++slot) {
      const int position = position_of_slot(layout, slot);
      if (position < layout.gates) t.operand[position * H] = static_cast<A>(static_cast<E>(kept.slots[slot]));
    }
  }

  FUSEDRNN_PHASE void second(Thread& t, char*, int s) const {
    if (s < t.length) {
      unit(t).put(block, t.row[0], t.kept[0].slots, [](int, E) {});
      t.c1 = t.kept[0].c0;
      t.kept[0] = t.kept[ahead - 1];
      load(t, s - ahead, ahead - 1, t.row[ahead], t.row[ahead + 1]);
      FUSEDRNN_UNROLL
      for (int i = 0; i < ahead + 1; ++i) t.row[i] = t.row[i + 1];
      look_up(t, s - ahead - 2, ahead + 1);
    }
    t.weights.template multiply<samples>(residence);
  }

  FUSEDRNN_PHASE void after(Thread&, int) const {}

  FUSEDRNN_PHASE void finish(const Thread& t, char*) const {
    constexpr CellLayout layout = C::layout;
    if (t.length <= end) return;
    const int64_t at = int64_t(t.j) * H + t.u;
    dh_product[at] = product(t);
    dh_bypass[at] = t.bypass;
    if (layout.has_cell_state) dc[at] = t.dc;
  }

 private:
  FUSEDRNN_PHASE Unit<C, E> unit(const Thread& t) const { return {H, t.u}; }
  FUSEDRNN_PHASE A product(const Thread& t) const {
    A sum[1] = {};
    add_slices<E>(residence, t.part, sum);
    return sum[0];
  }
  FUSEDRNN_PHASE int time(const Thread& t, int s) const {
    return static_cast<int>(time_of(s, t.length, block.reverse));
  }
  // Where step s has its row; `place` counts back from the step under way.
  FUSEDRNN_PHASE void look_up(Thread& t, int s, int place) const {
    if (s >= 0) t.row[place] = static_cast<int>(block.rows.row(time(t, s), t.j));
  }
  // What step s reads of memory, if it belongs to the chunk.
  FUSEDRNN_PHASE void load(Thread& t, int s, int place, int row, int before) const {
    if (s >= end) unit(t).load(block, row, before, s == 0, time(t, s), t.j, t.caller, t.kept[place]);
  }
};

}  // namespace fusedrnn::cuda
