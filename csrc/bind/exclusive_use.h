// One call at a time on a tape, which a backward consumes, or on a stream.
#pragma once
#include <pybind11/pybind11.h>

#include <atomic>
#include <mutex>
#include <string>

#include "core/error.h"

namespace fusedrnn {

class ExclusiveUse {
 public:
  ExclusiveUse(std::atomic<bool>& busy, const std::string& op, const char* what) : busy_(busy) {
    if (busy_.exchange(true)) refuse(op, what);
  }
  [[noreturn]] static void refuse(const std::string& op, const std::string& what) {
    throw ShapeError(op + ": " + what + " is in use by another thread; expected one call at a time");
  }
  ~ExclusiveUse() { busy_ = false; }
  ExclusiveUse(const ExclusiveUse&) = delete;
  ExclusiveUse& operator=(const ExclusiveUse&) = delete;

 private:
  std::atomic<bool>& busy_;
};

// A use without Python in the middle. Where there is a GIL, nobody else can begin one meanwhile.
#if defined(Py_GIL_DISABLED)
using ShortUse = ExclusiveUse;
using InsteadOfGil = std::lock_guard<std::mutex>;
#else
struct ShortUse {
  ShortUse(const std::atomic<bool>& busy, const std::string& op, const char* what) {
    if (busy) ExclusiveUse::refuse(op, what);
  }
};
struct InsteadOfGil {
  explicit InsteadOfGil(std::mutex&) {}
};
#endif

}  // namespace fusedrnn
