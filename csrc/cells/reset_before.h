// GRU cell, reset before the product: n reads W_n (r h0), so that a step has two products. Gate order r z n.
//   r,z = sigmoid(b + U x + W h0)      n = tanh(b_n + U_n x + W_n (r h0))      h1 = (1-z) n + z h0
// Cho et al. 2014; Keras's reset_after=False, ONNX's linear_before_reset=0.
// Slots of a saved step: 0 = r h0, 1..3 = r z n, after backward dr dz dn.
struct ResetBefore {
  static constexpr bool backward_reads_h0 = true;
  static constexpr CellLayout layout = {.gates = 3,
                                        .slots = 4,
                                        .input_slot = 1,
                                        .recurrent_slot = 1,
                                        .input_order = {0, 1, 2},
                                        .recurrent_order = {0, 1, 2},
                                        .has_cell_state = false,
                                        .two_products = true};

  // Between the products. h0: as the products read it. Returns what the second one reads.
  template <class V, class F> static FUSEDRNN_INLINE V first(V (&s)[layout.slots], V h0, const F& fn) {
    s[1] = fn.gate(s[1]);
    s[2] = fn.gate(s[2]);
    return s[0] = s[1] * h0;
  }
  // After them. Returns h1.
  template <class V, class F> static FUSEDRNN_INLINE V second(V (&s)[layout.slots], V h0, const F& fn) {
    s[3] = fn.candidate(s[3]);
    const V n = fn.kept(s[3]);
    return fma(s[2], h0 - n, n);
  }

  // dh: dL/dh1. Leaves r, dz and dn, and returns the part of dL/dh0 that bypasses all W: z dh.
  template <class V, class F>
  static FUSEDRNN_INLINE V backward(V (&s)[layout.slots], V h0, V /*c0*/, V /*c1*/, V dh, V& /*dc*/, const F& fn) {
    const V z = s[2], n = s[3];
    s[2] = fn.times_gate_slope(dh * (h0 - fn.kept(n)), z);
    s[3] = fn.times_candidate_slope(fn.kept(dh * (V(1) - z)), n);
    return dh * z;
  }
  // d: W_n^T dn, the gradient of r h0. Leaves dr in the place of r, and returns `bypass` with what reaches h0 by r h0.
  template <class V, class F>
  static FUSEDRNN_INLINE V backward_first(V& r, V h0, V d, V bypass, const F& fn) {
    const V sum = fma(d, r, bypass);
    r = fn.times_gate_slope(d * h0, r);
    return sum;
  }
};
