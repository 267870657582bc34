// Activations of the plain RNN cell. times_slope(dh, h) is dh times the derivative, which is written in
// the activated value h.
struct Tanh {
  template <class V> static FUSEDRNN_INLINE V apply(V a) { return tanh(a); }
  template <class V> static FUSEDRNN_INLINE V times_slope(V dh, V h) { return dh * fnma(h, h, V(1)); }  // dh (1 - h^2)
};

struct Relu {
  template <class V> static FUSEDRNN_INLINE V apply(V a) { return positive_part(a); }
  template <class V> static FUSEDRNN_INLINE V times_slope(V dh, V h) { return where_positive(h, dh); }  // dh [h > 0]
};

// The functions of a cell as it is in the books: what a formula calls fn. times_..._slope(d, y) is d times the
// derivative, written in the value y of the function. A varied cell has others (cpu/kernels/varied_functions.h).
struct Fixed {
  template <class V> static FUSEDRNN_INLINE V gate(V z) { return sigmoid(z); }
  template <class V> static FUSEDRNN_INLINE V candidate(V z) { return tanh(z); }
  template <class V> static FUSEDRNN_INLINE V output(V c) { return tanh(c); }
  template <class V> static FUSEDRNN_INLINE V times_gate_slope(V d, V y) { return d * y * (V(1) - y); }
  template <class V> static FUSEDRNN_INLINE V times_candidate_slope(V d, V y) { return d * fnma(y, y, V(1)); }
  template <class V> static FUSEDRNN_INLINE V plus_output_slope(V dc, V d, V y) { return fma(d, fnma(y, y, V(1)), dc); }

  // Of a plain cell, which has one function.
  template <class Activation, class V> static FUSEDRNN_INLINE V state(V a) { return Activation::apply(a); }
  template <class Activation, class V> static FUSEDRNN_INLINE V times_state_slope(V d, V h) {
    return Activation::times_slope(d, h);
  }

  // Peepholes: z + p c of gate i, f or o (0, 1, 2), and dc + p dz.
  template <class V> static FUSEDRNN_INLINE V with_peephole(int /*which*/, V z, V /*c*/) { return z; }
  template <class V> static FUSEDRNN_INLINE V peephole_gradient(int /*which*/, V /*dz*/, V dc) { return dc; }
  static FUSEDRNN_INLINE constexpr bool coupled() { return false; }

  // Recurrent dropout on the candidate: the candidate, or its gradient, times its mask.
  template <class V> static FUSEDRNN_INLINE V kept(V g) { return g; }
};

// A cell whose functions are chosen when a layer is made.
template <class C> struct Varied : C {
  static constexpr bool varied = true;
};
