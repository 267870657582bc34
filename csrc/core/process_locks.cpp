#include "core/process_locks.h"

#include <cstdint>

#include "system/system.h"

namespace fusedrnn {
namespace {

constexpr int gradients = 0, first_weights = 1, weights = 16, memory = first_weights + weights;
constinit std::mutex locks[memory + 1];

[[maybe_unused]] const bool registered = [] {
  at_fork(
      [] {
        for (std::mutex& lock : locks) lock.lock();
      },
      [] {
        for (std::mutex& lock : locks) lock.unlock();
      },
      [] {
        for (std::mutex& lock : locks) lock.unlock();
      });
  return true;
}();

}  // namespace

std::mutex& gradients_lock() { return locks[gradients]; }

std::mutex& weights_lock(const void* owner) {
  return locks[first_weights + static_cast<int>(reinterpret_cast<uintptr_t>(owner) / 64 % weights)];
}

std::mutex& memory_lock() { return locks[memory]; }

}  // namespace fusedrnn
