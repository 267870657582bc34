// Vec<T>: one hardware vector of T, and the few operations that the kernels need. Arithmetic is written with the
// GCC/Clang vector extensions; intrinsics appear only where those cannot say it (fused multiply-add, partial access).
//
// This header is compiled once per ISA inside its own namespace: it uses no STL and emits no symbol of its own,
// so that AVX-512 code can never be linked into the baseline.
#pragma once
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/inline.h"

#define FUSEDRNN_BODY __attribute__((always_inline))  // of a lambda

namespace fusedrnn::FUSEDRNN_ISA {

FUSEDRNN_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FUSEDRNN_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The native types stand in full specialisations because GCC mixes up vector types that depend on a template parameter.
template <class T> struct Native;
template <> struct Native<float> {
  typedef float Type __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
  typedef int32_t Bits __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
  static constexpr int mantissa_bits = 23;
};
template <> struct Native<double> {
  typedef double Type __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
  typedef int64_t Bits __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
  static constexpr int mantissa_bits = 52;
};

// Two adjacent bfloat16, the upper halves of two floats; the one with the lower index in the low half.
struct __attribute__((may_alias)) Pair {
  uint32_t bits;
};
template <> struct Native<Pair> {
  typedef uint32_t Type __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
  typedef uint32_t Bits __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
};

// Four adjacent integers of 8 bits, the one with the lowest index in the lowest bits. Those of x and h have row_offset
// added (cpu/kernels/quad.h).
struct __attribute__((may_alias)) Quad {
  uint32_t bits;
};
template <> struct Native<Quad> : Native<Pair> {};
template <> struct Native<int32_t> {
  typedef int32_t Type __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
  typedef int32_t Bits __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES)));
};

// What the products multiply: T itself, Pair or Quad, which count k in steps of two and four. Pairs are added up in
// float; the sums of Quads are integers, which scales turn into values.
template <class E> struct Operand {
  using Sum = E;
  using Value = E;
  static constexpr int values = 1;
  static FUSEDRNN_INLINE E broadcast(E x) { return x; }
};
template <> struct Operand<Pair> {
  using Sum = float;
  using Value = float;
  static constexpr int values = 2;
  static FUSEDRNN_INLINE uint32_t broadcast(Pair x) { return x.bits; }
};
template <> struct Operand<Quad> {
  using Sum = int32_t;
  using Value = float;
  static constexpr int values = 4;
  static FUSEDRNN_INLINE uint32_t broadcast(Quad x) { return x.bits; }
};
template <class E> constexpr bool is_quantized = Operand<E>::values == 4;
template <class E> constexpr bool multiplies_at_once = true;  // its product takes no registers beside the operands

// What the caller keeps in the storage of T, weights or gate gradients, as the operands of a product.
template <class E, class T> FUSEDRNN_INLINE const E* operands(const T* storage) {
  return reinterpret_cast<const E*>(storage);
}

template <class T> struct Vec {
  using Scalar = T;
  static constexpr int lanes = FUSEDRNN_VECTOR_BYTES / sizeof(T);
  using Type = typename Native<T>::Type;
  using Bits = typename Native<T>::Bits;
  Type v;

  Vec() = default;
  FUSEDRNN_INLINE Vec(Type native) : v(native) {}
  FUSEDRNN_INLINE Vec(T scalar) : v(Operand<T>::broadcast(scalar) - Type{}) {}

  FUSEDRNN_INLINE static Vec load(const T* p) {
    Vec out;
    __builtin_memcpy(&out.v, p, sizeof(Type));
    return out;
  }
  FUSEDRNN_INLINE void store(T* p) const { __builtin_memcpy(p, &v, sizeof(Type)); }

  FUSEDRNN_INLINE Vec operator+(Vec b) const { return v + b.v; }
  FUSEDRNN_INLINE Vec operator-(Vec b) const { return v - b.v; }
  FUSEDRNN_INLINE Vec operator*(Vec b) const { return v * b.v; }
  FUSEDRNN_INLINE Vec operator/(Vec b) const { return v / b.v; }
};

