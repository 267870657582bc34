// Elman RNN cell: its formulas, for every backend (Elman 1990).
//   a = b + U x + W h0        h1 = act(a)
// Slots of a saved step: 0 = h1, after backward da.
template <class Activation> struct Rnn {
  static constexpr bool backward_reads_h0 = false;
  static constexpr CellLayout layout = {.gates = 1,
                                        .slots = 1,
                                        .input_slot = 0,
                                        .recurrent_slot = 0,
                                        .input_order = {0},
                                        .recurrent_order = {0},
                                        .has_cell_state = false};

  template <class Slots, class V, class F = Fixed>
  static FUSEDRNN_INLINE V forward(Slots&& s, V /*h0*/, V& /*c*/, const F& fn = F()) {
    return s[0] = fn.template state<Activation>(V(s[0]));
  }

  // dh: dL/dh1. s becomes dL/da. Returns the part of dL/dh0 that bypasses W: none.
  template <class V, class F = Fixed>
  static FUSEDRNN_INLINE V backward(V (&s)[layout.slots], V /*h0*/, V /*c0*/, V /*c1*/, V dh, V& /*dc*/,
                                    const F& fn = F()) {
    s[0] = fn.template times_state_slope<Activation>(dh, s[0]);
    return V(0);
  }
};
