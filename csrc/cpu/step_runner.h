#pragma once
#include <memory>
#include <vector>

#include "core/row_order.h"
#include "core/sequence.h"
#include "cpu/pack.h"
#include "cpu/threads/interrupt.h"

namespace fusedrnn {

// Single steps of a one-directional stack with weights packed once. Holds the state; nothing is allocated by step().
template <class T> class StepRunner {
 public:
  StepRunner(const Problem& problem, std::vector<std::shared_ptr<const PackedWeights<T>>> weights);
  void step(StateView<const T> x, StateView<T> out);  // (B, I) -> (B, H) of the last layer
  // The same for a step that takes long. Throws Interrupted if the user stopped it; the state is then what it was.
  void long_step(StateView<const T> x, StateView<T> out, const Interrupt& interrupt);
  T* h() { return h_.get(); }  // (layers, B, P)
  T* c() { return c_.get(); }

 private:
  Problem problem_;
  CellOptions<T> options_;
  RowOrder rows_;
  std::vector<std::shared_ptr<const PackedWeights<T>>> weights_;
  Buffer<T> h_, c_, workspace_;
  std::vector<Buffer<T>> hidden_;
  std::vector<Sequence<T>> layers_;

  bool run(StateView<const T> x, StateView<T> out, bool (*poll)(void*), void* context);
};

}  // namespace fusedrnn
