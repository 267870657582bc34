// The calls of stack.h for one device class and one element type.
#pragma once
#include "cuda/backward.h"
#include "cuda/forward.h"

namespace fusedrnn::cuda {

template <class D, class E> class EngineOf : public Engine {
 public:
  std::unique_ptr<Tape> forward(const ForwardCall& call, const Place& place, bool training) const override {
    std::unique_ptr<TapeOf<D, E>> tape;  // outlives the device, which may work on it until it is gone
    D device(place, call.problem.op);
    if (!training) {
      Forward<D, E>(device, call, nullptr, place).run();
      return nullptr;
    }
    tape = std::make_unique<TapeOf<D, E>>(call, device);
    Forward<D, E>(device, tape->call, tape.get(), place).run();
    tape->store.used(device);
    return tape;
  }

  std::string plan(const Problem& problem, const Place& place) const override {
    return path_of<D, E>(problem, place).describe();
  }

  void backward(Tape& tape, const BackwardCall& call, const Place& place) const override {
    auto& kept = static_cast<TapeOf<D, E>&>(tape);
    D device(place, kept.call.problem.op);
    kept.store.await(device);
    if (kept.consumed) restore(kept, device, place);
    Backward<D, E>(device, kept, call, place).run();
    kept.store.used(device);
  }

 private:
  // The outputs are the caller's by now: only what the tape keeps is written again.
  static void restore(TapeOf<D, E>& tape, D& device, const Place& place) {
    ForwardCall& call = tape.call;
    call.y.data = nullptr;
    for (auto& state : call.hn) state.data = nullptr;
    for (auto& state : call.cn) state.data = nullptr;
    Forward<D, E>(device, call, &tape, place).run();
  }
};

}  // namespace fusedrnn::cuda
