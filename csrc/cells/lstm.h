// LSTM cell: its formulas, for every backend. Gate order i f g o (torch.nn.LSTM).
//   z = b + U x + W h0        i,f,o = sigmoid(z)   g = tanh(z)        c1 = f c0 + i g        h1 = o tanh(c1)
// Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000.
// Slots of a saved step: 0..3 = i f g o, after backward dz in the same order.
struct Lstm {
  static constexpr bool backward_reads_h0 = false;
  static constexpr CellLayout layout = {.gates = 4,
                                        .slots = 4,
                                        .input_slot = 0,
                                        .recurrent_slot = 0,
                                        .input_order = {0, 1, 2, 3},
                                        .recurrent_order = {0, 1, 2, 3},
                                        .has_cell_state = true};

  // c: c0 on entry, c1 on return. Returns h1.
  template <class Slots, class V> static FUSEDRNN_INLINE V forward(Slots&& s, V /*h0*/, V& c) {
    const V i = s[0] = sigmoid(V(s[0]));
    const V g = s[2] = tanh(V(s[2]));
    const V ig = i * g;
    const V f = s[1] = sigmoid(V(s[1]));
    c = fma(f, c, ig);
    const V o = s[3] = sigmoid(V(s[3]));
    return o * tanh(c);
  }

  // dh: dL/dh1. dc: the part of dL/dc1 from later steps on entry, dL/dc0 on return.
  template <class V> static FUSEDRNN_INLINE V backward(V (&s)[layout.slots], V /*h0*/, V c0, V c1, V dh, V& dc) {
    const V i = s[0], f = s[1], g = s[2], o = s[3], u = tanh(c1), one(1);
    dc = fma(dh * o, fnma(u, u, one), dc);
    s[0] = dc * g * i * (one - i);
    s[1] = dc * c0 * f * (one - f);
    s[2] = dc * i * fnma(g, g, one);
    s[3] = dh * u * o * (one - o);
    dc = dc * f;
    return V(0);
  }
};
