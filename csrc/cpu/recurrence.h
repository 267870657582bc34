// The time loops: forward and backpropagation through time of one direction of one layer.
#pragma once
#include "cpu/projection.h"
#include "cpu/rows.h"
#include "cpu/vmath.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Transposed weights hold one vector for each k, where k counts (unit, gate): so many blocks of units are a piece.
template <class C, class T>
constexpr int64_t units_per_piece = piece_length / (C::gates * Vec<T>::lanes);

// dz as the rows of a product: for each block of units the columns from the gate in `slot` on, `jump` apart.
FUSEDRNN_INLINE RowRun gate_run(const Blocks& blocks, int64_t values, int64_t slot, int64_t jump) {
  const int64_t length = blocks.gates * blocks.lanes, last = blocks.units - 1;
  return {blocks.units, length / values, jump, ceil_div(blocks.columns - last * length, values),
          slot * (blocks.distance(last) - blocks.lanes) / values};
}

// Weights as the products read them: elements of E in the storage of T (cpu/pack.h).
template <class E, class T> FUSEDRNN_INLINE const E* operands(const T* storage) {
  return reinterpret_cast<const E*>(storage);
}

// Layout of Sequence::workspace, the same for all layers that use it. Rows of state are padded to whole vectors, and by
// one more vector where their size is a multiple of a page: six rows a page apart would fight for the same lines of the
// first-level cache.
template <class C, class T, class E> struct Workspace {
  static constexpr int L = Vec<T>::lanes, values = Operand<E>::values;
  int64_t units, row;             // U; elements of a row of state
  int64_t chunk_rows;             // rows projected at a time by one thread
  int64_t h, c, z, pointers;      // offsets in elements, from the start
  int64_t rounded_h, rounded_x;   // of h and x as Pairs, if that is what is multiplied
  int64_t z_size, x_row, x_size;  // of one thread
  int64_t total;

  FUSEDRNN_INLINE Workspace(const Sequence<T>& q, int team_size) {
    const int64_t B = q.ragged->batch;
    units = ceil_div(q.H, L);
    row = units * L + (units * L * int64_t(sizeof(T)) % 4096 == 0 ? L : 0);
    const int64_t fits = (128 << 10) / (units * C::slots * L * int64_t(sizeof(T)));
    chunk_rows = fits < 64 ? 64 : fits > 512 ? 512 : fits;
    if (chunk_rows < B) chunk_rows = B;
    h = 0;
    c = h + 2 * B * row;
    z = c + B * row;
    z_size = q.gates ? 0 : chunk_rows * units * C::slots * L;
    x_row = values > 1 ? ceil_div(q.widest_input, L) * L / values : 0;
    x_size = chunk_rows * x_row;
    rounded_h = z + team_size * z_size;
    rounded_x = rounded_h + (values > 1 ? 2 * B * row / values : 0);
    pointers = rounded_x + team_size * x_size;
    total = pointers + team_size * chunk_rows * 3 * int64_t(sizeof(void*) / sizeof(T));
  }
};

// What the time loops need to know of a cell. Cells that differ in their formulas alone share them.
template <int Gates, int Slots, int InputSlot, int RecurrentSlot, bool CellState> struct CellShape {
  static constexpr int gates = Gates, slots = Slots, input_slot = InputSlot, recurrent_slot = RecurrentSlot;
  static constexpr bool has_cell_state = CellState;
};
template <class C>
using ShapeOf =
    CellShape<C::layout.gates, C::slots, C::layout.input_slot, C::layout.recurrent_slot, C::layout.has_cell_state>;

// How many cells of a tile go through the cell's formula side by side.
constexpr int cells_at_once(int cells) { return cells <= 5 ? cells : cells % 3 == 0 ? 3 : 4; }

// Calls body(N, i) for groups of N cells, the first of which is cell i of the tile.
template <int cells, class Body> FUSEDRNN_INLINE void each_group(const Body& body) {
  constexpr int N = cells_at_once(cells), rest = cells % N;
#pragma GCC unroll 1
  for (int i = 0; i + N <= cells; i += N) body(N, i);
  if constexpr (rest > 0) body(rest, cells - rest);
}

