// How a thread waits for a value that another one stores.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "system/system.h"

namespace fusedrnn {

inline void spin() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

constexpr int most_spins = 2000;  // some tens of microseconds

// Spins while `value` equals `old`, then sleeps on it. True: it had to sleep.
template <class A, class V> bool wait_while_equal(A& value, V old, int spins = most_spins) {
  for (int i = 0; i < spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return false;
    spin();
  }
  value.wait(old, std::memory_order_acquire);
  return true;
}

// The same for who has to do something meanwhile: `ask` comes now and then; false ends the wait. Sleeps for a small
// part of the time that it has waited already.
template <class A, class V, class Ask> void wait_asking(const A& value, V old, const Ask& ask) {
  for (int i = 0; i < most_spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    spin();
  }
  const int64_t begin = now_ns();
  while (value.load(std::memory_order_acquire) == old && ask())
    std::this_thread::sleep_for(
        std::chrono::nanoseconds(std::clamp<int64_t>((now_ns() - begin) / 16, 20'000, 2'000'000)));
}

// Until `pending` threads of a call that began in this process have done their part. Not in a child that whoever was
// asked has forked since: they are not there.
template <class Ask> void await_all(const std::atomic<int>& pending, uint64_t process, const Ask& ask) {
  for (int left; (left = pending.load(std::memory_order_acquire)) != 0 && process_number() == process;) {
    if (ask) wait_asking(pending, left, ask);
    if ((!ask || !ask()) && process_number() == process) wait_while_equal(pending, left);
  }
}

// Stores what others wait for. Sequentially consistent: notify looks whether anybody sleeps, and were it to look before
// the store has left the core, whoever still sees the old value at that moment and lies down would never be woken.
template <class A, class V> void publish(A& value, V now) {
  value.store(now, std::memory_order_seq_cst);
  value.notify_all();
}

}  // namespace fusedrnn
