// The functions of a varied cell (cells/activation.h has those of the books): chosen by a number when they are called.
// That costs a jump which the processor foresees, and no kernel for each of them.
#pragma once
#include "cpu/kernels/rows.h"
#include "cpu/kernels/tile.h"
#include "cpu/kernels/vmath.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class V> FUSEDRNN_INLINE V absolute(const V& x) { return positive_part(x) + positive_part(V(0) - x); }

// log(1 + e^x) = max(x, 0) + log(1 + m), m = e^-|x|, and log(1 + m) = 2 artanh(s), s = m / (2 + m) <= 1/3.
template <class V> FUSEDRNN_INLINE V softplus(const V& x) {
  using T = typename V::Scalar;
  constexpr int terms = sizeof(T) == 4 ? 8 : 18;  // s^2k / (2k + 1), down to the last bit at s = 1/3
  const V m = exp_plus<-1>(at_most(absolute(x), ExpConstants<T>::sigmoid_flat), T(0));
  const V s = m / (m + V(2)), s2 = s * s;
  V sum(T(1) / (2 * terms - 1));
  for (int k = terms - 2; k >= 0; --k) sum = fma(s2, sum, V(T(1) / (2 * k + 1)));
  return fma(s + s, sum, positive_part(x));
}

// alpha and beta as ONNX has them in its RNN operators. Not inlined: all functions in every place where a formula has
// one would double the library.
template <class T, class V> __attribute__((noinline)) V apply(const GateFunction<T>& f, const V& x) {
  constexpr T huge = sizeof(T) == 4 ? T(1e30) : T(1e300);
  switch (f.kind) {
    case Function::sigmoid:
      return sigmoid(x);
    case Function::tanh:
      return tanh(x);
    case Function::relu:
      return positive_part(x);
    case Function::affine:
      return fma(x, V(f.alpha), V(f.beta));
    case Function::leaky_relu:
      return fnma(positive_part(V(0) - x), V(f.alpha), positive_part(x));
    case Function::thresholded_relu:  // the second term is 0, or NaN where x is
      return where_positive(x - V(f.alpha), x) + at_least(at_most(x, T(0)), T(0));
    case Function::scaled_tanh:
      return V(f.alpha) * tanh(V(f.beta) * x);
    case Function::hard_sigmoid:
      return at_least(at_most(fma(x, V(f.alpha), V(f.beta)), T(1)), T(0));
    case Function::elu: {
      const V below = at_least(at_most(x, T(0)), -ExpConstants<T>::sigmoid_flat);
      return fma(V(f.alpha), exp_plus<1>(below, T(-1)), positive_part(x));
    }
    case Function::softsign: {
      const V y = at_least(at_most(x, huge), -huge);
      return y / (absolute(y) + V(1));
    }
    case Function::softplus:
      return softplus(x);
  }
  return x;
}

// d times the derivative, in the value y.
template <class T, class V> __attribute__((noinline)) V times_slope(const GateFunction<T>& f, const V& d, const V& y) {
  const V one(1);
  switch (f.kind) {
    case Function::sigmoid:
      return d * y * (one - y);
    case Function::tanh:
      return d * fnma(y, y, one);
    case Function::relu:
    case Function::thresholded_relu:
      return where_positive(y, d);
    case Function::affine:
      return d * V(f.alpha);
    case Function::leaky_relu:
      return where_positive(y, d * V(1 - f.alpha)) + d * V(f.alpha);
    case Function::scaled_tanh:
      return d * V(f.beta) * fnma(y * V(1 / f.alpha), y, V(f.alpha));
    case Function::hard_sigmoid:
      return where_positive(y, where_positive(one - y, d * V(f.alpha)));
    case Function::elu:
      return d * where_or(y, one, y + V(f.alpha));
    case Function::softsign: {
      const V rest = one - absolute(y);
      return d * rest * rest;
    }
    case Function::softplus:
      return d * (V(0) - exp_plus<-1>(at_most(y, ExpConstants<T>::sigmoid_flat), T(-1)));
  }
  return d;
}