// Calls body(j, unit, at) for each sorted sample and block of units that are this thread's; at: where the block begins
// in a state whose rows are `row` apart.
template <int L, class Body> FUSEDRNN_INLINE void each_state(const Team& team, int64_t row, const Body& body) {
  for (int64_t j = team.sample_begin; j < team.sample_end; ++j)
    for (int64_t unit = team.unit_begin; unit < team.unit_end; ++unit) body(j, unit, j * row + unit * L);
}

// Calls body(j) for samples [begin, end). One alone does not pass through the checks before a vectorised loop, which
// take as long as a tenth of a step of few units.
template <class Body> FUSEDRNN_INLINE void each_sample(int64_t begin, int64_t end, const Body& body) {
  if (end - begin == 1) return body(begin);
  for (int64_t j = begin; j < end; ++j) body(j);
}

// A block of units of sorted sample j in the caller's arrays.
template <class T>
FUSEDRNN_INLINE Vec<T> read_state(const Sequence<T>& q, const StateView<const T>& from, int64_t j, int64_t unit) {
  if (!from.data) return Vec<T>(T(0));
  return load_within(from.data + q.ragged->sample[j] * from.stride, unit * Vec<T>::lanes, q.H);
}
template <class T>
FUSEDRNN_INLINE void write_state(const Sequence<T>& q, const StateView<T>& to, int64_t j, int64_t unit, Vec<T> state) {
  store_within(state, to.data + q.ragged->sample[j] * to.stride, unit * Vec<T>::lanes, q.H);
}

