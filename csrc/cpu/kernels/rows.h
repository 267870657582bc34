// Where the rows of a Sequence lie in the caller's arrays. See core/ragged.h for their order.
#pragma once
#include "core/sequence.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class P, class T>
FUSEDRNN_INLINE P* row_of(const TimeMajorView<P>& view, const Sequence<T>& seq, int64_t step, int64_t j) {
  const Ragged& ragged = *seq.ragged;
  const int64_t t = ragged.begin[j] + time_of(step, ragged.length[j], seq.reverse), b = ragged.sample[j];
  if (ragged.packed) return view.data + (ragged.packed[t] + b) * view.batch;
  return view.data + t * view.step + b * view.batch;
}

// h before a step: the output of the step before it, or h0; null stands for zeros.
template <class T> FUSEDRNN_INLINE const T* previous_h(const Sequence<T>& seq, int64_t step, int64_t j) {
  if (step > 0) return row_of(seq.y, seq, step - 1, j);
  return seq.h0.data ? seq.h0.data + seq.ragged->state[j] * seq.h0.stride : nullptr;
}

// What the h of a sample is multiplied by where W_hh reads it; null: by 1.
template <class T> FUSEDRNN_INLINE const T* factor_row(const Sequence<T>& seq, int64_t j) {
  if (!seq.noise || !seq.noise->h_factor.data) return nullptr;
  return seq.noise->h_factor.data + seq.ragged->sample[j] * seq.noise->h_factor.stride;
}

// Passes over rows in their order: (step, j) of consecutive rows.
struct RowCursor {
  const Ragged* ragged;
  int64_t step, row;
  FUSEDRNN_INLINE RowCursor(const Ragged* r, int64_t first_row) : ragged(r), step(0), row(first_row) {
    int64_t low = 0, high = r->steps;  // last step with first[step] <= row
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (r->first[middle] <= row ? low : high) = middle;
    }
    step = low;
  }
  FUSEDRNN_INLINE int64_t sample() const { return row - ragged->first[step]; }
  FUSEDRNN_INLINE void advance() {
    if (++row >= ragged->first[step + 1]) ++step;
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
