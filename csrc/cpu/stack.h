// The calls of a stack of recurrent layers on the CPU: what they read, write and keep.
#pragma once
#include <memory>
#include <vector>

#include "core/plan.h"
#include "core/problem.h"
#include "core/row_order.h"
#include "core/sequence.h"
#include "cpu/pack.h"
#include "cpu/threads/region.h"

namespace fusedrnn {

// Everything that one forward pass reads, writes and keeps. Slab = (layer, direction), counted as torch counts states.
template <class T> struct ForwardCall {
  struct Slab {
    std::shared_ptr<const PackedWeights<T>> weights;
    StateView<const T> h0{}, c0{};                // data may be null
    StateView<const T> h_restart{}, c_restart{};  // what segments but the first start from; data may be null
    StateView<T> hn{}, cn{};
    const Noise<T>* noise = nullptr;     // in training
    Buffer<T> gates, cells, normalised;  // for backward; null in inference
  };
  Problem problem;
  int threads = 0;           // at most so many; 0: num_threads()
  CellOptions<T> options{};  // of a varied cell
  std::shared_ptr<const RowOrder> rows;
  TimeMajorView<const T> x;
  std::vector<TimeMajorView<T>> y;  // by layer: (T, B, directions*H)
  std::vector<Slab> slabs;
};

template <class T> struct BackwardCall {
  struct Slab {
    StateView<const T> dhn{}, dcn{};  // data may be null
    StateView<T> dh0{}, dc0{};
    StateView<T> dh_restart{}, dc_restart{};  // data may be null: not wanted
    // Gradients, added to; may be null: not wanted.
    T *weight_ih, *weight_hh, *bias_ih, *bias_hh, *peephole, *weight_hr;
    NormArrays<T> norm{};
    bool wants_weights() const {
      return weight_ih || weight_hh || bias_ih || bias_hh || peephole || weight_hr || norm.ih || norm.hh || norm.c ||
             norm.bias_c;
    }
  };
  TimeMajorView<const T> dy;  // data may be null
  TimeMajorView<T> dx;        // data may be null: not wanted
  std::vector<Slab> slabs;
};

// The options of a problem in T, with what the kernels make of the ends of a clipped value.
template <class T> CellOptions<T> cell_options(const Problem& problem);

template <class T> Plan plan_for(const ForwardCall<T>& call, Pass pass = Pass::forward);

// Room for the saved gates of every slab: makes the call a training call.
template <class T> void keep_for_backward(ForwardCall<T>& call);
// The same in memory of the caller's, at a cache line: saved_size(call) elements.
template <class T> void keep_for_backward(ForwardCall<T>& call, T* memory);
template <class T> int64_t saved_size(const ForwardCall<T>& call);

// Both throw Interrupted if the user stopped them; the outputs are then incomplete.
template <class T> void run_forward(ForwardCall<T>& call, const Interrupt& interrupt);
// Consumes the saved gates: they become gate gradients.
template <class T> void run_backward(ForwardCall<T>& call, const BackwardCall<T>& gradients,
                                     const Interrupt& interrupt);

}  // namespace fusedrnn
