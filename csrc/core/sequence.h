// What one direction of one recurrent layer computes, as plain data: pointers, sizes and strides (in elements).
// Shared by every backend and by code compiled for different ISAs: the few functions are inlined everywhere, or the
// linker might keep a copy that old processors cannot run.
//
//   T steps  B batch  I input size  H hidden size  R = sum of the lengths: the rows that are really computed
//
// Row order: samples are sorted by length, longest first. Step s then concerns the first count(s) of them, and the rows
// of all steps lie behind each other, (step, sorted sample). A reversed sequence walks each sample from its own end:
// step s of sample b is time length[b] - 1 - s instead of s.
#pragma once
#include <stdint.h>

#include "core/cell_list.h"

namespace fusedrnn {

#define FUSEDRNN_KIND(kind, formula, name) kind,
#define FUSEDRNN_ONE(kind, formula, name) +1
enum class CellKind { FUSEDRNN_CELLS(FUSEDRNN_KIND) };
constexpr int cell_count = FUSEDRNN_CELLS(FUSEDRNN_ONE);

// How a cell lays out its gates; each cell states it beside its formulas (cells/*.h).
struct CellLayout {
  int gates;           // G: blocks of H rows in W_ih and W_hh
  int slots;           // vectors saved per unit and step
  int input_slot;      // slots [input_slot, input_slot + G) are fed by W_ih x
  int recurrent_slot;  // slots [recurrent_slot, recurrent_slot + G) are fed by W_hh h
  int input_order[4];  // which block of W_ih feeds the g-th of these slots
  int recurrent_order[4];
  bool has_cell_state;  // c beside h
};

struct Ragged {
  int64_t steps;          // the longest length
  int64_t batch;          // B
  const int64_t* first;   // (steps + 1): row at which step s starts; first[steps] = R
  const int64_t* sample;  // (B): batch index of the j-th longest sample
  const int64_t* length;  // (B): its length
};

// Element (time t, sample b, feature i) at data[t*step + b*batch + i].
template <class T> struct TimeMajorView {
  T* data;
  int64_t step, batch;
};

// Row b of a (B, H) state at data[b*stride].
template <class T> struct StateView {
  T* data;
  int64_t stride;
};

template <class T> struct Sequence {
  int64_t I, H;
  int64_t widest_input;  // of the layers that use this workspace: threads may be in different ones at a time
  bool reverse;
  const Ragged* ragged;

  TimeMajorView<const T> x;   // (T, B, I)
  TimeMajorView<T> y;         // (T, B, H); written by forward, read by backward as the history of h
  StateView<const T> h0, c0;  // data may be null: zeros
  StateView<T> hn, cn;        // the state after each sample's last step

  // Weights packed for this ISA (cpu/pack.h); the transposed ones exist only for training.
  const T *input_weights, *recurrent_weights, *input_bias, *recurrent_bias;
  const T *input_weights_t, *recurrent_weights_t;

  // Kept for backward, null in inference. U = ceil(H / lanes) blocks of units.
  T* gates;  // (U, R, slots, lanes): activated gates; backward turns them into the gate gradients in place
  T* cells;  // (U, R, lanes): c of every step (LSTM)

  // Backward.
  TimeMajorView<const T> dy;    // data may be null: zeros
  StateView<const T> dhn, dcn;  // data may be null: zeros
  StateView<T> dh0, dc0;
  TimeMajorView<T> dx;  // data may be null: not wanted
  bool add_to_dx;       // the second direction adds to what the first one wrote
  T* dw;                // (U, I + 1, vectors, lanes): packed gradient of W_ih; row I is the bias
  T* dr;                // (U, H + 1, vectors, lanes): packed gradient of W_hh; row H is the bias

  T* workspace;  // shared by the team; size from CellKernels::workspace
};

// y = x W^T: x (rows, I) and y (rows, O) dense, W packed as panels of `lanes` outputs, (ceil(O / lanes), I, lanes).
template <class T> struct DenseProduct {
  int64_t rows, I, O;
  const T *x, *weights;
  T* y;
};

// The part of the work that one thread does, and how it meets the others.
struct Team {
  int rank, size;
  int64_t sample_begin, sample_end;  // sorted samples of this thread
  int64_t unit_begin, unit_end;      // blocks of units of this thread
  bool shares_steps;                 // units are split: everybody must have finished a step before the next one
  void* context;
  bool (*barrier)(void* context);  // false: somebody asked to stop
  bool (*poll)(void* context);     // the same question without waiting

  // Where another thread runs the layer below, or above: wait until x holds this many steps; say that y does. Null
  // where x is complete, or nobody waits for y.
  bool (*await_input)(void* context, int64_t steps) = nullptr;
  void (*publish_output)(void* context, int64_t steps) = nullptr;
  inline __attribute__((always_inline)) bool follows_closely() const { return await_input || publish_output; }

  // Of n equal pieces of work, those that are this thread's.
  struct Share {
    int64_t begin, end;
  };
  inline __attribute__((always_inline)) Share share(int64_t n) const {
    return {n * rank / size, n * (rank + 1) / size};
  }
};

}  // namespace fusedrnn
