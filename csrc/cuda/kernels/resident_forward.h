// The resident path forward: all steps of a chunk for the samples of one block. Between two barriers a block is in one
// of the phases below; a thread keeps its state from phase to phase in a Thread. CudaDevice::run_phases runs the phases
// with barriers between them, HostDevice::run_phases in a loop over the threads.
//
//   begin    W_hh into registers and shared memory, h of the samples into shared memory
//   first    multiply: partial sums of W_hh h
//   second   each thread that owns a (sample, unit): sums, gates, state; h into shared memory; y and the tape
//   finish   the state into memory, for the next chunk
//
// What a step needs of memory (zx, rows) is asked for a step before.
//
// Cost of a step, estimated for an H100 and not measured: LSTM, float, H = 64, one sample a block. 256 threads in 8
// warps, 2 a scheduler, 64 weights in registers each; 16384 FMAs, 128 a cycle: 128 cycles, which hide 4 loads of 16
// bytes per thread; ~60 for latencies at both ends of them; barriers 2 x ~25; 16 partial sums ~60; a sigmoid and two
// tanh in a row ~170; h to shared memory ~20. Sum ~500 cycles, 0.3 us at 1.7 GHz, of which the arithmetic of W_hh h is
// a quarter: a second sample of the block adds 128 cycles and not 500. At H = 128 half of the weights come from shared
// memory, 128 KiB at 128 bytes a cycle: ~1000 cycles more.
#pragma once
#include "cuda/kernels/resident_weights.h"
#include "cuda/kernels/steps.h"

