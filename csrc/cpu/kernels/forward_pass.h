// The time loop of forward: one direction of one layer, all cells of one shape.
#pragma once
#include "cpu/kernels/hidden_projection.h"
#include "cpu/kernels/layer_norm.h"
#include "cpu/kernels/projection.h"
#include "cpu/kernels/rows.h"
#include "cpu/kernels/time_loop.h"
#include "cpu/kernels/workspace.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <class C, class T, class E> struct ForwardPass {
  using V = Vec<T>;
  using Sum = Vec<typename Operand<E>::Sum>;
  static constexpr int L = V::lanes, G = C::gates, S = C::slots, values = Operand<E>::values;
  static constexpr int in = C::input_slot, rec = C::recurrent_slot;

  // Runs cells [first, first + N) of a tile that is `units` wide and begins at sample j0 and unit0; acc is what
  // W_hh h has added to their gates in this piece of k, z where the first cell of the tile finds the rest.
  struct Args;
  using Finish = void (*)(const Args&, const Sum* acc, T* z, int64_t z_unit, int64_t j0, int64_t unit0, int64_t piece,
                          int first, int units);

  struct Args {
    const Sequence<T>* seq;
    Blocks blocks;
    Workspace<C, T, E> space;
    PackedMatrix<E, G> weights;  // W_hh; K: of P, in elements of E
    const E* h;                  // (B, row) before the current step, as the product reads it
    Factors<E> factors;
    T* z;  // slots of row i of unit u at z + (u*z_rows + i)*S*L
    int64_t z_rows;
    int64_t step, z_first;       // sample j of the current step has row z_first + j in z
    int64_t j0;                  // first sample of this thread
    int64_t swept_bytes;         // of weights, per step
    const Finish* finish;        // by N, the cells side by side
    T** y_row;                   // (B): where sample j's output of the current step goes
    Lookahead<E, G>* lookahead;  // null: the input products of all rows of the chunk are there
  };

  // One step: z += W_hh h, then the cell on the accumulators.
  struct Step {
    using Args = ForwardPass::Args;
    static constexpr int gates = G;
    static constexpr bool any_shape = is_quantized<E>;
    template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
      const int64_t j0 = a.j0 + at.row, row = a.space.row / values;
      const E* h0 = a.h + j0 * row;
      Tile<E, Rows, Units, G> t;
      T* z = a.z + (at.unit * a.z_rows + a.z_first + j0) * S * L;
      const int64_t z_unit = a.z_rows * S * L;
      const int64_t K = a.weights.K, next_k = piece_of<E>(at.next_piece, K).begin;
      const auto [k0, k] = piece_of<E>(at.piece, K);
      const E* h[Rows];
      for (int r = 0; r < Rows; ++r) h[r] = h0 + r * row + k0;
      const E* w = a.weights.from(at.unit, k0);
      if constexpr (Lookahead<E, G>::exists && Rows == 1 && Units == Lookahead<E, G>::units)
        if (a.lookahead && a.lookahead->pending()) {
          a.lookahead->multiply(t.acc, h[0], K, w);
          return finish_all<Rows, Units>(a, t.acc, z, z_unit, j0, at.unit, 0);
        }
      t.multiply(h, RowRun::single(k), w, G * L, K * G * L, a.weights.ahead(Units, at, w, k, next_k, a.swept_bytes));
      if (k0 + k == K) return finish_all<Rows, Units>(a, t.acc, z, z_unit, j0, at.unit, at.piece);
      add_to_z(a, at, t.acc, z, z_unit, Rows, Units);
    }

    // H is at most one piece.
    static void any_tile(const Args& a, const Place& at, int rows, int log2_units)
      requires is_quantized<E>
    {
      const int64_t j0 = a.j0 + at.row, K = a.weights.K, z_unit = a.z_rows * S * L;
      AnyTile<E, G> t;
      const E* h[t.rows_max];
      for (int r = 0; r < rows; ++r) h[r] = a.h + (j0 + r) * (a.space.row / values);
      const E* w = a.weights.from(at.unit, 0);
      const int units = 1 << log2_units;
      bool done = false;
      if constexpr (Lookahead<E, G>::exists)
        if ((done = rows == 1 && units == Lookahead<E, G>::units && a.lookahead && a.lookahead->pending()))
          a.lookahead->multiply(t.acc, h[0], K, w);
      if (!done)
        t.multiply(rows, log2_units, h, K, w, G * L, K * G * L, a.weights.ahead(units, at, w, K, 0, a.swept_bytes));
      T* z = a.z + (at.unit * a.z_rows + a.z_first + j0) * S * L;
      finish_pairs(a, t.acc, z, z_unit, j0, at.unit, 0, rows * units, units);
    }

    static void dense(const Args& a, const Place& at, int rows) {
      const int64_t j0 = a.j0 + at.row, row = a.space.row / values, step = a.blocks.vectors * L;
      const auto [k0, k] = piece_of<E>(at.piece, a.weights.K);
      DenseTile<E> t;
      const E* h[t.rows_max];
      for (int r = 0; r < rows; ++r) h[r] = a.h + (j0 + r) * row + k0;
      t.multiply(rows, a.blocks, h, RowRun::single(k), a.weights.from(at.unit, 0) + k0 * step, step);
      Sum acc[t.rows_max * G];
      for (int i = 0; i < rows * G; ++i) acc[i] = t.gate(a.blocks, i / G, i % G);
      T* z = a.z + (at.unit * a.z_rows + a.z_first + j0) * S * L;
      if (!is_quantized<E> && k0 + k < a.weights.K) return add_to_z(a, at, acc, z, 0, rows, 1);
      if constexpr (is_quantized<E>) return finish_pairs(a, acc, z, 0, j0, at.unit, at.piece, rows, 1);
      for_groups(rows,
                 [&](int N, int i) FUSEDRNN_BODY { a.finish[N](a, acc + i * G, z, 0, j0, at.unit, at.piece, i, 1); });
    }

    static void joined(const Args& a, const Place& at) {
      const int64_t j0 = a.j0 + at.row;
      const auto [k0, k] = piece_of<E>(at.piece, a.weights.K);
      JoinedTile<E, G> t;
      const E *wide = a.weights.from(at.unit, 0), *dense = a.weights.from(at.unit + 1, 0);
      t.multiply(a.blocks, a.h + j0 * (a.space.row / values) + k0, k, wide + k0 * G * L,
                 dense + k0 * a.blocks.vectors * L);
      T* z = a.z + (at.unit * a.z_rows + a.z_first + j0) * S * L;
      const int64_t z_unit = a.z_rows * S * L;
      if (k0 + k < a.weights.K) return add_to_z(a, at, t.acc, z, z_unit, 1, 2);
      finish_all<1, 2>(a, t.acc, z, z_unit, j0, at.unit, at.piece);
    }

    static FUSEDRNN_INLINE void add_to_z(const Args& a, const Place& at, const Sum* acc, T* z, int64_t z_unit, int rows,
                                         int units) {
#pragma GCC unroll 1
      for (int r = 0; r < rows; ++r)
        for (int j = 0; j < units * G; ++j) {
          T* sum = z + (j / G) * z_unit + (r * S + rec + j % G) * L;
          const V value = a.factors.value(acc[r * units * G + j], a.j0 + at.row + r, (at.unit * G + j) * L);
          (value + V::load(earlier_sum(a, sum, rec + j % G, at.unit + j / G, at.piece))).store(sum);
        }
    }

    // What the product of this piece of k is added to: z from the input or from earlier pieces. A slot that the input
    // does not feed starts from its own bias.
    static FUSEDRNN_INLINE const T* earlier_sum(const Args& a, const T* z, int slot, int64_t unit, int64_t piece) {
      return slot >= in || piece ? z : a.seq->recurrent_bias + unit * L;
    }

    template <int Rows, int Units>
    static FUSEDRNN_INLINE void finish_all(const Args& a, const Sum* acc, T* z, int64_t z_unit, int64_t j0,
                                           int64_t unit, int64_t piece) {
      each_group<Rows * Units>(
          [&](int N, int i) FUSEDRNN_BODY { a.finish[N](a, acc + i * G, z, z_unit, j0, unit, piece, i, Units); });
    }
  };

  // The same for tiles of any shape, which with Quads is quick enough for all.
  static __attribute__((noinline)) void finish_pairs(const Args& a, const Sum* acc, T* z, int64_t z_unit, int64_t j0,
                                                     int64_t unit, int64_t piece, int cells, int units) {
    for (int i = 0, N; i < cells; i += N) {
      N = cells - i > 1 ? 2 : 1;
      a.finish[N](a, acc + i * G, z, z_unit, j0, unit, piece, i, units);
    }
  }

  // How steps are taken: each is one sweep over W_hh, and its tiles finish their cells. Then W_hr, if there is one,
  // makes h of what these have left.
  struct SweptSteps {
    using Ahead = Lookahead<E, G>;
    static constexpr bool may_project = C::has_cell_state && values == 1;
    SweptSteps(const Args& a, const Share& share) : projects_(a.seq->projection) {
      if constexpr (may_project)
        if (projects_) projection_.set(a, share);
    }
    FUSEDRNN_INLINE bool take(const Args& a, const Share& share, int64_t n, int64_t pieces) {
      if constexpr (may_normalise<C, E>)
        if (__builtin_expect(a.seq->norm != nullptr, false))
          return NormalisedSteps<C, T>::template take<ForwardPass>(a, share, n, pieces);
      if (!sweep_blocks<Step, E, !is_quantized<E>>(a, share, a.blocks, n, share.unit_begin, share.unit_end, pieces,
                                                   a.step & 1))
        return false;
      if constexpr (may_project)
        if (__builtin_expect(projects_, false)) return projection_.take(a, share, n);
      return true;
    }

   private:
    const bool projects_;
    HiddenProjection<Args, T> projection_;
  };

  template <class Steps = SweptSteps>
  static bool run(const Sequence<T>& seq, const Share& share, const Finish* finish) {
    const Ragged& ragged = *seq.ragged;
    const int64_t j0 = share.sample_begin, row_bytes = (share.unit_end - share.unit_begin) * G * L * int64_t(sizeof(T));
    const int64_t K = ceil_div(seq.P, values), KI = ceil_div(seq.I, values);
    Args a{
        .seq = &seq,
        .blocks = Blocks(seq.H, G, L, values),
        .space = Workspace<C, T, E>(seq, share.size),
        .weights = {operands<E>(seq.recurrent_weights), K},
        .h = nullptr,
        .factors = {},
        .z = seq.gates,
        .z_rows = 0,
        .step = 0,
        .z_first = 0,
        .j0 = j0,
        .swept_bytes = K * row_bytes,
        .finish = finish,
        .y_row = nullptr,
        .lookahead = nullptr,
    };
    const int64_t recurrent_pieces = ceil_div(seq.P, longest_piece<E>),
                  input_pieces = ceil_div(seq.I, longest_piece<E>);
    if (!seq.gates) a.z = a.space.z(share.rank);
    a.z_rows = seq.gates ? ragged.rows() : a.space.chunk_rows;
    const E** x_row = a.space.x_rows(share.rank);
    int64_t* z_row = a.space.z_rows(share.rank);
    a.y_row = a.space.y_rows(share.rank);
    E* rounded_x = a.space.rounded_x(share.rank);
    const int planes = is_quantized<E> ? seq.input_planes : 1;
    typename Project<E, G>::Args projection{
        .blocks = &a.blocks,
        .weights = {operands<E>(seq.input_weights), KI},
        .bias = seq.input_bias,
        .factors = {},
        .planes = planes,
        .x_row = x_row,
        .z_row = z_row,
        .z = a.z + in * L,
        .z_unit = a.z_rows * S * L,
        .z_stride = S * L,
        .swept_bytes = KI * row_bytes,
    };
    if constexpr (is_quantized<E>) {
      a.factors = {a.space.h_scales(share.rank), seq.recurrent_scales, seq.recurrent_excess};
      projection.factors = {a.space.x_scales(share.rank), seq.input_scales, seq.input_excess};
    }

    load_state(a, share);
    if (share.shares_steps && !share.barrier(share.context)) return false;
    const int64_t here = share.sample_end - j0;
    constexpr int64_t close = 2 * max_rows(G);  // rows: whole tiles, but few, because another thread waits for them
    const int64_t chunk_rows = share.follows_closely() ? close : a.space.chunk_rows;
    const bool may_look_ahead =
        !share.follows_closely() && !seq.norm && Steps::Ahead::pays(projection, K, a.swept_bytes);
    Steps steps(a, share);
    for (int64_t begin = 0, end; begin < ragged.steps; begin = end) {
      const bool looks_ahead = may_look_ahead && smaller(ragged.count(begin), share.sample_end) == j0 + 1;
      int64_t rows = 0;
      for (end = begin; end < ragged.steps && (end == begin || rows + here <= chunk_rows); ++end) {
        const int64_t n = smaller(ragged.count(end), share.sample_end);
        if (n <= j0) break;
        if (may_look_ahead && !looks_ahead && n == j0 + 1) break;  // one sequence is left: from here on another chunk
        if (share.await_input && !share.await_input(share.context, end + 1)) return false;
        each_sample(j0, n, [&](int64_t j) FUSEDRNN_BODY {
          const T* x = row_of(seq.x, seq, end, j);
          const int64_t z = seq.gates ? ragged.first[end] + j : rows, to = rows * planes;
          if constexpr (values == 1)
            x_row[to] = x;
          else if constexpr (values == 2)
            x_row[to] = round_row(x, seq.I, rounded_x + to * a.space.x_row);
          else
            quantize_row(x, seq.I, planes, reinterpret_cast<uint8_t*>(rounded_x + to * a.space.x_row),
                         a.space.x_row * values, a.space.x_scales(share.rank) + to);
          for (int plane = 0; plane < planes; ++plane) {
            if constexpr (is_quantized<E>) x_row[to + plane] = rounded_x + (to + plane) * a.space.x_row;
            z_row[to + plane] = z;
          }
          ++rows;
        });
      }
      if (end == begin) break;  // the samples of this thread have ended
      const int64_t at_once = looks_ahead ? 0 : rows * planes;
      if (!Project<E, G>::cover(projection, share, at_once, share.unit_begin, share.unit_end, input_pieces))
        return false;
      typename Steps::Ahead lookahead(projection, share, looks_ahead ? rows * planes : 0);
      if constexpr (Steps::Ahead::exists) a.lookahead = looks_ahead ? &lookahead : nullptr;
      int64_t done = 0;
      for (a.step = begin; a.step < end; ++a.step) {
        if (looks_ahead) lookahead.begin_step(a.step - begin);
        const int64_t n = smaller(ragged.count(a.step), share.sample_end) - j0;
        a.z_first = seq.gates ? ragged.first[a.step] : done - j0;
        each_sample(j0, j0 + n, [&](int64_t j) FUSEDRNN_BODY { a.y_row[j] = row_of(seq.y, seq, a.step, j); });
        a.h = operand(a, share.rank, j0, j0 + n);
        if (!steps.take(a, share, n, recurrent_pieces)) return false;
        done += n;
        if (share.shares_steps && !share.barrier(share.context)) return false;
      }
      if (share.publish_output) share.publish_output(share.context, end);
      if (!share.poll(share.context)) return false;
    }
    store_state(a, share);
    return true;
  }

 private:
  // h before the current step as the product reads it, that of samples [begin, end) at least.
  static FUSEDRNN_INLINE const E* operand(const Args& a, int rank, int64_t begin, int64_t end) {
    if constexpr (!is_quantized<E>) return a.space.operand(a.step);
    if constexpr (is_quantized<E>) {
      E* to = a.space.quantized_h(rank);
      for (int64_t j = begin; j < end; ++j)
        quantize_row(a.space.h(a.step) + j * a.space.row, a.seq->H, 1,
                     reinterpret_cast<uint8_t*>(to + j * a.space.row / values), 0, a.space.h_scales(rank) + j);
      return to;
    }
  }

  // A row of x as Pairs; its last vector is filled up with zeros.
  static FUSEDRNN_INLINE E* round_row(const T* x, int64_t I, E* to) {
    uint16_t* halves = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < I; i += L) store_rounded(load_within(x, i, I), halves + i);
    return to;
  }

  static void load_state(const Args& a, const Share& share) {
    const Sequence<T>& seq = *a.seq;
    each_state<L>(share, a.space.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      const V h = read_state(seq, seq.h0, j, unit, seq.P);
      h.store(a.space.h(0) + at);
      if constexpr (values == 2)
        store_rounded(h, reinterpret_cast<uint16_t*>(a.space.operand(0)) + at);
      else if constexpr (values == 1)
        if (const T* factor = factor_row(seq, j))
          (h * load_within(factor, unit * L, seq.P)).store(a.space.operand(0) + at);
      if (C::has_cell_state) read_state(seq, seq.c0, j, unit, seq.H).store(a.space.c() + at);
    });
  }

  // A sample's last h stands in the buffer that its last step wrote.
  static void store_state(const Args& a, const Share& share) {
    const Sequence<T>& seq = *a.seq;
    each_state<L>(share, a.space.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      write_state(seq, seq.hn, j, unit, V::load(a.space.h(seq.ragged->length[j]) + at), seq.P);
      if (C::has_cell_state) write_state(seq, seq.cn, j, unit, V::load(a.space.c() + at), seq.H);
    });
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
