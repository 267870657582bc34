// Asking now and then whether the user wants a call to stop, so that the answer to Ctrl-C comes within 100 ms.
#pragma once
#include <cstdint>
#include <functional>
#include <utility>

#include "cpu/threads/waiting.h"

namespace fusedrnn {

using Interrupt = std::function<bool()>;  // "has the user asked to stop?"; called from the calling thread only

// Passes on a question that is asked often, but not before 20 ms have gone by: the answer takes the GIL.
class Inquiry {
 public:
  explicit Inquiry(Interrupt interrupted) : interrupted_(std::move(interrupted)) {}
  bool stop() {
    if (!interrupted_) return false;
    constexpr int64_t period_ns = 20'000'000;
    const int64_t now = now_ns();
    if (last_ns_ == 0) last_ns_ = now;
    if (now - last_ns_ <= period_ns) return false;
    last_ns_ = now;
    return interrupted_();
  }

 private:
  Interrupt interrupted_;
  int64_t last_ns_ = 0;
};

// For work that one thread does alone: asks after every so many elements. False: stop.
class Counted {
 public:
  explicit Counted(const Interrupt& interrupted) : inquiry_(interrupted) {}
  bool go_on_after(int64_t elements) {
    constexpr int64_t some = 1 << 18;  // 0.1 to 1 ms
    if ((done_ += elements) < some) return true;
    done_ = 0;
    return !inquiry_.stop();
  }

 private:
  Inquiry inquiry_;
  int64_t done_ = 0;
};

}  // namespace fusedrnn
