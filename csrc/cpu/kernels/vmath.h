// sigmoid and tanh of a vector, each within 4 ulp (sigmoid below -40, where it is 4e-18: 6), without instructions whose
// bits differ between vendors, such as approximate reciprocals: the same bits on every machine of one ISA.
//
//   f x = n ln2 + f r, |f r| <= ln2/2      e^(f r) - 1 = f (r + r^2 (f/2! + f^2 r/3! + ...))      e^(f x) = 2^n e^(f r)
//   sigmoid(x) = 1 / (1 + e^-x)            tanh(x) = m / (m + 1) with m = (e^2x - 1) / 2, exact to the last bits near 0
//
// V is Vec<T> or Group<T, N>.
#pragma once
#include "cpu/kernels/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class T> struct ExpConstants;
template <> struct ExpConstants<float> {
  static constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer kept in the low bits
  static constexpr float log2_e = 1.44269504088896341f;
  static constexpr float ln2 = 0.693147180559945309f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float sigmoid_flat = 87.0f;  // e^87 is the last that keeps 1/(1 + e^x) a normal number
  static constexpr float tanh_flat = 9.5f;      // beyond it tanh rounds to +-1
  // 1/2!, 1/3! ... moved so that the largest error of e^r - 1 is least: 1.4e-8 of it.
  static constexpr int terms = 5;
  static constexpr float tail[terms] = {0.499999981f, 0.1666654116f, 0.04166721056f, 0.008366851663f, 0.001388245748f};
};
template <> struct ExpConstants<double> {
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double log2_e = 1.44269504088896340736;
  static constexpr double ln2 = 0.69314718055994530942;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr double sigmoid_flat = 708.0;
  static constexpr double tanh_flat = 20.0;
  // 1/2!, 1/3! ... 1/13!: what is left out is 1e-17.
  static constexpr int terms = 12;
  static constexpr double tail[terms] = {1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,
                                         1.0 / 720,     1.0 / 5040,     1.0 / 40320,     1.0 / 362880,
                                         1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
};

// f/2! + f^2 r/3! + ..., two terms at a time (Estrin), because a batch of one waits for the length of the chain.
template <int factor, class V> FUSEDRNN_INLINE V exp_tail(const V& r, const V& r2) {
  using K = ExpConstants<typename V::Scalar>;
  const auto term = [](int i) FUSEDRNN_BODY {
    typename V::Scalar power = factor;
    for (int k = 0; k < i; ++k) power *= factor;
    return V(K::tail[i] * power);
  };
  int i = K::terms - 1;
  V sum = term(i);
  if (i % 2) --i, sum = fma(r, sum, term(i));
  for (i -= 2; i >= 0; i -= 2) sum = fma(r2, sum, fma(r, term(i + 1), term(i)));
  return sum;
}

// (e^(factor x) + offset) / |factor|, for arguments whose power 2^n is a normal number; factor is a power of two or its
// negative. Offset -1 gives expm1 without cancellation.
template <int factor, class V> FUSEDRNN_INLINE V exp_plus(const V& x, typename V::Scalar offset) {
  using T = typename V::Scalar;
  using K = ExpConstants<T>;
  constexpr T size = factor < 0 ? -factor : factor;
  const V shifted = fma(x, V(T(factor) * K::log2_e), V(K::round));
  const V n = shifted - V(K::round);
  V r;
  if constexpr (has_fma && sizeof(T) == 4)
    r = fnma(n, V(K::ln2 / factor), x);  // float(ln2) is so close to ln2 that n times the rest is below 1 ulp to n = 40
  else
    r = fnma(n, V(K::ln2_low / factor), fnma(n, V(K::ln2_high / factor), x));
  const V r2 = r * r, scale = power_of_two(shifted, T(1));
  const V m = fma(r2, exp_tail<factor>(r, r2), r);  // (e^(factor r) - 1) / factor
  const V rest = power_of_two(shifted, 1 / size) + V(offset / size);
  if constexpr (factor < 0) return fnma(scale, m, rest);
  return fma(scale, m, rest);
}

// Both divide. A quotient is rounded once, so that tanh never exceeds 1, and a division waits for fewer operations than
// the refinement of an estimate: of the LSTM's gate functions it saves a fifth to a third on a Zen 4.
template <class V> FUSEDRNN_INLINE V sigmoid(const V& x) {
  using T = typename V::Scalar;
  constexpr T flat = ExpConstants<T>::sigmoid_flat;
  return V(T(1)) / exp_plus<-1>(at_least(at_most(x, flat), -flat), T(1));
}

template <class V> FUSEDRNN_INLINE V tanh(const V& x) {
  using T = typename V::Scalar;
  constexpr T flat = ExpConstants<T>::tanh_flat;
  const V m = exp_plus<2>(at_least(at_most(x, flat), -flat), T(-1));
  return m / (m + V(T(1)));
}

// x where x > 0, else 0; NaN stays NaN (as torch.relu).
template <class V> FUSEDRNN_INLINE V positive_part(const V& x) { return at_least(x, typename V::Scalar(0)); }

}  // namespace fusedrnn::FUSEDRNN_ISA
