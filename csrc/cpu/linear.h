// The product of linear layers.
#pragma once
#include <cstdint>

#include "cpu/threads/region.h"

namespace fusedrnn {

// y (rows, O) = x (rows, I) W^T; element (o, i) of W at weight[o*row + i*column].
template <class T> struct LinearCall {
  int64_t rows, I, O;
  const T *x, *weight;
  int64_t row, column;
  T* y;
};
template <class T> void run_linear(const LinearCall<T>& call, const Interrupt& interrupt);

}  // namespace fusedrnn
