// The time loop of backward: one direction of one layer, all cells of one shape.
#pragma once
#include "cpu/kernels/gate_gradients.h"
#include "cpu/kernels/rows.h"
#include "cpu/kernels/sweep.h"
#include "cpu/kernels/time_loop.h"
#include "cpu/kernels/workspace.h"

namespace fusedrnn::FUSEDRNN_ISA {

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
    const Sequence<T>* seq;
    Blocks blocks;
    int64_t row, total_rows;
    PackedMatrix<E, 1> weights;  // W_hh^T; K: of the units and gates, in elements of E
    RowRun dz;                   // of all blocks
    T *carry, *dc;               // (B, row): the part of dL/dh that does not come through W_hh, and dL/dc
    int64_t step;                // -1: the initial state
    int64_t j0, runs;            // runs: U, or 0 for samples without a later step
    int64_t swept_bytes;
    const Finish* finish;  // by N
  };

  struct Step {
    using Args = BackwardPass::Args;
    static constexpr int gates = 1;
    template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
      const Sequence<T>& seq = *a.seq;
      const int64_t j0 = a.j0 + at.row, R = a.total_rows;
      const int64_t run0 = at.piece * runs_per_piece, run1 = smaller(a.runs, run0 + runs_per_piece);
      Tile<E, Rows, Units, 1> t;
      const E* dz[Rows];
      for (int r = 0; r < Rows; ++r)
        dz[r] = operands<E>(seq.gates + (run0 * R + seq.ragged->first[a.step + 1] + j0 + r) * S * L) + rec * L / values;
      const int64_t K = a.weights.K, k = smaller((run1 - run0) * run_length, K - run0 * run_length);
      const int64_t next_k = at.next_piece * runs_per_piece * run_length;
      const E* w = a.weights.from(at.unit, run0 * run_length);
      const T* dy[Rows];
      const bool adds_dy = at.piece == 0 && a.step >= 0 && seq.dy.data;
      if (adds_dy) find_dy(a, dy, j0, Rows, at.unit, Units);
      t.multiply(dz, a.dz.part(run0, run1), w, L, K * L,
                 a.weights.template ahead<Units>(at, w, k, next_k, a.swept_bytes));
#pragma GCC unroll 1
      for (int r = 0; r < Rows; ++r)
        for (int u = 0; u < Units; ++u) {
          T* carry = a.carry + (j0 + r) * a.row + (at.unit + u) * L;
          V dh = t.acc[r * t.vectors + u] + V::load(carry);
          if (adds_dy) dh = dh + load_within(dy[r], u * L, seq.H - at.unit * L);
          t.acc[r * t.vectors + u] = dh;
          if (run1 < a.runs)
            dh.store(carry);
          else if (a.step < 0)
            store_within(dh, seq.dh0.data + seq.ragged->state[j0 + r] * seq.dh0.stride, (at.unit + u) * L, seq.H);
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
      dy[r] = row_of(a.seq->dy, *a.seq, a.step, j0 + r) + unit * L;
      for (int u = 0; u < units; ++u) __builtin_prefetch(dy[r] + u * L, 0, 3);
    }
  }

  static bool run(const Sequence<T>& seq, const Share& share, const Finish* finish) {
    const Ragged& ragged = *seq.ragged;
    const Workspace<C, T, E> space(seq, share.size);
    const Blocks blocks(seq.H, G, L, values);
    const int64_t K = ceil_div(blocks.columns, values);
    Args a{
        .seq = &seq,
        .blocks = blocks,
        .row = space.row,
        .total_rows = ragged.rows(),
        .weights = {operands<E>(seq.recurrent_weights_t), K},
        .dz = gate_run(blocks, values, rec, ragged.rows() * S * L),
        .carry = space.h(0),
        .dc = space.c(),
        .step = 0,
        .j0 = 0,
        .runs = 0,
        .swept_bytes = (share.unit_end - share.unit_begin) * K * L * int64_t(sizeof(T)),
        .finish = finish,
    };
    load_state(a, share);
    int64_t later = 0;  // samples that have a later step
    for (a.step = ragged.steps - 1; a.step >= -1; --a.step) {
      const int64_t now = a.step >= 0 ? ragged.count(a.step) : ragged.batch;
      if (!sweep(a, share, 0, later, blocks.units) || !sweep(a, share, later, now, 0)) return false;
      if (share.shares_steps && !share.barrier(share.context)) return false;
      if ((a.step & 15) == 0 && !share.poll(share.context)) return false;
      later = now;
    }
    if constexpr (C::has_cell_state) store_dc0(a, share);
    return true;
  }

 private:
  // The samples [low, high) that are this thread's.
  static bool sweep(Args& a, const Share& share, int64_t low, int64_t high, int64_t runs) {
    if (low < share.sample_begin) low = share.sample_begin;
    if (high > share.sample_end) high = share.sample_end;
    a.j0 = low;
    a.runs = runs;
    const int64_t pieces = runs ? ceil_div(runs, runs_per_piece) : 1;
    return Sweep<Step>::run(a, share, high - low, share.unit_begin, share.unit_end, pieces, a.step & 1);
  }

  static void load_state(const Args& a, const Share& share) {
    const Sequence<T>& seq = *a.seq;
    each_state<L>(share, a.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      read_state(seq, seq.dhn, j, unit).store(a.carry + at);
      if (C::has_cell_state) read_state(seq, seq.dcn, j, unit).store(a.dc + at);
    });
  }

  static void store_dc0(const Args& a, const Share& share) {
    const Sequence<T>& seq = *a.seq;
    each_state<L>(share, a.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      write_state(seq, seq.dc0, j, unit, V::load(a.dc + at));
    });
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