// The functions of N cells side by side: what a formula calls fn.
template <class T, int N> class VariedFunctions {
 public:
  using W = Group<T, N>;
  // Of a step, of samples j and blocks of units `unit`.
  FUSEDRNN_INLINE VariedFunctions(const Sequence<T>& seq, int64_t step, const int64_t (&j)[N], const int64_t (&unit)[N])
      : seq_(seq), options_(*seq.options), step_(step), j_(j), unit_(unit) {}

  FUSEDRNN_INLINE W gate(const W& z) const { return clipped(options_.gate, z); }
  FUSEDRNN_INLINE W candidate(const W& z) const { return clipped(options_.candidate, z); }
  // With layer normalisation h is left to be multiplied by the function of c.
  FUSEDRNN_INLINE W output(const W& c) const { return options_.layer_norm ? W(1) : apply(options_.output, c); }
  FUSEDRNN_INLINE W times_gate_slope(const W& d, const W& y) const { return slope(options_.gate, d, y); }
  FUSEDRNN_INLINE W times_candidate_slope(const W& d, const W& y) const { return slope(options_.candidate, d, y); }
  FUSEDRNN_INLINE W plus_output_slope(const W& dc, const W& d, const W& y) const {
    return options_.layer_norm ? dc : dc + times_slope(options_.output, d, y);
  }
  template <class Activation> FUSEDRNN_INLINE W state(const W& a) const { return candidate(a); }
  template <class Activation> FUSEDRNN_INLINE W times_state_slope(const W& d, const W& h) const {
    return times_candidate_slope(d, h);
  }

  FUSEDRNN_INLINE W with_peephole(int which, const W& z, const W& c) const {
    return options_.peephole ? fma(weights(which), c, z) : z;
  }
  FUSEDRNN_INLINE W peephole_gradient(int which, const W& dz, const W& dc) const {
    return options_.peephole ? fma(weights(which), dz, dc) : dc;
  }
  FUSEDRNN_INLINE bool coupled() const { return options_.coupled; }

  FUSEDRNN_INLINE W kept(const W& g) const {
    return seq_.noise && seq_.noise->g_factor.data ? g * at_rows(seq_.noise->g_factor) : g;
  }

  // Zoneout (Krueger et al. 2017): h1 = d h0 + (1 - d) h1 of the formula, d drawn, or in inference what it is in the
  // mean; c alike. Backward the formula gets (1 - d) of the gradient, and what it returns d of it.
  FUSEDRNN_INLINE bool zones_h() const { return options_.h_zoneout > 0; }
  FUSEDRNN_INLINE bool zones_c() const { return options_.c_zoneout > 0; }
  FUSEDRNN_INLINE W h_zone() const { return seq_.noise ? at_rows(seq_.noise->h_zone) : W(options_.h_zoneout); }
  FUSEDRNN_INLINE W c_zone() const { return seq_.noise ? at_rows(seq_.noise->c_zone) : W(options_.c_zoneout); }

  // Recurrent dropout on h (Gal & Ghahramani 2016): h as W_hh reads it.
  FUSEDRNN_INLINE bool reads_factored() const { return seq_.noise && seq_.noise->h_factor.data; }
  __attribute__((noinline)) W as_read(const W& h) const {
    W read;
    each<N>([&](auto n)
                FUSEDRNN_BODY { read.v[n] = h.v[n] * load_within(factor_row(seq_, j_[n]), unit_[n] * L, seq_.P); });
    return read;
  }

 private:
  static constexpr int L = Vec<T>::lanes;
  const Sequence<T>& seq_;
  const CellOptions<T>& options_;
  const int64_t step_;
  const int64_t (&j_)[N], (&unit_)[N];

  __attribute__((noinline)) W at_rows(const TimeMajorView<const T>& view) const {
    W x;
    each<N>([&](auto n)
                FUSEDRNN_BODY { x.v[n] = load_within(row_of(view, seq_, step_, j_[n]), unit_[n] * L, seq_.H); });
    return x;
  }

  FUSEDRNN_INLINE W clipped(const GateFunction<T>& f, const W& z) const {
    return apply(f, at_least(at_most(z, options_.clip), -options_.clip));
  }
  // A clamp's derivative is 0 outside: there the value is that of an end.
  FUSEDRNN_INLINE W slope(const GateFunction<T>& f, const W& d, const W& y) const {
    const W inside = times_slope(f, d, y);
    return options_.clip < highest ? where_unlike(y, f.low, f.high, inside) : inside;
  }
  FUSEDRNN_INLINE W weights(int which) const {
    W p;
    const T* of = seq_.peephole + which * ceil_div(seq_.H, L) * L;
    for (int n = 0; n < N; ++n) p.v[n] = Vec<T>::load(of + unit_[n] * L);
    return p;
  }
  static constexpr T highest = sizeof(T) == 4 ? T(3.4028234663852886e38) : T(1.7976931348623157e308);
};

// f(x) of one number, by the same operations: for the ends of a clipped x.
template <class T> T value_at(const GateFunction<T>& f, T x) {
  T lane[Vec<T>::lanes];
  apply(f, Vec<T>(x)).store(lane);
  return lane[0];
}

}  // namespace fusedrnn::FUSEDRNN_ISA
