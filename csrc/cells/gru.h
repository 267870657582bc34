// GRU cell, reset after the product: its formulas, for every backend. Gate order r z n (torch.nn.GRU).
//   r,z = sigmoid(b + U x + W h0)        m = W_n h0 + b_hn        n = tanh(b_in + U_n x + r m)
//   h1 = (1-z) n + z h0
// Cho et al. 2014; this variant: cuDNN, torch.
// Slots of a saved step: 0 = m, 1..3 = r z n. After backward 0 = dm, 1..3 = dr dz dn, so that slots 1..3 face W_ih
// (order r z n) and slots 0..2 face W_hh (order n r z): both are runs of adjacent vectors.
struct Gru {
  static constexpr bool backward_reads_h0 = true;
  static constexpr CellLayout layout = {.gates = 3,
                                        .slots = 4,
                                        .input_slot = 1,
                                        .recurrent_slot = 0,
                                        .input_order = {0, 1, 2},
                                        .recurrent_order = {2, 0, 1},
                                        .has_cell_state = false};

  template <class Slots, class V, class F = Fixed>
  static FUSEDRNN_INLINE V forward(Slots&& s, V h0, V& /*c*/, const F& fn = F()) {
    const V r = s[1] = fn.gate(V(s[1]));
    const V m = s[0] = V(s[0]);
    const V n = s[3] = fn.candidate(fma(r, m, V(s[3])));
    const V z = s[2] = fn.gate(V(s[2])), kept = fn.kept(n);
    return fma(z, h0 - kept, kept);
  }

  // dh: dL/dh1. Returns the part of dL/dh0 that bypasses W: z dh.
  template <class V, class F = Fixed>
  static FUSEDRNN_INLINE V backward(V (&s)[layout.slots], V h0, V /*c0*/, V /*c1*/, V dh, V& /*dc*/,
                                    const F& fn = F()) {
    const V m = s[0], r = s[1], z = s[2], n = s[3];
    const V dn = fn.times_candidate_slope(fn.kept(dh * (V(1) - z)), n);
    s[0] = dn * r;
    s[1] = fn.times_gate_slope(dn * m, r);
    s[2] = fn.times_gate_slope(dh * (h0 - fn.kept(n)), z);
    s[3] = dn;
    return dh * z;
  }
};
