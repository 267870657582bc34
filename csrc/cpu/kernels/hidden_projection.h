// h = W_hr (o tanh c), the second product of a step of an LSTM with a projection (Sak, Senior & Beaufays 2014).
#pragma once
#include "cpu/kernels/panel_tile.h"
#include "cpu/kernels/time_loop.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Blocks of h that are a thread's where it has these of c: they are fewer.
template <class T> FUSEDRNN_INLINE Share::Range blocks_of_h(const Sequence<T>& seq, const Share& share) {
  const int64_t U = ceil_div(seq.H, Vec<T>::lanes), of_h = ceil_div(seq.P, Vec<T>::lanes);
  return {of_h * share.unit_begin / U, of_h * share.unit_end / U};
}

// Forward. Pass: the arguments of the time loop, which stays as it is without this: nothing is inlined.
template <class Pass, class T> class HiddenProjection {
 public:
  using Panel = PanelTile<T>;
  using V = Vec<T>;
  static constexpr int L = V::lanes;

  __attribute__((noinline)) void set(const Pass& a, const Share& share) {
    const Sequence<T>& seq = *a.seq;
    blocks_ = blocks_of_h(seq, share);
    args_ = {};
    Panel::set_weights(args_, seq.projection, seq.H, (blocks_.end - blocks_.begin) * seq.H * L * int64_t(sizeof(T)));
    args_.rows = a.space.between() + a.j0 * a.space.row;
    args_.row_stride = a.space.row;
    args_.run = {ceil_div(seq.H, piece_length), piece_length, piece_length, (seq.H - 1) % piece_length + 1, 0};
    args_.runs_per_piece = 1;
    args_.finish = finish;
  }

  __attribute__((noinline)) bool take(const Pass& a, const Share& share, int64_t n) {
    args_.pass = &a;
    if (share.shares_steps && !share.barrier(share.context)) return false;
    return Panel::sweep(args_, share, n, blocks_.begin, blocks_.end, args_.run.runs, a.step & 1);
  }

 private:
  struct Args : Panel::Args {
    const Pass* pass;
  };

  static void finish(const typename Panel::Args& panel, const Place& at, V* sums, int rows, int units) {
    const Args& args = static_cast<const Args&>(panel);
    const Pass& a = *args.pass;
    for (int64_t j = a.j0 + at.row; j < a.j0 + at.row + rows; ++j)
      for (int64_t unit = at.unit; unit < at.unit + units; ++unit, ++sums) {
        T* h = a.space.h(a.step + 1) + j * a.space.row + unit * L;
        const V sum = at.piece ? V::load(h) + *sums : *sums;
        sum.store(h);
        if (at.piece + 1 == args.run.runs) store_within(sum, a.y_row[j], unit * L, a.seq->P);
      }
  }

  Args args_;
  Share::Range blocks_;
};

}  // namespace fusedrnn::FUSEDRNN_ISA
