// Rows of x and h in 8 bits, and what turns the integer sums of their products into values.
//
// A row is s q, with one scale s for the row and integers q. In 8 bits |q| <= 127. In 16 bits |q| <= 32639, and the row
// is two of the product: q = 256 high + low, rows of 8 bits with the scales 256 s and s, whose products are added one
// after the other.
#pragma once
#include "cpu/kernels/vec.h"
#if defined(FUSEDRNN_OPERAND_int8)
#include "cpu/kernels/quad.h"
#endif

namespace fusedrnn::FUSEDRNN_ISA {

constexpr int most_planes = 2;  // rows of 8 bits that a row may become

template <class E> struct Factors {
  FUSEDRNN_INLINE Vec<E> value(Vec<E> sum, int64_t /*row*/, int64_t /*column*/) const { return sum; }
};
template <> struct Factors<Pair> : Factors<float> {};

#if defined(FUSEDRNN_OPERAND_int8)
template <> struct Factors<Quad> {
  const float* rows;      // by row of the product
  const float* weights;   // (U, G, lanes): of the rows of the weights
  const int32_t* excess;  // (U, G, lanes): 128 times the sum of such a row, for the offset of x and h

  // column: (unit, gate, lane).
  FUSEDRNN_INLINE Vec<float> value(Vec<int32_t> sum, int64_t row, int64_t column) const {
    if constexpr (row_offset != 0) sum = sum - Vec<int32_t>::load(excess + column);
    const Vec<float> exact_or_nearest{__builtin_convertvector(sum.v, Vec<float>::Type)};
    return exact_or_nearest * (Vec<float>::load(weights + column) * Vec<float>(rows[row]));
  }
};

// The largest |x|, as the bits of a float: infinity or NaN where there is one.
FUSEDRNN_INLINE uint32_t largest_magnitude(const float* x, int64_t n) {
  using V = Vec<float>;
  V::Bits most{};
  for (int64_t i = 0; i < n; i += V::lanes) {
    const V::Bits bits = (V::Bits)load_within(x, i, n).v & 0x7FFFFFFF;
    most = bits > most ? bits : most;
  }
  alignas(FUSEDRNN_VECTOR_BYTES) int32_t lane[V::lanes];
  __builtin_memcpy(lane, &most, sizeof(lane));
  int32_t result = 0;
  for (int i = 0; i < V::lanes; ++i) result = lane[i] > result ? lane[i] : result;
  return static_cast<uint32_t>(result);
}

// Rounds a row to `planes` rows of 8 bits, `distance` bytes apart, each filled up to whole vectors, with their scales.
// A row with an infinity or a NaN gets a scale of NaN.
static __attribute__((noinline)) void quantize_row(const float* x, int64_t n, int planes, uint8_t* to, int64_t distance,
                                                   float* scales) {
  using V = Vec<float>;
  typedef uint8_t Bytes __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES / 4)));
  constexpr float smallest = 1e-30f;  // a row of less is zeros: the inverse of its scale would be infinite
  const uint32_t bits = largest_magnitude(x, n);
  float most;
  __builtin_memcpy(&most, &bits, sizeof(most));
  const float steps = planes == 1 ? 127.0f : 32639.0f;
  const bool finite = bits < 0x7F800000u, zeros = most < smallest;
  const float inverse = finite && !zeros ? steps / most : 0.0f;
  scales[0] = !finite ? __builtin_nanf("") : zeros ? 0.0f : most / steps;
  if (planes > 1) scales[1] = scales[0], scales[0] = 256.0f * scales[1];
  const V nearest_integer(12582912.0f);  // 1.5 * 2^23: adding it leaves q in the low bits
  for (int64_t i = 0; i < n; i += V::lanes) {
    const V::Bits q = (V::Bits)(load_within(x, i, n) * V(inverse) + nearest_integer).v;
    const V::Bits high = planes == 1 ? q : (q + 128) >> 8;
    const Bytes first = __builtin_convertvector((Vec<Quad>::Type)(high + row_offset), Bytes);
    __builtin_memcpy(to + i, &first, sizeof(first));
    if (planes == 1) continue;
    const Bytes second = __builtin_convertvector((Vec<Quad>::Type)(q + row_offset), Bytes);
    __builtin_memcpy(to + distance + i, &second, sizeof(second));
  }
}
#endif

}  // namespace fusedrnn::FUSEDRNN_ISA