template <class C, class T, class E> struct ForwardPass {
  using V = Vec<T>;
  static constexpr int L = V::lanes, G = C::gates, S = C::slots, values = Operand<E>::values;
  static constexpr int in = C::input_slot, rec = C::recurrent_slot;

  // Runs cells [first, first + N) of a tile that is `units` wide and begins at sample j0 and unit0; acc is what
  // W_hh h has added to their gates in this piece of k, z where the first cell of the tile finds the rest.
  struct Args;
  using Finish = void (*)(const Args&, const V* acc, T* z, int64_t z_unit, int64_t j0, int64_t unit0, int64_t piece,
                          int first, int units);

  struct Args {
    const Sequence<T>* q;
    Blocks blocks;
    Workspace<C, T, E> space;
    int64_t K;  // of H, in elements of E
    T* z;       // slots of row i of unit u at z + (u*z_rows + i)*S*L
    int64_t z_rows;
    int64_t step, z_first;       // sample j of the current step has row z_first + j in z
    int64_t j0;                  // first sample of this thread
    int64_t swept_bytes;         // of weights, per step
    const Finish* finish;        // by N, the cells side by side
    T** y_row;                   // (B): where sample j's output of the current step goes
    Lookahead<E, G>* lookahead;  // null: the input products of all rows of the chunk are there

    // h before step s: two buffers (B, row) take turns.
    FUSEDRNN_INLINE T* h(int64_t s) const { return q->workspace + space.h + (s & 1) * q->ragged->batch * space.row; }
    // The same as the products read it: h itself or its Pairs.
    FUSEDRNN_INLINE E* operand(int64_t s) const {
      if constexpr (values == 1)
        return h(s);
      else
        return reinterpret_cast<E*>(q->workspace + space.rounded_h) + (s & 1) * q->ragged->batch * space.row / values;
    }
  };

  // One step: z += W_hh h, then the cell on the accumulators.
  struct Step {
    using Args = ForwardPass::Args;
    static constexpr int gates = G;
    template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
      const Sequence<T>& q = *a.q;
      const int64_t j0 = a.j0 + at.row, row = a.space.row / values;
      const E* h0 = a.operand(a.step) + j0 * row;
      Tile<E, Rows, Units, G> t;
      T* z = a.z + (at.unit * a.z_rows + a.z_first + j0) * S * L;
      const int64_t z_unit = a.z_rows * S * L;
      const auto [k0, k] = piece_of<E>(at.piece, a.K);
      const E* h[Rows];
      for (int r = 0; r < Rows; ++r) h[r] = h0 + r * row + k0;
      const E* weights = operands<E>(q.recurrent_weights);
      const E* w = weights + (at.unit * a.K + k0) * G * L;
      const int64_t panel = at.next_unit + at.left % Units;  // a line per k: of one unit
      const E* next = weights + (panel * a.K + piece_of<E>(at.next_piece, a.K).begin) * G * L;
      if constexpr (Lookahead<E, G>::exists && Rows == 1 && Units == Lookahead<E, G>::units)
        if (a.lookahead && a.lookahead->pending()) {
          a.lookahead->multiply(t.acc, h[0], a.K, w);
          return finish_all<Rows, Units>(a, t.acc, z, z_unit, j0, at.unit, 0);
        }
      t.multiply(h, RowRun::single(k), w, G * L, a.K * G * L, fetch(w, next, G, k, at.left / Units, a.swept_bytes));
      if (k0 + k == a.K) return finish_all<Rows, Units>(a, t.acc, z, z_unit, j0, at.unit, at.piece);
      add_to_z(a, at, t.acc, z, z_unit, Rows, Units);
    }

    static void dense(const Args& a, const Place& at, int rows) {
      const int64_t j0 = a.j0 + at.row, row = a.space.row / values, step = a.blocks.vectors * L;
      const auto [k0, k] = piece_of<E>(at.piece, a.K);
      DenseTile<E> t;
      const E* h[t.rows_max];
      for (int r = 0; r < rows; ++r) h[r] = a.operand(a.step) + (j0 + r) * row + k0;
      const E* w = operands<E>(a.q->recurrent_weights) + at.unit * a.K * G * L + k0 * step;
      t.multiply(rows, a.blocks, h, RowRun::single(k), w, step);
      V acc[t.rows_max * G];
      for (int i = 0; i < rows * G; ++i) acc[i] = t.gate(a.blocks, i / G, i % G);
      T* z = a.z + (at.unit * a.z_rows + a.z_first + j0) * S * L;
      if (k0 + k < a.K) return add_to_z(a, at, acc, z, 0, rows, 1);
      const int N = cells_at_once(rows);  // a divisor of up to six rows
      for (int i = 0; i < rows; i += N) a.finish[N](a, acc + i * G, z, 0, j0, at.unit, at.piece, i, 1);
    }

    static void joined(const Args& a, const Place& at) {
      const int64_t j0 = a.j0 + at.row;
      const auto [k0, k] = piece_of<E>(at.piece, a.K);
      JoinedTile<E, G> t;
      const E *wide = operands<E>(a.q->recurrent_weights) + at.unit * a.K * G * L, *dense = wide + a.K * G * L;
      t.multiply(a.blocks, a.operand(a.step) + j0 * (a.space.row / values) + k0, k, wide + k0 * G * L,
                 dense + k0 * a.blocks.vectors * L);
      T* z = a.z + (at.unit * a.z_rows + a.z_first + j0) * S * L;
      const int64_t z_unit = a.z_rows * S * L;
      if (k0 + k < a.K) return add_to_z(a, at, t.acc, z, z_unit, 1, 2);
      finish_all<1, 2>(a, t.acc, z, z_unit, j0, at.unit, at.piece);
    }

    static FUSEDRNN_INLINE void add_to_z(const Args& a, const Place& at, const V* acc, T* z, int64_t z_unit, int rows,
                                         int units) {
#pragma GCC unroll 1
      for (int r = 0; r < rows; ++r)
        for (int j = 0; j < units * G; ++j) {
          T* sum = z + (j / G) * z_unit + (r * S + rec + j % G) * L;
          (acc[r * units * G + j] + V::load(earlier_sum(a, sum, rec + j % G, at.unit + j / G, at.piece))).store(sum);
        }
    }

    // What the product of this piece of k is added to: z from the input or from earlier pieces. A slot that the input
    // does not feed starts from its own bias.
    static FUSEDRNN_INLINE const T* earlier_sum(const Args& a, const T* z, int slot, int64_t unit, int64_t piece) {
      return slot >= in || piece ? z : a.q->recurrent_bias + unit * L;
    }

    template <int Rows, int Units>
    static FUSEDRNN_INLINE void finish_all(const Args& a, const V* acc, T* z, int64_t z_unit, int64_t j0, int64_t unit,
                                           int64_t piece) {
      each_group<Rows * Units>(
          [&](int N, int i) FUSEDRNN_BODY { a.finish[N](a, acc + i * G, z, z_unit, j0, unit, piece, i, Units); });
    }
  };

  static bool run(const Sequence<T>& q, const Team& team, const Finish* finish) {
    const Ragged& ragged = *q.ragged;
    const int64_t j0 = team.sample_begin, row_bytes = (team.unit_end - team.unit_begin) * G * L * int64_t(sizeof(T));
    const int64_t K = ceil_div(q.H, values), KI = ceil_div(q.I, values);
    Args a{
        .q = &q,
        .blocks = Blocks(q.H, G, L, values),
        .space = Workspace<C, T, E>(q, team.size),
        .K = K,
        .z = q.gates,
        .z_rows = 0,
        .step = 0,
        .z_first = 0,
        .j0 = j0,
        .swept_bytes = K * row_bytes,
        .finish = finish,
        .y_row = nullptr,
        .lookahead = nullptr,
    };
    const int64_t recurrent_pieces = ceil_div(q.H, piece_length), input_pieces = ceil_div(q.I, piece_length);
    if (!q.gates) a.z = q.workspace + a.space.z + team.rank * a.space.z_size;
    a.z_rows = q.gates ? ragged.first[ragged.steps] : a.space.chunk_rows;
    const E** x_row = reinterpret_cast<const E**>(q.workspace + a.space.pointers) + team.rank * a.space.chunk_rows * 3;
    int64_t* z_row = reinterpret_cast<int64_t*>(x_row + a.space.chunk_rows);
    a.y_row = reinterpret_cast<T**>(z_row + a.space.chunk_rows);
    E* rounded_x = reinterpret_cast<E*>(q.workspace + a.space.rounded_x + team.rank * a.space.x_size);
    const typename Project<E, G>::Args projection{
        .blocks = &a.blocks,
        .weights = operands<E>(q.input_weights),
        .bias = q.input_bias,
        .K = KI,
        .x_row = x_row,
        .z_row = z_row,
        .z = a.z + in * L,
        .z_unit = a.z_rows * S * L,
        .z_stride = S * L,
        .swept_bytes = KI * row_bytes,
    };

    load_state(a, team);
    if (team.shares_steps && !team.barrier(team.context)) return false;
    const int64_t here = team.sample_end - j0;
    constexpr int64_t close = 2 * max_rows(G);  // rows: whole tiles, but few, because another thread waits for them
    const int64_t chunk_rows = team.follows_closely() ? close : a.space.chunk_rows;
    const bool may_look_ahead = !team.follows_closely() && Lookahead<E, G>::pays(projection, K, a.swept_bytes);
    for (int64_t begin = 0, end; begin < ragged.steps; begin = end) {
      const bool looks_ahead = may_look_ahead && smaller(count(ragged, begin), team.sample_end) == j0 + 1;
      int64_t rows = 0;
      for (end = begin; end < ragged.steps && (end == begin || rows + here <= chunk_rows); ++end) {
        const int64_t n = smaller(count(ragged, end), team.sample_end);
        if (n <= j0) break;
        if (may_look_ahead && !looks_ahead && n == j0 + 1) break;  // one sequence is left: from here on another chunk
        if (team.await_input && !team.await_input(team.context, end + 1)) return false;
        each_sample(j0, n, [&](int64_t j) FUSEDRNN_BODY {
          const T* x = row_of(q.x, q, end, j);
          if constexpr (values == 1)
            x_row[rows] = x;
          else
            x_row[rows] = round_row(x, q.I, rounded_x + rows * a.space.x_row);
          z_row[rows] = q.gates ? ragged.first[end] + j : rows;
          ++rows;
        });
      }
      if (end == begin) break;  // the samples of this thread have ended
      const int64_t at_once = looks_ahead ? 0 : rows;
      sweep_blocks<Project<E, G>, E>(projection, a.blocks, at_once, team.unit_begin, team.unit_end, input_pieces);
      Lookahead<E, G> lookahead(projection, rows - at_once, team.unit_begin, team.unit_end);
      a.lookahead = looks_ahead ? &lookahead : nullptr;
      int64_t done = 0;
      for (a.step = begin; a.step < end; ++a.step) {
        if (looks_ahead) lookahead.begin_step(a.step - begin);
        const int64_t n = smaller(count(ragged, a.step), team.sample_end) - j0;
        a.z_first = q.gates ? ragged.first[a.step] : done - j0;
        each_sample(j0, j0 + n, [&](int64_t j) FUSEDRNN_BODY { a.y_row[j] = row_of(q.y, q, a.step, j); });
        sweep_blocks<Step, E>(a, a.blocks, n, team.unit_begin, team.unit_end, recurrent_pieces, a.step & 1);
        done += n;
        if (team.shares_steps && !team.barrier(team.context)) return false;
      }
      if (team.publish_output) team.publish_output(team.context, end);
      if (!team.poll(team.context)) return false;
    }
    store_state(a, team);
    return true;
  }

 private:
  // A row of x as Pairs; its last vector is filled up with zeros.
  static FUSEDRNN_INLINE E* round_row(const T* x, int64_t I, E* to) {
    uint16_t* halves = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < I; i += L) store_rounded(load_within(x, i, I), halves + i);
    return to;
  }

  static void load_state(const Args& a, const Team& team) {
    const Sequence<T>& q = *a.q;
    each_state<L>(team, a.space.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      const V h = read_state(q, q.h0, j, unit);
      h.store(q.workspace + a.space.h + at);
      if constexpr (values > 1) store_rounded(h, reinterpret_cast<uint16_t*>(a.operand(0)) + at);
      if (C::has_cell_state) read_state(q, q.c0, j, unit).store(q.workspace + a.space.c + at);
    });
  }

  // A sample's last h stands in the buffer that its last step wrote.
  static void store_state(const Args& a, const Team& team) {
    const Sequence<T>& q = *a.q;
    each_state<L>(team, a.space.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      const T* h = q.workspace + a.space.h + (q.ragged->length[j] & 1) * q.ragged->batch * a.space.row;
      write_state(q, q.hn, j, unit, V::load(h + at));
      if (C::has_cell_state) write_state(q, q.cn, j, unit, V::load(q.workspace + a.space.c + at));
    });
  }
};