namespace fusedrnn::cuda {

template <class C, class E, int samples> struct ResidentForward {
  using A = Sum<E>;

  Residence residence;
  ForwardBlock<E> block;
  int end;  // the step after the last of the chunk
  int H;
  const E* weight_hh;
  A *h, *c;  // (B, H): the state, in place

  // What a thread remembers. Sorted sample j and unit u are its own; length 0: it has none.
  struct Thread {
    ResidentWeights<E> weights;
    int sample, u, j, length;
    int row, next_row;      // of this step and the next one in the tape
    int next_zx;            // row of the next step in zx
    A zx[C::layout.gates];  // of this step
    A h, c;
  };

  // The steps of a block of threads: begin, begin + stride, ... before end.
  static constexpr int threads = most_threads;  // of a block, at most: that leaves each 128 registers
  static constexpr int stride = 1;
  static constexpr bool is_one_step = false;
  FUSEDRNN_PHASE int first_step(int) const { return static_cast<int>(block.step); }
  FUSEDRNN_PHASE int end_step(int block_index) const {
    const int longest = static_cast<int>(block.rows.length_of(block_index * samples));
    return longest < end ? longest : end;
  }

  FUSEDRNN_PHASE void begin(Thread& t, char* memory, int block_index, int thread, int threads) const {
    constexpr CellLayout layout = C::layout;
    const SharedMemory<E> shared(residence, memory, samples);
    t.weights.load(residence, WeightsForward<E>{weight_hh, H, layout.gates}, thread, shared);
    const int first = block_index * samples;
    FUSEDRNN_DO_NOT_UNROLL
    for (int i = thread; i < samples * shared.input_stride; i += threads) {
      const int j = first + i / shared.input_stride, u = i % shared.input_stride;
      shared.inputs[i] = j < block.rows.batch && u < H ? rounded(h[int64_t(j) * H + u]) : A(0);
    }
    const int owned = thread / H;
    t.sample = samples == 1 ? 0 : owned;  // known to the compiler where it can be
    t.u = thread % H;
    t.j = first + t.sample;
    t.length = 0;
    if (owned >= samples || t.j >= block.rows.batch) return;
    t.length = static_cast<int>(block.rows.length_of(t.j));
    const int64_t at = int64_t(t.j) * H + t.u;
    t.h = h[at];
    t.c = layout.has_cell_state ? c[at] : A(0);
    A biases[slots_of<C>] = {};
    for (int g = 0; g < layout.gates; ++g) {
      if (block.bias_hh)
        biases[layout.recurrent_slot + g] += static_cast<A>(block.bias_hh[layout.recurrent_order[g] * H + t.u]);
      if (block.bias_ih)
        biases[layout.input_slot + g] += static_cast<A>(block.bias_ih[layout.input_order[g] * H + t.u]);
    }
    for (int slot = 0; slot < slots_of<C>; ++slot)
      if (t.sample == 0) shared.biases[t.u * slots_of<C> + slot] = biases[slot];
    const int s = first_step(block_index);
    look_ahead(t, s);
    t.row = t.next_row;
    if (s < t.length) load_zx(t, t.next_zx);
    look_ahead(t, s + 1);
  }

  FUSEDRNN_PHASE void first(Thread& t, char* memory, int) const {
    t.weights.template multiply<samples>(residence, SharedMemory<E>(residence, memory, samples));
  }

  FUSEDRNN_PHASE void second(Thread& t, char* memory, int s) const {
    constexpr CellLayout layout = C::layout;
    const SharedMemory<E> shared(residence, memory, samples);
    if (s >= t.length) return;
    auto [slots] = reinterpret_cast<const Run<A, slots_of<C>>*>(shared.biases)[t.u];
    FUSEDRNN_UNROLL
    for (int g = 0; g < layout.gates; ++g) slots[layout.input_slot + g] += t.zx[g];
    const bool goes_on = s + 1 < t.length;
    if (goes_on && s + 1 < end) load_zx(t, t.next_zx);
    const auto zh = sum_of_slices<layout.gates>(residence, shared, t.sample, t.u * layout.gates);
    FUSEDRNN_UNROLL
    for (int g = 0; g < layout.gates; ++g) slots[layout.recurrent_slot + g] += zh.value[layout.recurrent_order[g]];

    t.h = C::forward(slots, t.h, t.c);
    shared.inputs[t.sample * shared.input_stride + t.u] = rounded(t.h);

    const E out = static_cast<E>(t.h);
    if (block.y.data) block.y.at(t.row, time(t, s), block.rows.sample_of(t.j))[t.u] = out;
    if (block.gates) {
      FUSEDRNN_UNROLL
      for (int slot = 0; slot < slots_of<C>; ++slot)
        block.gates[(int64_t(t.row) * slots_of<C> + position_of_slot(layout, slot)) * H + t.u] =
            static_cast<E>(slots[slot]);
      if (layout.has_cell_state) block.cells[int64_t(t.row) * H + t.u] = t.c;
      if (goes_on) block.previous[int64_t(t.next_row) * H + t.u] = out;
    }
    t.row = t.next_row;
    look_ahead(t, s + 2);
  }

  FUSEDRNN_PHASE void finish(const Thread& t, char*) const {
    constexpr CellLayout layout = C::layout;
    if (t.length == 0) return;
    const int64_t at = int64_t(t.j) * H + t.u;
    h[at] = t.h;
    if (layout.has_cell_state) c[at] = t.c;
  }

 private:
  // h as the product reads it.
  FUSEDRNN_PHASE static A rounded(A value) { return static_cast<A>(static_cast<E>(value)); }

  FUSEDRNN_PHASE int time(const Thread& t, int s) const {
    return static_cast<int>(time_of(s, t.length, block.reverse));
  }
  FUSEDRNN_PHASE int row_of(const Thread& t, int s) const { return static_cast<int>(block.rows.row(time(t, s), t.j)); }

  FUSEDRNN_PHASE void load_zx(Thread& t, int64_t row) const {
    constexpr CellLayout layout = C::layout;
    const A* zx = block.zx + (row - block.zx_origin) * layout.gates * H + t.u;
    FUSEDRNN_UNROLL
    for (int g = 0; g < layout.gates; ++g) t.zx[g] = zx[layout.input_order[g] * H];
  }
  FUSEDRNN_PHASE void look_ahead(Thread& t, int next) const {
    if (next >= t.length) return;
    t.next_row = row_of(t, next);
    t.next_zx = block.rows.first && block.reverse ? static_cast<int>(block.rows.first[next]) + t.j : t.next_row;
  }
};

}  // namespace fusedrnn::cuda
