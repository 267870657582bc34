// LSTM cell: its formulas, for every backend. Gate order i f g o (torch.nn.LSTM).
//   z = b + U x + W h0        i,f,o = sigmoid(z)   g = tanh(z)        c1 = f c0 + i g        h1 = o tanh(c1)
// Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000. Where fn (cells/activation.h) has
// peepholes, i and f see c0 and o sees c1: z + p c (Gers & Schmidhuber 2000); where it is coupled, f = 1 - i.
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
  template <class Slots, class V, class F = Fixed>
  static FUSEDRNN_INLINE V forward(Slots&& s, V /*h0*/, V& c, const F& fn = F()) {
    const V i = s[0] = fn.gate(fn.with_peephole(0, V(s[0]), c));
    const V g = s[2] = fn.candidate(V(s[2]));
    const V ig = i * fn.kept(g);
    const V f = s[1] = fn.coupled() ? V(1) - i : fn.gate(fn.with_peephole(1, V(s[1]), c));
    c = fma(f, c, ig);
    const V o = s[3] = fn.gate(fn.with_peephole(2, V(s[3]), c));
    return hidden(o, c, fn);
  }
  // c1, where zoneout has kept another one.
  template <class V, class F> static FUSEDRNN_INLINE V cell(V (&s)[layout.slots], V c0, const F& fn) {
    return fma(s[1], c0, s[0] * fn.kept(s[2]));
  }
  // h1, or what a projection reads.
  template <class V, class F> static FUSEDRNN_INLINE V hidden(V o, V c1, const F& fn) { return o * fn.output(c1); }

  // dh: dL/dh1. dc: the part of dL/dc1 from later steps on entry, dL/dc0 on return.
  template <class V, class F = Fixed>
  static FUSEDRNN_INLINE V backward(V (&s)[layout.slots], V /*h0*/, V c0, V c1, V dh, V& dc, const F& fn = F()) {
    const V i = s[0], f = s[1], g = s[2], o = s[3], u = fn.output(c1);
    dc = fn.plus_output_slope(dc, dh * o, u);
    s[3] = fn.times_gate_slope(dh * u, o);
    dc = fn.peephole_gradient(2, s[3], dc);
    const V df = dc * c0;
    const V di = dc * fn.kept(g);
    s[0] = fn.times_gate_slope(fn.coupled() ? di - df : di, i);
    s[1] = fn.coupled() ? V(0) : fn.times_gate_slope(df, f);
    s[2] = fn.times_candidate_slope(fn.kept(dc * i), g);
    dc = fn.peephole_gradient(1, s[1], fn.peephole_gradient(0, s[0], dc * f));
    return V(0);
  }
};
