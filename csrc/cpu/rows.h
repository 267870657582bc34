// Passes over rows that a training step makes outside the kernels. They wait for memory, so that the baseline will do.
#pragma once
#include <cstdint>

namespace fusedrnn {

// table[rows[i]] += values[i] for i = 0, 1, ..., each `width` elements: the bits do not depend on anything else.
template <class T>
void add_rows(T* table, int64_t width, const int64_t* rows, int64_t count, const T* values) noexcept;

// Softmax cross-entropy of `count` rows of logits, around an exp that the caller computes of all `shifted`.
template <class T> struct SoftmaxRows {
  int64_t count, size;
  const int64_t* chosen;  // the class of each row, in [0, size)
  T* shifted;             // count x size
  T* losses;              // of each row
};

// shifted = x - max x,  loss = -shifted[chosen]. `x` may be `shifted`.
template <class T> void begin_softmax(const SoftmaxRows<T>& rows, const T* x) noexcept;

// With e = exp(shifted) in its place:  loss += log(sum e),  shifted = weight (e / sum e - [is chosen]), where weight is
// factors[row] scale, or scale without factors.
template <class T> void end_softmax(const SoftmaxRows<T>& rows, const T* factors, T scale) noexcept;

}  // namespace fusedrnn
