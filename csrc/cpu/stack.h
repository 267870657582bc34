// A stack of recurrent layers on the CPU: gives every kernel its pointers and every thread its part of the plan.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "core/plan.h"
#include "core/problem.h"
#include "cpu/pack.h"

namespace fusedrnn {

using Interrupt = std::function<bool()>;  // "has the user asked to stop?"; called from the calling thread only

// Everything that one forward pass reads, writes and keeps. Slab = (layer, direction), counted as torch counts states.
template <class T> struct ForwardCall {
  struct Slab {
    std::shared_ptr<const PackedWeights<T>> weights;
    StateView<const T> h0{}, c0{};  // data may be null
    StateView<T> hn{}, cn{};
    Buffer<T> gates, cells;  // for backward; null in inference
  };
  Problem problem;
  std::shared_ptr<const RowOrder> rows;
  TimeMajorView<const T> x;
  std::vector<TimeMajorView<T>> y;  // by layer: (T, B, directions*H)
  std::vector<Slab> slabs;
};

template <class T> struct BackwardCall {
  struct Slab {
    StateView<const T> dhn{}, dcn{};  // data may be null
    StateView<T> dh0{}, dc0{};
    T *weight_ih, *weight_hh, *bias_ih, *bias_hh;  // gradients, added to; those of biases may be null
  };
  TimeMajorView<const T> dy;  // data may be null
  TimeMajorView<T> dx;        // data may be null: not wanted
  std::vector<Slab> slabs;
};

template <class T> Plan plan_for(const ForwardCall<T>& call, Pass pass = Pass::forward);

// Room for the saved gates of every slab: makes the call a training call.
template <class T> void keep_for_backward(ForwardCall<T>& call);

// Both throw Interrupted if the user stopped them; the outputs are then incomplete.
template <class T> void run_forward(ForwardCall<T>& call, const Interrupt& interrupt);
// Consumes the saved gates: they become gate gradients.
template <class T> void run_backward(ForwardCall<T>& call, const BackwardCall<T>& gradients,
                                     const Interrupt& interrupt);

// What a slab has saved, (U, R, slots, lanes), as (slots, T, B, H): zeros past each sample's end.
template <class T> void unpack_saved(const ForwardCall<T>& call, const T* saved, int64_t slab, int64_t slots, T* to);

// y (rows, O) = x (rows, I) W^T; element (o, i) of W at weight[o*row + i*column]. Dense layers.
template <class T> struct DenseCall {
  int64_t rows, I, O;
  const T *x, *weight;
  int64_t row, column;
  T* y;
};
template <class T> void run_row_products(const DenseCall<T>& call, const Interrupt& interrupt);

// Single steps of a one-directional stack with weights packed once. Holds the state; nothing is allocated by step().
template <class T> class StepRunner {
 public:
  StepRunner(const Problem& problem, std::vector<std::shared_ptr<const PackedWeights<T>>> weights);
  void step(StateView<const T> x, StateView<T> out);  // (B, I) -> (B, H) of the last layer
  T* h() { return h_.get(); }                         // (layers, B, H)
  T* c() { return c_.get(); }

 private:
  Problem problem_;
  RowOrder rows_;
  std::vector<std::shared_ptr<const PackedWeights<T>>> weights_;
  Buffer<T> h_, c_, workspace_;
  std::vector<Buffer<T>> hidden_;
  std::vector<Sequence<T>> layers_;
};

}  // namespace fusedrnn
