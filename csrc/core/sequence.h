// What one direction of one recurrent layer computes, as plain data: pointers, sizes and strides (in elements).
// Shared by every backend and by code compiled for different ISAs.
//
//   T steps  B batch  I input size  H hidden size  R = sum of the lengths: the rows that are really computed
//
// Rows lie in the order of core/ragged.h.
#pragma once
#include <stdint.h>

#include "core/cell_options.h"
#include "core/ragged.h"

namespace fusedrnn {

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

  // Of weights in 8 bits, (U, G, lanes): what a row of them is multiplied by, and 128 times its sum. Else null.
  const T *input_scales, *recurrent_scales;
  const int32_t *input_excess, *recurrent_excess;
  int input_planes;  // bytes that a value of x is rounded to (cpu/kernels/quantized.h)

  // Of a varied cell; else null. U = ceil(H / lanes) blocks of units.
  const CellOptions<T>* options;
  const T* peephole;  // (3, U, lanes): of i, f, o; null without peepholes

  // Kept for backward, null in inference.
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
  T* dpeephole;         // (3, U, lanes)

  T* workspace;  // of all threads; size from CellKernels::workspace
};

}  // namespace fusedrnn