// The same value, about which the compiler knows nothing. It loads a vector from memory once instead of for each of its
// uses, and an address is computed where it is used instead of in a register of its own.
#if defined(__AVX512F__)
#define FUSEDRNN_VECTOR_REGISTER "v"
#elif defined(__x86_64__)
#define FUSEDRNN_VECTOR_REGISTER "x"
#else
#define FUSEDRNN_VECTOR_REGISTER "w"
#endif
template <class T> FUSEDRNN_INLINE Vec<T> opaque(Vec<T> x) {
  __asm__("" : "+" FUSEDRNN_VECTOR_REGISTER(x.v));
  return x;
}
template <class T> FUSEDRNN_INLINE const T* opaque(const T* x) {
  __asm__("" : "+r"(x));
  return x;
}

// fma(a, b, c) = a*b + c in one rounding; mul then add on x86-64-v2, which has no such instruction.
#if defined(__FMA__) || defined(__aarch64__)
constexpr bool has_fma = true;
#else
constexpr bool has_fma = false;
#endif
#if defined(__AVX512F__)
FUSEDRNN_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm512_fmadd_pd(a.v, b.v, c.v)};
}
FUSEDRNN_INLINE Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE Vec<double> fnma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm512_fnmadd_pd(a.v, b.v, c.v)};
}
#elif defined(__FMA__)
FUSEDRNN_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm256_fmadd_pd(a.v, b.v, c.v)};
}
FUSEDRNN_INLINE Vec<float> fnma(Vec<float> a, Vec<float> b, Vec<float> c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
FUSEDRNN_INLINE Vec<double> fnma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {_mm256_fnmadd_pd(a.v, b.v, c.v)};
}
#elif defined(__aarch64__)
FUSEDRNN_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return {(Vec<float>::Type)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v)};
}
FUSEDRNN_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return {(Vec<double>::Type)vfmaq_f64((float64x2_t)c.v, (float64x2_t)a.v, (float64x2_t)b.v)};
}
template <class T> FUSEDRNN_INLINE Vec<T> fnma(Vec<T> a, Vec<T> b, Vec<T> c) { return fma(Vec<T>{-a.v}, b, c); }
#else
template <class T> FUSEDRNN_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) { return a * b + c; }
template <class T> FUSEDRNN_INLINE Vec<T> fnma(Vec<T> a, Vec<T> b, Vec<T> c) { return c - a * b; }
#endif

// min and max that let NaN through: like minps and maxps, they return x where either operand is NaN.
#if defined(__AVX512F__)
FUSEDRNN_INLINE Vec<float> at_most(Vec<float> x, float high) { return {_mm512_min_ps(Vec<float>(high).v, x.v)}; }
FUSEDRNN_INLINE Vec<double> at_most(Vec<double> x, double high) { return {_mm512_min_pd(Vec<double>(high).v, x.v)}; }
FUSEDRNN_INLINE Vec<float> at_least(Vec<float> x, float low) { return {_mm512_max_ps(Vec<float>(low).v, x.v)}; }
FUSEDRNN_INLINE Vec<double> at_least(Vec<double> x, double low) { return {_mm512_max_pd(Vec<double>(low).v, x.v)}; }
#elif defined(__AVX2__)
FUSEDRNN_INLINE Vec<float> at_most(Vec<float> x, float high) { return {_mm256_min_ps(Vec<float>(high).v, x.v)}; }
FUSEDRNN_INLINE Vec<double> at_most(Vec<double> x, double high) { return {_mm256_min_pd(Vec<double>(high).v, x.v)}; }
FUSEDRNN_INLINE Vec<float> at_least(Vec<float> x, float low) { return {_mm256_max_ps(Vec<float>(low).v, x.v)}; }
FUSEDRNN_INLINE Vec<double> at_least(Vec<double> x, double low) { return {_mm256_max_pd(Vec<double>(low).v, x.v)}; }
#else
template <class T> FUSEDRNN_INLINE Vec<T> at_most(Vec<T> x, T high) {
  const Vec<T> limit(high);
  return {limit.v < x.v ? limit.v : x.v};
}
template <class T> FUSEDRNN_INLINE Vec<T> at_least(Vec<T> x, T low) {
  const Vec<T> limit(low);
  return {limit.v > x.v ? limit.v : x.v};
}
#endif

