// Arrays of float as elements of 16 bits, and back: for layers whose own arrays are wider than what they multiply.
#pragma once
#include "cuda/kernels/element.h"

namespace fusedrnn::cuda {

// n elements in rows of `width`: rounded to the nearest, or widened; with `add` to what is there.
template <class From, class To> struct Convert {
  const From* from;
  To* to;
  int64_t n, width;
  bool add;

  FUSEDRNN_BOTH void operator()(int64_t row, int64_t column) const {
    const int64_t i = row * width + column;
    if (i >= n) return;
    const float value = static_cast<float>(from[i]);
    to[i] = static_cast<To>(add ? static_cast<float>(to[i]) + value : value);
  }
};

}  // namespace fusedrnn::cuda
