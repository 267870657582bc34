// Steps with two products (cells/reset_before.h): all gates but the last read h, and the last one what the cell has
// made of these. A sweep for each, over panels of one gate; the formulas finish its tiles.
//
// W_hh is packed by units, (U, G - 1, H, L), without the last gate, which follows as (U, H, L); transposed alike, as
// two matrices.
#pragma once
#include "cpu/kernels/backward_pass.h"
#include "cpu/kernels/forward_pass.h"
#include "cpu/kernels/panel_tile.h"
#include "cpu/kernels/varied_functions.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Calls finish(Constant<N>, i) for the cells [i, i + N) of a tile, N = 2 or 1.
template <class Finish> FUSEDRNN_INLINE void each_pair(int cells, const Finish& finish) {
  int i = 0;
#pragma GCC unroll 1
  for (; i + 2 <= cells; i += 2) finish(Constant<2>(), i);
  if (i < cells) finish(Constant<1>(), i);
}

template <class C, class T> struct TwoProductSteps {
  using Shape = ShapeOf<C>;
  using Pass = ForwardPass<Shape, T, T>;
  using Panel = PanelTile<T>;
  using V = Vec<T>;
  static constexpr int L = V::lanes, S = Shape::slots, rec = Shape::recurrent_slot, last = Shape::gates - 1;
  using Ahead = NoLookahead;
  static_assert(max_units(max_rows(1), 1) % last == 0);  // a tile has all these gates of a unit

  static bool run(const Sequence<T>& seq, const Share& share) {
    return Pass::template run<TwoProductSteps>(seq, share, nullptr);
  }

  TwoProductSteps(const typename Pass::Args& a, const Share& share) {
    const int64_t H = a.seq->H, U = a.blocks.units, own = share.unit_end - share.unit_begin;
    const T* weights = a.seq->recurrent_weights;
    set(first_, a, weights, last * own * H * L, finish_first);
    set(second_, a, weights + last * U * H * L, own * H * L, finish_second);
    first_.rows = nullptr;
    second_.rows = operand(a, a.j0);
  }

  bool take(const typename Pass::Args& a, const Share& share, int64_t n, int64_t pieces) {
    first_.pass = second_.pass = &a;
    first_.rows = a.space.operand(a.step) + a.j0 * a.space.row;
    if (!sweep(first_, share, n, last, pieces)) return false;
    if (share.shares_steps && !share.barrier(share.context)) return false;
    return sweep(second_, share, n, 1, pieces);
  }

 private:
  struct Args : Panel::Args {
    const typename Pass::Args* pass;
  };

  static bool sweep(const Args& a, const Share& share, int64_t n, int64_t panels, int64_t pieces) {
    return Panel::sweep(a, share, n, share.unit_begin * panels, share.unit_end * panels, pieces, a.pass->step & 1);
  }

  static void set(Args& to, const typename Pass::Args& a, const T* weights, int64_t swept, typename Panel::Finish f) {
    const int64_t H = a.seq->H;
    to = {};
    Panel::set_weights(to, weights, H, swept * int64_t(sizeof(T)));
    to.row_stride = a.space.row;
    to.run = {ceil_div(H, piece_length), piece_length, piece_length, (H - 1) % piece_length + 1, 0};
    to.runs_per_piece = 1;
    to.finish = f;
  }

  // What the second product reads of sample j.
  static T* operand(const typename Pass::Args& a, int64_t j) { return a.space.between() + j * a.space.row; }

  // N cells of a tile whose cells are `units` wide.
  template <int N> struct Cells {
    int64_t j[N], unit[N];
    T* z[N];
    Group<T, N> h0, read;  // h, and as the products read it
    FUSEDRNN_INLINE Cells(const typename Pass::Args& a, int64_t row, int64_t unit0, int first, int units) {
      each<N>([&](auto n) FUSEDRNN_BODY {
        j[n] = a.j0 + row + (first + n) / units;
        unit[n] = unit0 + (first + n) % units;
        z[n] = a.z + (unit[n] * a.z_rows + a.z_first + j[n]) * S * L;
        h0.v[n] = V::load(a.space.h(a.step) + j[n] * a.space.row + unit[n] * L);
        read.v[n] = V::load(a.space.operand(a.step) + j[n] * a.space.row + unit[n] * L);
      });
    }
    FUSEDRNN_INLINE VariedFunctions<T, N> functions(const typename Pass::Args& a) const {
      return {*a.seq, a.step, j, unit};
    }
    // Slot i, with the sums of a gate added that are `gates` vectors apart.
    FUSEDRNN_INLINE Group<T, N> slot(int i, const V* sums = nullptr, int gates = 0) const {
      Group<T, N> x;
      each<N>([&](auto n) FUSEDRNN_BODY {
        x.v[n] = V::load(z[n] + i * L);
        if (sums) x.v[n] = x.v[n] + sums[n * gates];
      });
      return x;
    }
    FUSEDRNN_INLINE void keep(int i, const Group<T, N>& x) const {
      each<N>([&](auto n) FUSEDRNN_BODY { x.v[n].store(z[n] + i * L); });
    }
  };

  static bool goes_on(const Args& a, const Place& at) { return at.piece + 1 < a.run.runs; }

  static void finish_first(const typename Panel::Args& panel, const Place& at, V* sums, int rows, int panels) {
    const Args& args = static_cast<const Args&>(panel);
    const typename Pass::Args& a = *args.pass;
    const int units = panels / last;
    each_pair(rows * units, [&](auto N, int i) FUSEDRNN_BODY {
      const Cells<N> cells(a, at.row, at.unit / last, i, units);
      Group<T, N> s[S];
      each<last>([&](auto g) FUSEDRNN_BODY { s[rec + g] = cells.slot(rec + g, sums + i * last + g, last); });
      if (!goes_on(args, at)) {
        const Group<T, N> x = C::first(s, cells.read, cells.functions(a));
        each<N>([&](auto n) FUSEDRNN_BODY { x.v[n].store(operand(a, cells.j[n]) + cells.unit[n] * L); });
        if (a.seq->gates) cells.keep(0, x);
      }
      each<last>([&](auto g) FUSEDRNN_BODY { cells.keep(rec + g, s[rec + g]); });
    });
  }

  static void finish_second(const typename Panel::Args& panel, const Place& at, V* sums, int rows, int units) {
    const Args& args = static_cast<const Args&>(panel);
    const typename Pass::Args& a = *args.pass;
    each_pair(rows * units, [&](auto N, int i) FUSEDRNN_BODY {
      const Cells<N> cells(a, at.row, at.unit, i, units);
      Group<T, N> s[S];
      s[rec + last] = cells.slot(rec + last, sums + i, 1);
      if (goes_on(args, at)) return cells.keep(rec + last, s[rec + last]);
      each<last>([&](auto g) FUSEDRNN_BODY { s[rec + g] = cells.slot(rec + g); });
      const VariedFunctions<T, N> fn = cells.functions(a);
      Group<T, N> h1 = C::second(s, cells.h0, fn);
      if (fn.zones_h()) h1 = fma(fn.h_zone(), cells.h0 - h1, h1);
      if (a.seq->gates) cells.keep(rec + last, s[rec + last]);
      each<N>([&](auto n) FUSEDRNN_BODY {
        const int64_t j = cells.j[n], from = cells.unit[n] * L, left = a.seq->H - from;
        if (left < L) h1.v[n] = first_lanes(h1.v[n], left);  // the functions may not be 0 at 0
        h1.v[n].store(a.space.h(a.step + 1) + j * a.space.row + from);
        store_within(h1.v[n], a.y_row[j], from, a.seq->H);
      });
      if (!fn.reads_factored()) return;
      const Group<T, N> read = fn.as_read(h1);
      each<N>([&](auto n) FUSEDRNN_BODY {
        read.v[n].store(a.space.operand(a.step + 1) + cells.j[n] * a.space.row + cells.unit[n] * L);
      });
    });
  }

  Args first_, second_;
};

