// The steps of the optimizers, an element at a time: plain loops that the compiler turns into vectors. Each operation
// is rounded alone, in the order in which fusedrnn/training/optimizers/rules.py writes it for arrays of other
// libraries, so that both give the same bits; subnormal numbers count as zero here.
#pragma once
#include "core/update.h"

namespace fusedrnn::FUSEDRNN_ISA {

FUSEDRNN_INLINE float root(float x) { return __builtin_sqrtf(x); }
FUSEDRNN_INLINE double root(double x) { return __builtin_sqrt(x); }

// p parameter, g gradient + decay p, m and v what is kept from step to step.
template <class T> struct Updates {
  //   p = shrink p,  g = grad + decay p: what all rules begin with
  FUSEDRNN_INLINE static T begin(T& p, T grad, const Rates& r) {
    p *= T(r.shrink);
    return grad + T(r.decay) * p;
  }

  // p -= lr g
  static void sgd(T* __restrict p, const T* __restrict grad, T*, T*, int64_t n, const Rates& r) {
    for (int64_t i = 0; i < n; ++i) {
      const T g = begin(p[i], grad[i], r);
      p[i] -= g * T(r.lr);
    }
  }

  // m = momentum m + g,  p -= lr (along m + ahead g). Sutskever et al. 2013; along and ahead are 1 and 0, or for
  // Nesterov's momentum and 1.
  static void momentum(T* __restrict p, const T* __restrict grad, T* __restrict m, T*, int64_t n, const Rates& r) {
    for (int64_t i = 0; i < n; ++i) {
      const T g = begin(p[i], grad[i], r);
      m[i] = m[i] * T(r.momentum) + g;
      p[i] -= (m[i] * T(r.along) + g * T(r.ahead)) * T(r.lr);
    }
  }

  // v = square_kept v + square_share g^2,  d = g / (sqrt(v) + eps). Hinton 2012, lecture 6.
  FUSEDRNN_INLINE static T normalized(T& v, T g, const Rates& r) {
    v = v * T(r.square_kept) + g * g * T(r.square_share);
    return g / (root(v) + T(r.eps));
  }

  // p -= lr d
  static void rmsprop(T* __restrict p, const T* __restrict grad, T* __restrict v, T*, int64_t n, const Rates& r) {
    for (int64_t i = 0; i < n; ++i) {
      const T g = begin(p[i], grad[i], r);
      p[i] -= normalized(v[i], g, r) * T(r.lr);
    }
  }

  // m = momentum m + d,  p -= lr m
  static void rmsprop_momentum(T* __restrict p, const T* __restrict grad, T* __restrict v, T* __restrict m, int64_t n,
                               const Rates& r) {
    for (int64_t i = 0; i < n; ++i) {
      const T g = begin(p[i], grad[i], r);
      m[i] = m[i] * T(r.momentum) + normalized(v[i], g, r);
      p[i] -= m[i] * T(r.lr);
    }
  }

  // m += mean_share (g - m),  v = square_kept v + square_share g^2,  p -= lr m / (sqrt(v) / root_scale + eps), where lr
  // and root_scale hold the corrections for the first steps. Kingma & Ba 2015, algorithm 1.
  static void adam(T* __restrict p, const T* __restrict grad, T* __restrict m, T* __restrict v, int64_t n,
                   const Rates& r) {
    for (int64_t i = 0; i < n; ++i) {
      const T g = begin(p[i], grad[i], r);
      m[i] += (g - m[i]) * T(r.mean_share);
      v[i] = v[i] * T(r.square_kept) + g * g * T(r.square_share);
      p[i] -= m[i] / (root(v[i]) / T(r.root_scale) + T(r.eps)) * T(r.lr);
    }
  }
};

// The sum of squares, in 16 chains of doubles.
template <class T> double square_sum(const T* x, int64_t n) {
  constexpr int chains = 16;
  double sum[chains] = {};
  int64_t i = 0;
  for (; i + chains <= n; i += chains)
    for (int c = 0; c < chains; ++c) sum[c] += double(x[i + c]) * double(x[i + c]);
  for (int c = 0; i + c < n; ++c) sum[c] += double(x[i + c]) * double(x[i + c]);
  double total = 0;
  for (int c = 0; c < chains; ++c) total += sum[c];
  return total;
}

}  // namespace fusedrnn::FUSEDRNN_ISA
