// The resident path forward: all steps of a chunk for the samples of one block. Between two barriers a block is in one
// of the phases below; a thread keeps its state from phase to phase in a Thread. CudaDevice::run_phases runs the phases
// with barriers between them, HostDevice::run_phases in a loop over the threads.
//
//   begin    W_hh into registers and shared memory, h of the samples into shared memory
//   first    multiply: partial sums of W_hh h
//   second   each thread that owns a (sample, unit): sums, gates, state; h into shared memory. All others wait for it
//   after    the same threads: y and the tape, and what the next steps read; nobody waits for that
//   finish   the state into memory, for the next chunk
//
// What a step needs of memory is asked for before: zx two steps (in float64 one), the rows of ragged batches three.
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

  static constexpr int ahead = steps_ahead(sizeof(E));
  // What a thread remembers. Sorted sample j and unit u are its own; length 0: it has none.
  struct Thread {
    ResidentWeights<E> weights;
    int u, j, caller, length;      // caller: the caller's number of sample j
    int row[ahead + 1];            // of this step and the next ones in the tape
    int zx_row;                    // of the last of them in zx
    A zx[ahead][C::layout.gates];  // of this step and the next one
    A slots[slots_of<C>], h, c;    // of this step, when it is done
    const A* part;                 // the unit's first partial sum
    A* operand;                    // h as the product reads it
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
    const SharedMemory<E> shared(residence, memory);
    t.weights.load(residence, WeightsForward<E>{weight_hh, H, layout.gates}, thread, shared);
    const int first = block_index * samples;
    FUSEDRNN_DO_NOT_UNROLL
    for (int i = thread; i < samples * shared.input_stride(residence); i += threads) {
      const int j = first + i / shared.input_stride(residence), u = i % shared.input_stride(residence);
      shared.inputs[i] = j < block.rows.batch && u < H ? rounded(h[int64_t(j) * H + u]) : A(0);
    }
    const int owned = thread / H, sample = samples == 1 ? 0 : owned;  // known to the compiler where it can be
    t.u = thread % H;
    t.j = first + sample;
    t.length = 0;
    t.part = first_part(residence, shared, sample, t.u * layout.gates);
    t.operand = shared.inputs + sample * shared.input_stride(residence) + t.u;
    if (owned >= samples || t.j >= block.rows.batch) return;
    t.length = static_cast<int>(block.rows.length_of(t.j));
    t.caller = static_cast<int>(block.rows.sample_of(t.j));
    const int64_t at = int64_t(t.j) * H + t.u;
    t.h = h[at];
    t.c = layout.has_cell_state ? c[at] : A(0);
    if (sample == 0) {
      Run<A, slots_of<C>> biases = {};
      unit(t).add_biases(block, biases.value);
      own_biases(t, shared) = biases;
    }
    const int s = first_step(block_index);
    FUSEDRNN_UNROLL
    for (int i = 0; i <= ahead; ++i) {
      look_up(t, s + i, i);
      if (i < ahead) load_projected(t, s + i, i);
    }
  }

  FUSEDRNN_PHASE void first(Thread& t, char*, int) const { t.weights.template multiply<samples>(residence); }

  FUSEDRNN_PHASE void second(Thread& t, char* memory, int s) const {
    if (s >= t.length) return;
    const SharedMemory<E> shared(residence, memory);
    Run<A, slots_of<C>> z = own_biases(t, shared);
    A zh[C::layout.gates] = {};
    add_slices<E>(residence, t.part, zh);
    Unit<C, E>::add_projected(t.zx[0], z.value);
    Unit<C, E>::add_product(zh, z.value);
    t.h = C::forward(z.value, t.h, t.c);
    *t.operand = rounded(t.h);
    FUSEDRNN_UNROLL
    for (int slot = 0; slot < slots_of<C>; ++slot) t.slots[slot] = z.value[slot];
  }

  FUSEDRNN_PHASE void after(Thread& t, int s) const {
    if (s >= t.length) return;
    FUSEDRNN_UNROLL
    for (int g = 0; g < C::layout.gates; ++g) t.zx[0][g] = t.zx[ahead - 1][g];
    load_projected(t, s + ahead, ahead - 1);
    const E out = static_cast<E>(t.h);
    if (block.y.data) block.y.at(t.row[0], time(t, s), t.caller)[t.u] = out;
    if (block.gates) unit(t).keep(block, t.row[0], t.slots, t.c, s + 1 < t.length, t.row[1], out);
    FUSEDRNN_UNROLL
    for (int i = 0; i < ahead; ++i) t.row[i] = t.row[i + 1];
    look_up(t, s + ahead + 1, ahead);
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

  FUSEDRNN_PHASE Unit<C, E> unit(const Thread& t) const { return {H, t.u}; }
  FUSEDRNN_PHASE static Run<A, slots_of<C>>& own_biases(const Thread& t, const SharedMemory<E>& shared) {
    return reinterpret_cast<Run<A, slots_of<C>>*>(shared.biases)[t.u];
  }
  FUSEDRNN_PHASE int time(const Thread& t, int s) const {
    return static_cast<int>(time_of(s, t.length, block.reverse));
  }

  // Where step s has its rows; `place` counts from the step under way.
  FUSEDRNN_PHASE void look_up(Thread& t, int s, int place) const {
    if (s >= t.length) return;
    const int time_of_step = time(t, s);
    t.row[place] = static_cast<int>(block.rows.row(time_of_step, t.j));
    t.zx_row = block.rows.first && block.reverse ? static_cast<int>(block.rows.row_in_order(s, time_of_step, t.j))
                                                 : t.row[place];
  }
  FUSEDRNN_PHASE void load_projected(Thread& t, int s, int place) const {
    if (s < t.length && s < end) unit(t).load_projected(block, t.zx_row, t.zx[place]);
  }
};

}  // namespace fusedrnn::cuda
