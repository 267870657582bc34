#pragma once
#include <memory>
#include <vector>

#include "core/row_order.h"
#include "core/sequence.h"
#include "cpu/pack.h"

namespace fusedrnn {

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