// Backpropagation through time: dL/dz of every step, in place of the saved gates.
//   dh(s) = dy(s) + bypass(s+1) + W_hh^T dz(s+1)        dz(s), dc, bypass(s) = cell.backward(dh(s))
// The gates of the dense block move together (cpu/blocks.h). With Pairs, dz is kept rounded: the S*L values of a unit
// and row in the first half of their place in gates.
template <class C, class T, class E> struct BackwardPass {
  using V = Vec<T>;
  static constexpr int L = V::lanes, G = C::gates, S = C::slots, rec = C::recurrent_slot;
  static constexpr int values = Operand<E>::values, run_length = G * L / values;  // of a unit's gates
  static constexpr int64_t runs_per_piece = units_per_piece<C, T>;

  // Cells [first, first + N) of a tile, whose dL/dh is acc.
  struct Args;
  using Finish = void (*)(const Args&, const V* acc, int64_t j0, int64_t unit0, int first, int units);

  struct Args {
    const Sequence<T>* q;
    Blocks blocks;
    int64_t row, total_rows;
    int64_t K;         // of the units and gates, in elements of E
    RowRun dz;         // of all blocks
    T *carry, *dc;     // (B, row): the part of dL/dh that does not come through W_hh, and dL/dc
    int64_t step;      // -1: the initial state
    int64_t j0, runs;  // runs: U, or 0 for samples without a later step
    int64_t swept_bytes;
    const Finish* finish;  // by N
  };

  struct Step {
    using Args = BackwardPass::Args;
    static constexpr int gates = 1;
    template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
      const Sequence<T>& q = *a.q;
      const int64_t j0 = a.j0 + at.row, R = a.total_rows;
      const int64_t run0 = at.piece * runs_per_piece, run1 = smaller(a.runs, run0 + runs_per_piece);
      Tile<E, Rows, Units, 1> t;
      const E* dz[Rows];
      for (int r = 0; r < Rows; ++r)
        dz[r] = operands<E>(q.gates + (run0 * R + q.ragged->first[a.step + 1] + j0 + r) * S * L) + rec * L / values;
      const int64_t K = a.K, k = smaller((run1 - run0) * run_length, K - run0 * run_length);
      const E* weights = operands<E>(q.recurrent_weights_t);
      const E* w = weights + (at.unit * K + run0 * run_length) * L;
      const int64_t panel = at.next_unit + at.left % Units;  // a line per k: of one panel
      const E* next = weights + (panel * K + at.next_piece * runs_per_piece * run_length) * L;
      const T* dy[Rows];
      const bool adds_dy = at.piece == 0 && a.step >= 0 && q.dy.data;
      if (adds_dy) find_dy(a, dy, j0, Rows, at.unit, Units);
      t.multiply(dz, a.dz.part(run0, run1), w, L, K * L, fetch(w, next, 1, k, at.left / Units, a.swept_bytes));
#pragma GCC unroll 1
      for (int r = 0; r < Rows; ++r)
        for (int u = 0; u < Units; ++u) {
          T* carry = a.carry + (j0 + r) * a.row + (at.unit + u) * L;
          V dh = t.acc[r * t.vectors + u] + V::load(carry);
          if (adds_dy) dh = dh + load_within(dy[r], u * L, q.H - at.unit * L);
          t.acc[r * t.vectors + u] = dh;
          if (run1 < a.runs)
            dh.store(carry);
          else if (a.step < 0)
            store_within(dh, q.dh0.data + q.ragged->sample[j0 + r] * q.dh0.stride, (at.unit + u) * L, q.H);
        }
      if (run1 < a.runs || a.step < 0) return;
      each_group<Rows * Units>([&](int N, int i) FUSEDRNN_BODY { a.finish[N](a, t.acc + i, j0, at.unit, i, Units); });
    }
  };

  // Where dy of a tile stands. It is fetched while the tile multiplies, because nobody has read it before. Apart from
  // the tile: in each of them it would make the library a tenth of a megabyte larger.
  static __attribute__((noinline)) void find_dy(const Args& a, const T** dy, int64_t j0, int rows, int64_t unit,
                                                int units) {
    for (int r = 0; r < rows; ++r) {
      dy[r] = row_of(a.q->dy, *a.q, a.step, j0 + r) + unit * L;
      for (int u = 0; u < units; ++u) __builtin_prefetch(dy[r] + u * L, 0, 3);
    }
  }

  static bool run(const Sequence<T>& q, const Team& team, const Finish* finish) {
    const Ragged& ragged = *q.ragged;
    const Workspace<C, T, E> space(q, team.size);
    const Blocks blocks(q.H, G, L, values);
    const int64_t K = ceil_div(blocks.columns, values);
    Args a{
        .q = &q,
        .blocks = blocks,
        .row = space.row,
        .total_rows = ragged.first[ragged.steps],
        .K = K,
        .dz = gate_run(blocks, values, rec, ragged.first[ragged.steps] * S * L),
        .carry = q.workspace + space.h,
        .dc = q.workspace + space.c,
        .step = 0,
        .j0 = 0,
        .runs = 0,
        .swept_bytes = (team.unit_end - team.unit_begin) * K * L * int64_t(sizeof(T)),
        .finish = finish,
    };
    load_state(a, team);
    int64_t later = 0;  // samples that have a later step
    for (a.step = ragged.steps - 1; a.step >= -1; --a.step) {
      const int64_t now = a.step >= 0 ? count(ragged, a.step) : ragged.batch;
      sweep(a, team, 0, later, blocks.units);
      sweep(a, team, later, now, 0);
      if (team.shares_steps && !team.barrier(team.context)) return false;
      if ((a.step & 15) == 0 && !team.poll(team.context)) return false;
      later = now;
    }
    if constexpr (C::has_cell_state) store_dc0(a, team);
    return true;
  }

 private:
  // The samples [low, high) that are this thread's.
  static void sweep(Args& a, const Team& team, int64_t low, int64_t high, int64_t runs) {
    if (low < team.sample_begin) low = team.sample_begin;
    if (high > team.sample_end) high = team.sample_end;
    a.j0 = low;
    a.runs = runs;
    const int64_t pieces = runs ? ceil_div(runs, runs_per_piece) : 1;
    Sweep<Step>::run(a, high - low, team.unit_begin, team.unit_end, pieces, a.step & 1);
  }

  static void load_state(const Args& a, const Team& team) {
    const Sequence<T>& q = *a.q;
    each_state<L>(team, a.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      read_state(q, q.dhn, j, unit).store(a.carry + at);
      if (C::has_cell_state) read_state(q, q.dcn, j, unit).store(a.dc + at);
    });
  }

  static void store_dc0(const Args& a, const Team& team) {
    const Sequence<T>& q = *a.q;
    each_state<L>(team, a.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      write_state(q, q.dc0, j, unit, V::load(a.dc + at));
    });
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
