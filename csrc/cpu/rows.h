// Where the rows of a Sequence lie in the caller's arrays. See core/sequence.h for the order of rows.
#pragma once
#include "core/sequence.h"
#include "cpu/tile.h"

namespace fusedrnn::FUSEDRNN_ISA {

FUSEDRNN_INLINE int64_t count(const Ragged& ragged, int64_t step) {
  return ragged.first[step + 1] - ragged.first[step];
}

template <class T> FUSEDRNN_INLINE int64_t time_of(const Sequence<T>& q, int64_t step, int64_t j) {
  return q.reverse ? q.ragged->length[j] - 1 - step : step;
}

template <class P, class T>
FUSEDRNN_INLINE P* row_of(const TimeMajorView<P>& view, const Sequence<T>& q, int64_t step, int64_t j) {
  return view.data + time_of(q, step, j) * view.step + q.ragged->sample[j] * view.batch;
}

// h before a step: the output of the step before it, or h0; null stands for zeros.
template <class T> FUSEDRNN_INLINE const T* previous_h(const Sequence<T>& q, int64_t step, int64_t j) {
  if (step > 0) return row_of(q.y, q, step - 1, j);
  return q.h0.data ? q.h0.data + q.ragged->sample[j] * q.h0.stride : nullptr;
}

// Walks rows in their order: (step, j) of consecutive rows.
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
