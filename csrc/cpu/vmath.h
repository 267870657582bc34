// sigmoid and tanh of a vector, each within 4 ulp, from fused multiply-adds alone: the same bits on every machine of
// one ISA (no division in float, no approximate-reciprocal instruction, whose bits differ between vendors).
//
//   x = n ln2 + r, |r| <= ln2/2        e^r - 1 = r + r^2 (1/2! + r/3! + r^2/4! + ...)        e^x = 2^n (e^r - 1) + 2^n
//   sigmoid(x) = 1 / (1 + e^-x)        tanh(x) = m / (m + 2) with m = e^2x - 1, exact to the last bits near 0 too
//
// V is Vec<T> or Group<T, N>.
#pragma once
#include "cpu/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class T> struct ExpConstants;
template <> struct ExpConstants<float> {
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer kept in the low bits
  static constexpr float log2_e = 1.44269504088896341f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float sigmoid_flat = 87.0f;  // e^87 is the last that keeps 1/(1 + e^x) a normal number
  static constexpr float tanh_flat = 9.5f;      // beyond it tanh rounds to +-1
};
template <> struct ExpConstants<double> {
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double log2_e = 1.44269504088896340736;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double sigmoid_flat = 708.0;
  static constexpr double tanh_flat = 20.0;
};

// 1/2! + r/3! + ...: 6 terms leave 1.5e-8 in float, 12 leave 1e-17 in double. Terms are paired (Estrin), because a
// batch of one waits for the length of the chain.
template <class V> FUSEDRNN_INLINE V exp_tail(const V& r, const V& r2, float) {
  const V a = fma(r, V(1.0f / 6), V(1.0f / 2));
  const V b = fma(r, V(1.0f / 120), V(1.0f / 24));
  const V c = fma(r, V(1.0f / 5040), V(1.0f / 720));
  return fma(r2, fma(r2, c, b), a);
}
template <class V> FUSEDRNN_INLINE V exp_tail(const V& r, const V& r2, double) {
  V sum = fma(r, V(1.0 / 6227020800), V(1.0 / 479001600));
  sum = fma(r2, sum, fma(r, V(1.0 / 39916800), V(1.0 / 3628800)));
  sum = fma(r2, sum, fma(r, V(1.0 / 362880), V(1.0 / 40320)));
  sum = fma(r2, sum, fma(r, V(1.0 / 5040), V(1.0 / 720)));
  sum = fma(r2, sum, fma(r, V(1.0 / 120), V(1.0 / 24)));
  return fma(r2, sum, fma(r, V(1.0 / 6), V(1.0 / 2)));
}

// e^(sign factor x) + offset, for arguments whose power 2^n is a normal number. Offset -1 gives expm1 without
// cancellation; a factor that is a power of two (here -1 and 2) costs nothing and rounds nothing.
template <int factor, class V> FUSEDRNN_INLINE V exp_plus(const V& x, typename V::Scalar offset) {
  using T = typename V::Scalar;
  using K = ExpConstants<T>;
  const V shifted = fma(x, V(T(factor) * K::log2_e), V(K::round));
  const V n = shifted - V(K::round);
  // r/factor: dividing both constants by the factor keeps them exact.
  const V q = fnma(n, V(K::ln2_low / factor), fnma(n, V(K::ln2_high / factor), x));
  const V r = q * V(T(factor));
  const V r2 = r * r;
  const V m = fma(r2, exp_tail(r, r2, T()), r);  // e^r - 1
  const V scale = power_of_two(shifted);
  return fma(scale, m, scale + V(offset));
}

// 1/x for 1 <= x < 2^126. Two third-order steps  e = 1 - x r,  r <- r + r (e + e^2)  bring the guess to 1e-9, so that
// the last rounding alone decides the result. That needs the fused e; without it, and in double, the processor divides.
template <class V> constexpr bool divides = !has_fma || sizeof(typename V::Scalar) == 8;
template <class V> FUSEDRNN_INLINE V reciprocal(const V& x) {
  if constexpr (divides<V>) {
    return V(1) / x;
  } else {
    V r = reciprocal_guess(x);
    for (int i = 0; i < 2; ++i) {
      const V e = fnma(x, r, V(1));
      r = fma(r, fma(e, e, e), r);
    }
    return r;
  }
}

template <class V> FUSEDRNN_INLINE V sigmoid(const V& x) {
  using T = typename V::Scalar;
  constexpr T flat = ExpConstants<T>::sigmoid_flat;
  return reciprocal(exp_plus<-1>(at_least(at_most(x, flat), -flat), T(1)));
}

template <class V> FUSEDRNN_INLINE V tanh(const V& x) {
  using T = typename V::Scalar;
  constexpr T flat = ExpConstants<T>::tanh_flat;
  const V m = exp_plus<2>(at_least(at_most(x, flat), -flat), T(-1)), d = m + V(T(2));
  if constexpr (divides<V>) return m / d;  // never above 1, so that 1 - tanh^2 is not negative
  return m * reciprocal(d);
}

// x where x > 0, else 0; NaN stays NaN (as torch.relu).
template <class V> FUSEDRNN_INLINE V positive_part(const V& x) { return at_least(x, typename V::Scalar(0)); }

}  // namespace fusedrnn::FUSEDRNN_ISA
