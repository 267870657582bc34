// What one direction of one recurrent layer computes, as plain data: pointers, sizes and strides (in elements).
// Shared by every backend and by code compiled for different ISAs.
//
//   T steps  B batch  I input size  H hidden size  P size of h  R = sum of the lengths: the rows really computed
//
// P is H, but for an LSTM with a projection, h = W_hr (o tanh c).
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

// What has been drawn for a call in training; data may be null: 1, or 0 of zoneout.
template <class T> struct Noise {
  StateView<const T> h_factor;            // (B, P): of h where W_hh reads it
  TimeMajorView<const T> g_factor;        // (T, B, H): of the candidate
  TimeMajorView<const T> h_zone, c_zone;  // (T, B, H): 1 where h or c stays what it was
};

template <class T> struct Sequence {
  int64_t I, H, P;
  int64_t widest_input;  // of the layers that use this workspace: threads may be in different ones at a time
  bool reverse;
  const Ragged* ragged;

  TimeMajorView<const T> x;   // (T, B, I)
  TimeMajorView<T> y;         // (T, B, P); written by forward, read by backward as the history of h
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
  // W_hr as panels (P / lanes, H, lanes), and transposed (U, P, lanes); null without a projection.
  const T *projection, *projection_t;

  // With layer normalisation, by blocks of units and in the order of the slots: gain and bias of W_ih x, gain and bias
  // of W_hh h, (U, G, lanes) each; of c, (U, lanes) each. Else null.
  const T* norm;

  const Noise<T>* noise;  // of a varied cell in training; else null

  // Kept for backward, null in inference.
  T* gates;  // (U, R, slots, lanes): activated gates; backward turns them into the gate gradients in place
  T* cells;  // (U, R, lanes): c of every step (LSTM); with a projection backward leaves o tanh(c) there

  T* normalised;  // (R, norm_row_size): with layer normalisation, what it has made of a row

  // Backward.
  TimeMajorView<const T> dy;    // (T, B, P); data may be null: zeros
  StateView<const T> dhn, dcn;  // data may be null: zeros
  StateView<T> dh0, dc0;
  TimeMajorView<T> dx;  // data may be null: not wanted
  bool add_to_dx;       // the second direction adds to what the first one wrote
  // The gradients of what the products make, as gates lie: gates itself, but for layer normalisation between them.
  T *input_dz, *recurrent_dz;
  T* dnormalised_c;  // (R, U, lanes): with layer normalisation, the gradient of c as h reads it
  T* dnorm;          // (U, 4 G + 2, lanes): of gains and biases, as in norm, but all of a block together
  T* dw;             // (U, I + 1, vectors, lanes): packed gradient of W_ih; row I is the bias
  T* dr;             // (U, P + 1, vectors, lanes): packed gradient of W_hh; row P is the bias
  T* dpeephole;      // (3, U, lanes)
  T* dh;             // (P / lanes, R, lanes): dL/dh of every step, with a projection
  T* dprojection;    // (P / lanes, H + 1, lanes): packed gradient of W_hr; its last row is not used

  T* workspace;  // of all threads; size from CellKernels::workspace
};

// Of one row: G vectors of W_ih x for each block of units and as many of W_hh h, one of c, all with mean 0 and variance
// 1; what each of up to five groups was multiplied by.
FUSEDRNN_INLINE int64_t norm_row_size(int64_t units, int64_t gates, int64_t lanes) {
  return (2 * gates + 1) * units * lanes + 8;
}

}  // namespace fusedrnn
