// The time loop of backward: one direction of one layer, all cells of one shape.
#pragma once
#include "cpu/kernels/gate_gradients.h"
#include "cpu/kernels/hidden_projection.h"
#include "cpu/kernels/layer_norm.h"
#include "cpu/kernels/panel_tile.h"
#include "cpu/kernels/rows.h"
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
  static constexpr int values = Operand<E>::values;
  static constexpr int swept = C::two_products ? G - 1 : G;  // gates that read h
  static constexpr int64_t runs_per_piece = units_per_piece<T>(swept);

  static constexpr bool may_project = C::has_cell_state && values == 1;

  using Panel = PanelTile<E>;

  // Cells [first, first + N) of a tile, whose dL/dh is dh.
  struct Args;
  using Finish = void (*)(const Args&, const V* dh, int64_t j0, int64_t unit0, int first, int units);

  struct Args : Panel::Args {  // the operands: dz of a later step and W_hh^T; K counts units and gates
    const Sequence<T>* seq;
    const Blocks* blocks;
    int64_t row, total_rows;
    T *carry, *dc;       // (B, row): the part of dL/dh that does not come through W_hh, and dL/dc
    T* between;          // (B, row): sums of the second product of a step, or dL/dh of whole rows
    Share::Range units;  // the blocks of h that are this thread's
    int64_t step;        // -1: the initial state
    int64_t j0;
    const Finish* finish_cells;  // by N
  };

  // Where dy of a tile stands. It is fetched while the tile multiplies, because nobody has read it before.
  static void fetch_dy(const typename Panel::Args& panel, const Place& at, int rows, int units) {
    const Args& a = static_cast<const Args&>(panel);
    if (at.piece || a.step < 0) return;
    for (int r = 0; r < rows; ++r) {
      const T* dy = row_of(a.seq->dy, *a.seq, a.step, a.j0 + at.row + r) + at.unit * L;
      for (int u = 0; u < units; ++u) __builtin_prefetch(dy + u * L, 0, 3);
    }
  }

  static void finish(const typename Panel::Args& panel, const Place& at, V* dh, int rows, int units) {
    const Args& a = static_cast<const Args&>(panel);
    const Sequence<T>& seq = *a.seq;
    const int64_t j0 = a.j0 + at.row;
    const bool adds_dy = at.piece == 0 && a.step >= 0 && seq.dy.data;
    const bool goes_on = (at.piece + 1) * a.runs_per_piece < a.run.runs;
    for (int r = 0; r < rows; ++r) {
      const T* dy = adds_dy ? row_of(seq.dy, seq, a.step, j0 + r) + at.unit * L : nullptr;
      const T* factor = factor_row(seq, j0 + r);
      T* carry = a.carry + (j0 + r) * a.row + at.unit * L;
      for (int u = 0; u < units; ++u) {
        V sum = dh[r * units + u];
        if (factor) sum = sum * load_within(factor, (at.unit + u) * L, seq.P);
        sum = sum + V::load(carry + u * L);
        if (adds_dy) sum = sum + load_within(dy, u * L, seq.P - at.unit * L);
        dh[r * units + u] = sum;
        if (goes_on)
          sum.store(carry + u * L);
        else if (a.step < 0)
          store_within(sum, seq.dh0.data + seq.ragged->state[j0 + r] * seq.dh0.stride, (at.unit + u) * L, seq.P);
      }
    }
    if (goes_on || a.step < 0) return;
    if constexpr (may_project)
      if (seq.projection) return keep(a, at, dh, rows, units);
    if constexpr (may_normalise<C, E>)
      if (seq.norm) {
        for (int i = 0; i < rows * units; ++i)
          dh[i].store(a.between + (j0 + i / units) * a.row + (at.unit + i % units) * L);
        return;
      }
    for_groups(rows * units, [&](int N, int i) FUSEDRNN_BODY { a.finish_cells[N](a, dh + i, j0, at.unit, i, units); });
  }

  // With a projection: dh, which W_hr^T leads to the cells.
  static void keep(const Args& a, const Place& at, const V* dh, int rows, int units) {
    for (int64_t j = a.j0 + at.row; j < a.j0 + at.row + rows; ++j)
      for (int64_t unit = at.unit; unit < at.unit + units; ++unit, ++dh)
        dh->store(a.seq->dh + (unit * a.total_rows + a.seq->ragged->first[a.step] + j) * L);
  }
  static void finish_projected(const typename Panel::Args& panel, const Place& at, V* dh, int rows, int units) {
    const Args& a = static_cast<const Args&>(panel);
    const bool goes_on = (at.piece + 1) * a.runs_per_piece < a.run.runs;
    for (int i = 0; i < rows * units; ++i) {
      T* sum = a.between + (a.j0 + at.row + i / units) * a.row + (at.unit + i % units) * L;
      if (at.piece) dh[i] = V::load(sum) + dh[i];
      if (goes_on) dh[i].store(sum);
    }
    if (goes_on) return;
    for_groups(rows * units,
               [&](int N, int i) FUSEDRNN_BODY { a.finish_cells[N](a, dh + i, a.j0 + at.row, at.unit, i, units); });
  }

  // between: of a cell with two products, what follows that of the last gate.
  static bool run(const Sequence<T>& seq, const Share& share, const Finish* finish_cells,
                  typename Panel::Finish between = nullptr) {
    const Ragged& ragged = *seq.ragged;
    const Workspace<C, T, E> space(seq, share.size);
    const Blocks blocks(seq.H, G, L, values), gates = blocks.part(swept);
    const int64_t K = ceil_div(gates.columns, values);
    Args a{};
    Panel::set_weights(a, operands<E>(seq.recurrent_weights_t), K,
                       (share.unit_end - share.unit_begin) * K * L * int64_t(sizeof(T)));
    a.run = gate_run(gates, values, rec, ragged.rows() * S * L);
    a.row_stride = S * L;
    a.runs_per_piece = runs_per_piece;
    a.prepare = seq.dy.data ? fetch_dy : nullptr;
    a.finish = finish;
    a.seq = &seq;
    a.blocks = &blocks;
    a.row = space.row;
    a.total_rows = ragged.rows();
    a.carry = space.h(0);
    a.dc = space.c();
    a.between = space.between();
    a.units = blocks_of_h(seq, share);
    a.finish_cells = finish_cells;
    load_state(a, share);
    Args last = a;
    if constexpr (C::two_products) {
      const Blocks one = blocks.part(1);
      Panel::set_weights(last, a.weights + blocks.units * L * K, one.columns, a.swept_bytes / swept);
      last.run = gate_run(one, 1, rec + swept, ragged.rows() * S * L);
      last.runs_per_piece = units_per_piece<T>(1);
      last.prepare = nullptr;
      last.finish = between;
    }
    if constexpr (may_project)
      if (seq.projection) {
        const int64_t of_h = ceil_div(seq.P, L);
        Panel::set_weights(last, seq.projection_t, seq.P,
                           (share.unit_end - share.unit_begin) * seq.P * L * int64_t(sizeof(T)));
        last.row_stride = L;
        last.run = {of_h, L, ragged.rows() * L, seq.P - (of_h - 1) * L, 0};
        last.runs_per_piece = piece_length / L;
        last.prepare = nullptr;
        last.finish = finish_projected;
        // A thread has other blocks of h than of c.
        if (share.shares_steps && !share.barrier(share.context)) return false;
      }
    int64_t later = 0;  // samples that have a later step
    for (a.step = ragged.steps - 1; a.step >= -1; --a.step) {
      const int64_t now = a.step >= 0 ? ragged.count(a.step) : ragged.batch;
      if (!sweep(a, share, 0, later, blocks.units) || !sweep(a, share, later, now, 0)) return false;
      if (share.shares_steps && !share.barrier(share.context)) return false;
      if constexpr (may_normalise<C, E>)
        if (seq.norm && a.step >= 0) NormalisedSteps<C, T>::back(a, share, now);
      if (C::two_products || (may_project && seq.projection)) {
        last.step = a.step;
        if (a.step >= 0 && !sweep_last(last, share, now)) return false;
        if (share.shares_steps && !share.barrier(share.context)) return false;
      }
      if ((a.step & 15) == 0 && !share.poll(share.context)) return false;
      later = now;
    }
    if constexpr (C::has_cell_state) store_dc0(a, share);
    return true;
  }

 private:
  // The samples [low, high) that are this thread's. runs: all blocks of dz, or 0 for samples without a later step.
  static bool sweep(Args& a, const Share& share, int64_t low, int64_t high, int64_t runs) {
    if (low < share.sample_begin) low = share.sample_begin;
    if (high > share.sample_end) high = share.sample_end;
    a.j0 = low;
    a.run.runs = runs;
    a.rows = operands<E>(a.seq->recurrent_dz + (a.seq->ragged->first[a.step + 1] + low) * S * L) + rec * L / values;
    const int64_t pieces = runs ? ceil_div(runs, runs_per_piece) : 1;
    return Panel::sweep(a, share, high - low, a.units.begin, a.units.end, pieces, a.step & 1);
  }

  // The second product, of all samples below `high` that are this thread's.
  static bool sweep_last(Args& a, const Share& share, int64_t high) {
    const int64_t n = smaller(high, share.sample_end) - share.sample_begin;
    a.j0 = share.sample_begin;
    const int64_t row = a.seq->ragged->first[a.step] + a.j0;
    if constexpr (C::two_products)
      a.rows = operands<E>(a.seq->gates + row * S * L) + (rec + swept) * L;
    else
      a.rows = operands<E>(a.seq->dh + row * L);
    return Panel::sweep(a, share, n, share.unit_begin, share.unit_end, ceil_div(a.run.runs, a.runs_per_piece),
                        a.step & 1);
  }

  static void load_state(const Args& a, const Share& share) {
    const Sequence<T>& seq = *a.seq;
    each_state<L>(share, a.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      read_state(seq, seq.dhn, j, unit, seq.P).store(a.carry + at);
      if (C::has_cell_state) read_state(seq, seq.dcn, j, unit, seq.H).store(a.dc + at);
    });
  }

  static void store_dc0(const Args& a, const Share& share) {
    const Sequence<T>& seq = *a.seq;
    each_state<L>(share, a.row, [&](int64_t j, int64_t unit, int64_t at) FUSEDRNN_BODY {
      write_state(seq, seq.dc0, j, unit, V::load(a.dc + at), seq.H);
    });
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