// x where gate > 0, else 0.
template <class T> FUSEDRNN_INLINE Vec<T> where_positive(Vec<T> gate, Vec<T> x) {
  const Vec<T> zero(T(0));
  x.v = gate.v > zero.v ? x.v : zero.v;
  return x;
}

// x where gate > 0, else other.
template <class T> FUSEDRNN_INLINE Vec<T> where_or(Vec<T> gate, Vec<T> x, Vec<T> other) {
  const Vec<T> zero(T(0));
  return {gate.v > zero.v ? x.v : other.v};
}

// x, but 0 where y is one of two values.
template <class T> FUSEDRNN_INLINE Vec<T> where_unlike(Vec<T> y, T low, T high, Vec<T> x) {
  const Vec<T> zero(T(0)), a(low), b(high);
  return {((y.v == a.v) | (y.v == b.v)) ? zero.v : x.v};
}

// unit 2^n, where n stands in the low bits of `shifted` (see exp_plus in vmath.h) and unit is a power of two.
template <class T> FUSEDRNN_INLINE Vec<T> power_of_two(Vec<T> shifted, T unit) {
  using V = Vec<T>;
  const V from(unit);
  return {(typename V::Type)(((typename V::Bits)shifted.v << Native<T>::mantissa_bits) + (typename V::Bits)from.v)};
}

// c + a1 b1 + a0 b0: two fused multiply-adds, the upper half first, as AVX512_BF16 documents its instruction. The
// product of two bfloat16 is exact in float.
FUSEDRNN_INLINE Vec<float> fma(Vec<Pair> a, Vec<Pair> b, Vec<float> c) {
#if defined(__AVX512BF16__)
  return {_mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v)};
#else
  using V = Vec<float>;
  constexpr uint32_t upper = 0xFFFF0000u;
  c = fma(V((V::Type)(a.v & upper)), V((V::Type)(b.v & upper)), c);
  return fma(V((V::Type)(a.v << 16)), V((V::Type)(b.v << 16)), c);
#endif
}

// The nearest bfloat16, ties to even, in the low half of each lane; NaN becomes the quiet NaN.
FUSEDRNN_INLINE Vec<Pair> rounded(Vec<float> x) {
  using U = Vec<Pair>::Type;
  const U bits = (U)x.v, nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  return {(U)(x.v != x.v) ? U{} + 0x7FC0 : nearest};
}
FUSEDRNN_INLINE void store_rounded(Vec<float> x, uint16_t* p) {
  typedef uint16_t Half __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES / 2)));
  const Half half = __builtin_convertvector(rounded(x).v, Half);
  __builtin_memcpy(p, &half, sizeof(half));
}
FUSEDRNN_INLINE Vec<Pair> interleave(Vec<Pair> low, Vec<Pair> high) { return {low.v | high.v << 16}; }
FUSEDRNN_INLINE Vec<Pair> load_halves(const uint16_t* p) {
  typedef uint16_t Half __attribute__((vector_size(FUSEDRNN_VECTOR_BYTES / 2)));
  Half half;
  __builtin_memcpy(&half, p, sizeof(half));
  return {__builtin_convertvector(half, Vec<Pair>::Type)};
}

// The first n < lanes elements; the other lanes read as 0 and are never touched in memory.
template <class T> FUSEDRNN_INLINE Vec<T> load_first(const T* p, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)};
  else
    return {_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p)};
#else
  alignas(FUSEDRNN_VECTOR_BYTES) T lane[Vec<T>::lanes] = {};
  for (int i = 0; i < n; ++i) lane[i] = p[i];
  return Vec<T>::load(lane);
#endif
}
template <class T> FUSEDRNN_INLINE void store_first(Vec<T> x, T* p, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), x.v);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), x.v);
#else
  alignas(FUSEDRNN_VECTOR_BYTES) T lane[Vec<T>::lanes];
  x.store(lane);
  for (int i = 0; i < n; ++i) p[i] = lane[i];
