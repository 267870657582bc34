// c + the products of four pairs of integers: exact, and the same with every instruction.
#pragma once
#include "cpu/kernels/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

// VNNI takes the row without a sign: row_offset makes it so, and is taken off the sum again (Factors).
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr int row_offset = 128;
#else
constexpr int row_offset = 0;
#endif
template <> constexpr bool multiplies_at_once<Quad> = row_offset != 0;

#if defined(__AVX512VNNI__)
FUSEDRNN_INLINE Vec<int32_t> fma(Vec<Quad> row, Vec<Quad> weights, Vec<int32_t> c) {
  return {(Vec<int32_t>::Type)_mm512_dpbusd_epi32((__m512i)c.v, (__m512i)row.v, (__m512i)weights.v)};
}
#elif defined(__AVXVNNI__)
FUSEDRNN_INLINE Vec<int32_t> fma(Vec<Quad> row, Vec<Quad> weights, Vec<int32_t> c) {
  return {(Vec<int32_t>::Type)_mm256_dpbusd_avx_epi32((__m256i)c.v, (__m256i)row.v, (__m256i)weights.v)};
}
#elif defined(__AVX512F__)
// Bytes 1 and 3 of each Quad, then 0 and 2, as 16 bits.
FUSEDRNN_INLINE Vec<int32_t> fma(Vec<Quad> row, Vec<Quad> weights, Vec<int32_t> c) {
  typedef int16_t Halves __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
  using Sums = Vec<int32_t>::Type;
  const Halves a = (Halves)row.v, b = (Halves)weights.v;
  const Sums odd = (Sums)_mm512_madd_epi16((__m512i)(a >> 8), (__m512i)(b >> 8));
  const Sums even = (Sums)_mm512_madd_epi16((__m512i)(a << 8 >> 8), (__m512i)(b << 8 >> 8));
  return {c.v + odd + even};
}
#elif defined(__AVX2__)
// Both sides are at most 127 in magnitude, and the sign of the row moves to the weights: so the sum of two products,
// at most 32258, is not saturated.
FUSEDRNN_INLINE Vec<int32_t> fma(Vec<Quad> row, Vec<Quad> weights, Vec<int32_t> c) {
  const __m256i a = (__m256i)row.v, b = _mm256_sign_epi8((__m256i)weights.v, a);
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), b);
  return {c.v + (Vec<int32_t>::Type)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))};
}
#elif defined(__x86_64__)
FUSEDRNN_INLINE Vec<int32_t> fma(Vec<Quad> row, Vec<Quad> weights, Vec<int32_t> c) {
  const __m128i a = (__m128i)row.v, b = _mm_sign_epi8((__m128i)weights.v, a);
  const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(a), b);
  return {c.v + (Vec<int32_t>::Type)_mm_madd_epi16(pairs, _mm_set1_epi16(1))};
}
#elif defined(__ARM_FEATURE_DOTPROD)
FUSEDRNN_INLINE Vec<int32_t> fma(Vec<Quad> row, Vec<Quad> weights, Vec<int32_t> c) {
  return {(Vec<int32_t>::Type)vdotq_s32((int32x4_t)c.v, (int8x16_t)row.v, (int8x16_t)weights.v)};
}
#else
FUSEDRNN_INLINE Vec<int32_t> fma(Vec<Quad> row, Vec<Quad> weights, Vec<int32_t> c) {
  const int8x16_t a = (int8x16_t)row.v, b = (int8x16_t)weights.v;
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
  const int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(b)));
  return {c.v + (Vec<int32_t>::Type)vpaddq_s32(low, high)};
}
#endif

}  // namespace fusedrnn::FUSEDRNN_ISA
