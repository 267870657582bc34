// The states of a batch whose samples are cut into segments (core/row_order.h). The kernels see a state for each
// segment. A direction enters a sample at its first segment, or going backwards at its last, with the caller's state;
// all others start from the restart state, which is zero unless the caller gives one. The other end holds the final
// state.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "cpu/stack.h"

namespace fusedrnn {

template <class T> class SegmentStates {
 public:
  explicit SegmentStates(const ForwardCall<T>& call)
      : order_(*call.rows),
        B_(call.problem.B),
        H_(call.problem.hidden_size),
        P_(call.problem.output_size()),
        count_(call.rows->ragged().batch) {}

  // Sets the states of the sequences, a slab each.
  void attach(const ForwardCall<T>& call, std::span<Sequence<T>> slabs) {
    if (!order_.segmented()) return;
    for (size_t i = 0; i < slabs.size(); ++i) {
      Sequence<T>& seq = slabs[i];
      const auto& slab = call.slabs[i];
      seq.h0 = initial(slab.h0, slab.h_restart, seq.reverse, P_);
      seq.c0 = initial(slab.c0, slab.c_restart, seq.reverse, H_);
      seq.hn = fresh(P_);
      if (slab.cn.data) seq.cn = fresh(H_);
    }
  }

  void store_final(const ForwardCall<T>& call, std::span<const Sequence<T>> slabs) const {
    if (!order_.segmented()) return;
    for (size_t i = 0; i < slabs.size(); ++i) {
      store_final(slabs[i].hn, call.slabs[i].hn, slabs[i].reverse);
      store_final(slabs[i].cn, call.slabs[i].cn, slabs[i].reverse);
    }
  }

  void attach_gradients(const BackwardCall<T>& grad, std::span<Sequence<T>> slabs) {
    if (!order_.segmented()) return;
    for (size_t i = 0; i < slabs.size(); ++i) {
      Sequence<T>& seq = slabs[i];
      seq.dhn = at_exit(grad.slabs[i].dhn, seq.reverse, P_);
      seq.dcn = at_exit(grad.slabs[i].dcn, seq.reverse, H_);
      seq.dh0 = fresh(P_);
      if (grad.slabs[i].dc0.data) seq.dc0 = fresh(H_);
    }
  }

  void store_gradients(const BackwardCall<T>& grad, std::span<const Sequence<T>> slabs) const {
    if (!order_.segmented()) return;
    for (size_t i = 0; i < slabs.size(); ++i) {
      const auto& slab = grad.slabs[i];
      store_gradients(slabs[i].dh0, slab.dh0, slab.dh_restart, slabs[i].reverse);
      store_gradients(slabs[i].dc0, slab.dc0, slab.dc_restart, slabs[i].reverse);
    }
  }

 private:
  int64_t entry(int64_t b, bool reverse) const { return end_of(b, reverse); }
  int64_t exit(int64_t b, bool reverse) const { return end_of(b, !reverse); }
  int64_t end_of(int64_t b, bool last) const {
    return last ? order_.first_segment(b + 1) - 1 : order_.first_segment(b);
  }
  bool enters_with_given(int64_t b, bool reverse) const { return reverse || !order_.restarts_at_once(b); }

  StateView<T> fresh(int64_t size) {
    storage_.emplace_back(count_ * size);
    return {storage_.back().get(), size};
  }
  T* row(const StateView<T>& states, int64_t i) const { return states.data + i * states.stride; }

  StateView<const T> initial(const StateView<const T>& given, const StateView<const T>& restart, bool reverse,
                             int64_t size) {
    if (!given.data && !restart.data) return {};
    const StateView<T> all = fresh(size);
    for (int64_t b = 0; b < B_; ++b) {
      const int64_t enters = enters_with_given(b, reverse) ? entry(b, reverse) : -1;
      for (int64_t i = order_.first_segment(b); i < order_.first_segment(b + 1); ++i) {
        const StateView<const T>& from = i == enters ? given : restart;
        if (from.data)
          std::copy_n(from.data + b * from.stride, size, row(all, i));
        else
          std::fill_n(row(all, i), size, T(0));
      }
    }
    return {all.data, all.stride};
  }

  void store_final(const StateView<T>& all, const StateView<T>& to, bool reverse) const {
    if (!to.data) return;
    for (int64_t b = 0; b < B_; ++b) std::copy_n(row(all, exit(b, reverse)), all.stride, to.data + b * to.stride);
  }

  StateView<const T> at_exit(const StateView<const T>& given, bool reverse, int64_t size) {
    if (!given.data) return {};
    const StateView<T> all = fresh(size);
    std::fill_n(all.data, count_ * size, T(0));
    for (int64_t b = 0; b < B_; ++b) std::copy_n(given.data + b * given.stride, size, row(all, exit(b, reverse)));
    return {all.data, all.stride};
  }

  void store_gradients(const StateView<T>& all, const StateView<T>& given, const StateView<T>& restart,
                       bool reverse) const {
    for (int64_t b = 0; b < B_ && given.data; ++b) {
      const int64_t enters = enters_with_given(b, reverse) ? entry(b, reverse) : -1;
      T* to = given.data + b * given.stride;
      std::fill_n(to, all.stride, T(0));
      if (restart.data) std::fill_n(restart.data + b * restart.stride, all.stride, T(0));
      for (int64_t i = order_.first_segment(b); i < order_.first_segment(b + 1); ++i) {
        T* sum = i == enters ? to : restart.data ? restart.data + b * restart.stride : nullptr;
        for (int64_t h = 0; sum && h < all.stride; ++h) sum[h] += row(all, i)[h];
      }
    }
  }

  const RowOrder& order_;
  const int64_t B_, H_, P_, count_;
  std::vector<Buffer<T>> storage_;
};

}  // namespace fusedrnn
