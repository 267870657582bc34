// exp, sigmoid and tanh of a vector, each within 4 ulp, from fused multiply-adds alone: the same bits on every machine
// of one ISA (no division, no approximate-reciprocal instruction, whose bits differ between vendors).
//
//   x = n ln2 + r, |r| <= ln2/2        e^r - 1 = r + r^2 (1/2! + r/3! + r^2/4! + ...)        e^x = 2^n (e^r - 1) + 2^n
//   sigmoid(x) = 1 / (1 + e^-x)        tanh(x) = m / (m + 2) with m = e^2x - 1, exact to the last bits near 0 too
#pragma once
#include "cpu/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class T> struct ExpLimits;
template <> struct ExpLimits<float> {
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer kept in the low bits
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float sigmoid_flat = 87.0f;  // e^87 is the last that keeps 1/(1 + e^x) a normal number
  static constexpr float tanh_flat = 9.5f;      // beyond it tanh rounds to +-1
};
template <> struct ExpLimits<double> {
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double sigmoid_flat = 708.0;
  static constexpr double tanh_flat = 20.0;
};

// The sum in brackets above, 1/2! + r/3! + ...: 6 terms give 1.5e-8 in float, 12 give 1e-17 in double.
// Pairs first (Estrin), because the latency of the chain is what a batch of one waits for.
FUSEDRNN_INLINE Vec<float> exp_tail(Vec<float> r, Vec<float> r2) {
  const Vec<float> a = fma(r, Vec<float>(1.0f / 6), Vec<float>(1.0f / 2));
  const Vec<float> b = fma(r, Vec<float>(1.0f / 120), Vec<float>(1.0f / 24));
  const Vec<float> c = fma(r, Vec<float>(1.0f / 5040), Vec<float>(1.0f / 720));
  return fma(r2, fma(r2, c, b), a);
}
FUSEDRNN_INLINE Vec<double> exp_tail(Vec<double> r, Vec<double> r2) {
  using V = Vec<double>;
  V sum = fma(r, V(1.0 / 6227020800), V(1.0 / 479001600));
  sum = fma(r2, sum, fma(r, V(1.0 / 39916800), V(1.0 / 3628800)));
  sum = fma(r2, sum, fma(r, V(1.0 / 362880), V(1.0 / 40320)));
  sum = fma(r2, sum, fma(r, V(1.0 / 5040), V(1.0 / 720)));
  sum = fma(r2, sum, fma(r, V(1.0 / 120), V(1.0 / 24)));
  return fma(r2, sum, fma(r, V(1.0 / 6), V(1.0 / 2)));
}

// e^x + offset for |x| small enough that 2^n is a normal number; offset -1 gives expm1 without cancellation.
template <class T> FUSEDRNN_INLINE Vec<T> exp_plus(Vec<T> x, T offset) {
  using V = Vec<T>;
  using Limits = ExpLimits<T>;
  using Bits = typename V::Bits;
  const V shifted = fma(x, V(T(1.44269504088896340736)), V(Limits::round));
  const V n = shifted - V(Limits::round);
  const V r = fnma(n, V(Limits::ln2_low), fnma(n, V(Limits::ln2_high), x));
  const V r2 = r * r;
  const V m = fma(r2, exp_tail(r, r2), r);  // e^r - 1
  V one(T(1)), scale;
  scale.v = (typename V::Type)(((Bits)shifted.v << Native<T>::mantissa_bits) + (Bits)one.v);  // 2^n
  return fma(scale, m, scale + V(offset));
}

// 1/x for 1 <= x < 2^126. Subtracting the bits from a constant negates the exponent (12 % error); two third-order steps
//   e = 1 - x r,  r <- r + r (e + e^2)
// bring that to 1e-9, so the last rounding alone decides the result.
FUSEDRNN_INLINE Vec<float> reciprocal(Vec<float> x) {
  using V = Vec<float>;
  V r;
  r.v = (V::Type)(0x7EF311C7 - (V::Bits)x.v);
  for (int i = 0; i < 2; ++i) {
    const V e = fnma(x, r, V(1.0f));
    r = fma(r, fma(e, e, e), r);
  }
  return r;
}
FUSEDRNN_INLINE Vec<double> reciprocal(Vec<double> x) { return Vec<double>(1.0).v / x.v; }

template <class T> FUSEDRNN_INLINE Vec<T> sigmoid(Vec<T> x) {
  const Vec<T> y = clamp(x, -ExpLimits<T>::sigmoid_flat, ExpLimits<T>::sigmoid_flat);
  return reciprocal(exp_plus(Vec<T>(-y.v), T(0)) + Vec<T>(T(1)));
}

template <class T> FUSEDRNN_INLINE Vec<T> tanh(Vec<T> x) {
  const Vec<T> y = clamp(x, -ExpLimits<T>::tanh_flat, ExpLimits<T>::tanh_flat);
  const Vec<T> m = exp_plus(y + y, T(-1));
  return m * reciprocal(m + Vec<T>(T(2)));
}

}  // namespace fusedrnn::FUSEDRNN_ISA
