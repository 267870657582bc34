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
