// One backward at a time on a tape, which it consumes.
#pragma once
#include <atomic>
#include <string>

#include "core/error.h"

namespace fusedrnn {

class ExclusiveUse {
 public:
  ExclusiveUse(std::atomic<bool>& busy, const std::string& op) : busy_(busy) {
    if (busy_.exchange(true))
      throw ShapeError(op + ": tape is in use by another thread; expected one backward at a time");
  }
  ~ExclusiveUse() { busy_ = false; }
  ExclusiveUse(const ExclusiveUse&) = delete;
  ExclusiveUse& operator=(const ExclusiveUse&) = delete;

 private:
  std::atomic<bool>& busy_;
};

}  // namespace fusedrnn
