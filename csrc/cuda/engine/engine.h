// The calls of stack.h for one device class and one element type.
#pragma once
#include "cuda/engine/backward.h"
#include "cuda/engine/forward.h"
#include "cuda/kernels/convert.h"

namespace fusedrnn::cuda {

template <class D, class E> class EngineOf : public Engine {
 public:
  std::unique_ptr<Tape> forward(const ForwardCall& call, const Place& place, bool training) const override {
    std::unique_ptr<TapeOf<D, E>> tape;
    Use use{place, nullptr};
    D device(place, call.problem.op);
    if (!training) {
      Forward<D, E>(device, call, nullptr, place).run();
      return nullptr;
    }
    tape = std::make_unique<TapeOf<D, E>>(call, device);
    use.tape = tape.get();
    Forward<D, E>(device, tape->call, tape.get(), place).run();
    return tape;
  }

  void round(const float* from, void* to, int64_t n, const Place& place) const override {
    convert(from, static_cast<E*>(to), n, false, place);
  }
  void add_widened(const void* from, float* to, int64_t n, const Place& place) const override {
    convert(static_cast<const E*>(from), to, n, true, place);
  }

  std::string plan(const Problem& problem, const Place& place) const override {
    return path_of<D, E>(problem, place, Pass::forward).describe();
  }

  void backward(Tape& tape, const BackwardCall& call, const Place& place) const override {
    auto& kept = static_cast<TapeOf<D, E>&>(tape);
    Use use{place, nullptr};
    D device(place, kept.call.problem.op);
    use.tape = &kept;
    kept.store.await(device);
    if (kept.consumed) restore(kept, device, place);
    Backward<D, E>(device, kept, call, place).run();
  }

 private:
  // Says at its end that the work of a call may use a tape's memory, whether or not the call has failed. Made after the
  // tape and before the device: so the tape still lives, and all lanes have met in the caller's stream. It gets
  // the tape after the device, which refuses a stream that is being captured: nothing may be recorded there.
  struct Use {
    const Place& place;
    TapeOf<D, E>* tape;
    ~Use() {
      if (tape) tape->store.used(place);
    }
  };

  template <class From, class To>
  static void convert(const From* from, To* to, int64_t n, bool add, const Place& place) {
    if (n == 0) return;
    D device(place, "convert");
    const int64_t width = std::min<int64_t>(n, 1024);
    device.each(0, (n + width - 1) / width, width, Convert<From, To>{from, to, n, width, add});
  }

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