// Of backward: what follows W^T dz of the last gate, the gradient of what this gate read.
template <class C, class T> struct TwoProductBackward {
  using Pass = BackwardPass<ShapeOf<C>, T, T>;
  using V = Vec<T>;
  static constexpr int L = V::lanes, S = Pass::S, rec = Pass::rec;

  static void finish_between(const typename Pass::Panel::Args& panel, const Place& at, V* sums, int rows, int units) {
    const typename Pass::Args& a = static_cast<const typename Pass::Args&>(panel);
    const Sequence<T>& seq = *a.seq;
    each_pair(rows * units, [&](auto N, int i) FUSEDRNN_BODY {
      Group<T, N> d, r, h0(T(0)), bypass;
      int64_t place[N], unit[N], sample[N];
      T* saved[N];
      each<N>([&](auto n) FUSEDRNN_BODY {
        const int64_t j = a.j0 + at.row + (i + n) / units;
        unit[n] = at.unit + (i + n) % units;
        sample[n] = j;
        place[n] = j * a.row + unit[n] * L;
        saved[n] = seq.gates + (unit[n] * a.total_rows + seq.ragged->first[a.step] + j) * S * L +
                   rec * a.blocks->distance(unit[n]);
        d.v[n] = sums[i + n];
        if (at.piece) d.v[n] = d.v[n] + V::load(a.between + place[n]);
        r.v[n] = V::load(saved[n]);
        bypass.v[n] = V::load(a.carry + place[n]);
        if (const T* h = previous_h(seq, a.step, j)) h0.v[n] = load_within(h, unit[n] * L, seq.H);
      });
      if ((at.piece + 1) * a.runs_per_piece < a.run.runs)
        return each<N>([&](auto n) FUSEDRNN_BODY { d.v[n].store(a.between + place[n]); });
      const VariedFunctions<T, N> fn(seq, a.step, sample, unit);
      if (fn.reads_factored()) d = fn.as_read(d);  // the factor of h0 is one of its gradient, too
      bypass = C::backward_first(r, h0, d, bypass, fn);
      each<N>([&](auto n) FUSEDRNN_BODY {
        bypass.v[n].store(a.carry + place[n]);
        const int64_t distance = a.blocks->distance(unit[n]);
        store_within(r.v[n], saved[n], 0, distance);  // in a dense block the next gate follows
      });
    });
  }
};

}  // namespace fusedrnn::FUSEDRNN_ISA
