// Rows of x and h in 8 bits, and what turns the integer sums of their products into values. Included where the operands
// are Quads.
//
// A row is s q, with one scale s for the row and integers q. In 8 bits |q| <= 127. In 16 bits |q| <= 32639, and the row
// is two of the product: q = 256 high + low, rows of 8 bits with the scales 256 s and s, whose products are added one
// after the other.
#pragma once
#include "cpu/kernels/factors.h"
#include "cpu/kernels/quad.h"

namespace fusedrnn::FUSEDRNN_ISA {

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

FUSEDRNN_INLINE Vec<int32_t>::Type larger(Vec<int32_t>::Type a, Vec<int32_t>::Type b) {
#if defined(__AVX512F__)
  return (Vec<int32_t>::Type)_mm512_max_epi32((__m512i)a, (__m512i)b);
#else
  return a > b ? a : b;
#endif
}

// The largest |x|, as the bits of a float: infinity or NaN where there is one.
FUSEDRNN_INLINE int32_t largest_magnitude(const float* x, int64_t n) {
  using V = Vec<float>;
  constexpr int32_t magnitude = 0x7FFFFFFF;
  V::Bits most{};
  int64_t i = 0;
  for (; i + V::lanes <= n; i += V::lanes) most = larger(most, (V::Bits)V::load(x + i).v & magnitude);
  if (i < n) most = larger(most, (V::Bits)load_first(x + i, static_cast<int>(n - i)).v & magnitude);
#if defined(__AVX512F__)
  return _mm512_reduce_max_epi32((__m512i)most);
#else
  int32_t lane[V::lanes];
  __builtin_memcpy(lane, &most, sizeof(lane));
  for (int half = V::lanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] = lane[j] > lane[j + half] ? lane[j] : lane[j + half];
  return lane[0];
#endif
}

// The lowest byte of every lane. Of a conversion from 32 bits to 8 GCC makes 50 instructions.
FUSEDRNN_INLINE void store_lowest_bytes(Vec<Quad> q, uint8_t* p) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)q.v));
#elif defined(__x86_64__)
  const auto first_four = [](__m128i lanes) FUSEDRNN_BODY {
    return _mm_shuffle_epi8(lanes, _mm_setr_epi8(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12));
  };
#if defined(__AVX2__)
  const __m128i low = first_four(_mm256_castsi256_si128((__m256i)q.v));
  const __m128i high = first_four(_mm256_extracti128_si256((__m256i)q.v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(low, high));
#else
  const int bytes = _mm_cvtsi128_si32(first_four((__m128i)q.v));
  __builtin_memcpy(p, &bytes, sizeof(bytes));
#endif
#else
  const uint16x4_t halves = vmovn_u32((uint32x4_t)q.v);
  const uint32x2_t bytes = vreinterpret_u32_u8(vmovn_u16(vcombine_u16(halves, halves)));
  vst1_lane_u32(reinterpret_cast<uint32_t*>(p), bytes, 0);
#endif
}

// A row with an infinity or a NaN gets a scale of NaN.
void quantize_row(const float* x, int64_t n, int planes, uint8_t* to, int64_t distance, float* scales) {
  using V = Vec<float>;
  constexpr float smallest = 1e-30f;  // a row of less is zeros: the inverse of its scale would be infinite
  const int32_t bits = largest_magnitude(x, n);
  float most;
  __builtin_memcpy(&most, &bits, sizeof(most));
  const float steps = planes == 1 ? 127.0f : 32639.0f;
  const bool finite = bits < 0x7F800000, zeros = most < smallest;
  const V inverse(finite && !zeros ? steps / most : 0.0f);
  scales[0] = !finite ? __builtin_nanf("") : zeros ? 0.0f : most / steps;
  if (planes > 1) scales[1] = scales[0], scales[0] = 256.0f * scales[1];
  const V nearest_integer(12582912.0f);  // 1.5 * 2^23: adding it leaves q in the low bits
  const auto store = [](V::Bits q, uint8_t* p)
                         FUSEDRNN_BODY { store_lowest_bytes({(Vec<Quad>::Type)(q + row_offset)}, p); };
  const auto round = [&](V values, int64_t i) FUSEDRNN_BODY {
    const V::Bits q = (V::Bits)(values * inverse + nearest_integer).v;
    store(planes == 1 ? q : (q + 128) >> 8, to + i);
    if (planes > 1) store(q, to + distance + i);
  };
  int64_t i = 0;
  for (; i + V::lanes <= n; i += V::lanes) round(V::load(x + i), i);
  if (i < n) round(load_first(x + i, static_cast<int>(n - i)), i);
}

}  // namespace fusedrnn::FUSEDRNN_ISA
