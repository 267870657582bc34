// What makes values of the sums of a product: nothing, but for integers (cpu/kernels/quantized.h).
#pragma once
#include "cpu/kernels/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class E> struct Factors {
  FUSEDRNN_INLINE Vec<E> value(Vec<E> sum, int64_t /*row*/, int64_t /*column*/) const { return sum; }
};
template <> struct Factors<Pair> : Factors<float> {};
template <> struct Factors<Quad>;

// Rounds a row of n values to `planes` rows of 8 bits, `distance` bytes apart, each filled up to whole vectors, with
// their scales.
constexpr int most_planes = 2;
void quantize_row(const float* x, int64_t n, int planes, uint8_t* to, int64_t distance, float* scales);

}  // namespace fusedrnn::FUSEDRNN_ISA