#endif
}

// x in the first n lanes, 0 in the others.
template <class T> FUSEDRNN_INLINE Vec<T> first_lanes(Vec<T> x, int64_t n) {
  alignas(FUSEDRNN_VECTOR_BYTES) T lane[Vec<T>::lanes];
  for (int i = 0; i < Vec<T>::lanes; ++i) lane[i] = T(i);
  return where_positive(Vec<T>(T(n)) - Vec<T>::load(lane), x);
}

// Element access at the ragged end of a row of `width` elements: a whole vector where one fits.
template <class T> FUSEDRNN_INLINE Vec<T> load_within(const T* row, int64_t at, int64_t width) {
  return at + Vec<T>::lanes <= width ? Vec<T>::load(row + at) : load_first(row + at, static_cast<int>(width - at));
}
template <class T> FUSEDRNN_INLINE void store_within(Vec<T> x, T* row, int64_t at, int64_t width) {
  if (at + Vec<T>::lanes <= width)
    x.store(row + at);
  else
    store_first(x, row + at, static_cast<int>(width - at));
}

// N vectors that go through the same formula side by side. One vector alone would wait out the latency of every
// operation of a long chain such as tanh; several keep the units busy. The formulas cannot tell the difference.
template <class T, int N> struct Group {
  using Scalar = T;
  Vec<T> v[N];

  Group() = default;
  FUSEDRNN_INLINE Group(T scalar) {
    for (int i = 0; i < N; ++i) v[i] = Vec<T>(scalar);
  }
};

#define FUSEDRNN_LIFT(signature, expression)                        \
  template <class T, int N> FUSEDRNN_INLINE Group<T, N> signature { \
    Group<T, N> out;                                                \
    for (int i = 0; i < N; ++i) out.v[i] = expression;              \
    return out;                                                     \
  }
#define FUSEDRNN_GROUP const Group<T, N>&
FUSEDRNN_LIFT(operator+(FUSEDRNN_GROUP a, FUSEDRNN_GROUP b), a.v[i] + b.v[i])
FUSEDRNN_LIFT(operator-(FUSEDRNN_GROUP a, FUSEDRNN_GROUP b), a.v[i] - b.v[i])
FUSEDRNN_LIFT(operator*(FUSEDRNN_GROUP a, FUSEDRNN_GROUP b), a.v[i] * b.v[i])
FUSEDRNN_LIFT(operator/(FUSEDRNN_GROUP a, FUSEDRNN_GROUP b), a.v[i] / b.v[i])
FUSEDRNN_LIFT(fma(FUSEDRNN_GROUP a, FUSEDRNN_GROUP b, FUSEDRNN_GROUP c), fma(a.v[i], b.v[i], c.v[i]))
FUSEDRNN_LIFT(fnma(FUSEDRNN_GROUP a, FUSEDRNN_GROUP b, FUSEDRNN_GROUP c), fnma(a.v[i], b.v[i], c.v[i]))
FUSEDRNN_LIFT(at_most(FUSEDRNN_GROUP x, T high), at_most(x.v[i], high))
FUSEDRNN_LIFT(at_least(FUSEDRNN_GROUP x, T low), at_least(x.v[i], low))
FUSEDRNN_LIFT(where_positive(FUSEDRNN_GROUP gate, FUSEDRNN_GROUP x), where_positive(gate.v[i], x.v[i]))
FUSEDRNN_LIFT(where_or(FUSEDRNN_GROUP gate, FUSEDRNN_GROUP x, FUSEDRNN_GROUP other),
              where_or(gate.v[i], x.v[i], other.v[i]))
FUSEDRNN_LIFT(where_unlike(FUSEDRNN_GROUP y, T low, T high, FUSEDRNN_GROUP x), where_unlike(y.v[i], low, high, x.v[i]))
FUSEDRNN_LIFT(power_of_two(FUSEDRNN_GROUP shifted, T unit), power_of_two(shifted.v[i], unit))
#undef FUSEDRNN_GROUP
#undef FUSEDRNN_LIFT

}  // namespace fusedrnn::FUSEDRNN_ISA
