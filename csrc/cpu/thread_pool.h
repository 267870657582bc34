// Worker threads of our own: the time loop meets at a barrier every step, so waking through the operating system each
// time would cost more than the step. Workers spin for a bounded time, then sleep.
#pragma once
#include <atomic>
#include <functional>

namespace fusedrnn {

// Threads that this process may use: its affinity mask and its cgroup's CPU quota.
int available_threads();
int num_threads();
void set_num_threads(int n);

// What the threads of one parallel region share: a barrier, and a way to stop early.
class Region {
 public:
  // interrupted is asked now and then, by the calling thread alone.
  Region(int size, std::function<bool()> interrupted) : size_(size), interrupted_(std::move(interrupted)) {}
  bool barrier();       // false: stop
  bool poll(int rank);  // false: stop
  bool stopped() const { return stop_.load(std::memory_order_acquire); }

 private:
  const int size_;
  std::function<bool()> interrupted_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> phase_{0};
  alignas(64) std::atomic<bool> stop_{false};
  int64_t last_poll_ns_ = 0;
};

// How far a thread has come, for one that follows it.
class Progress {
 public:
  void advance_to(int64_t steps);
  void await(int64_t steps);  // returns once there are that many

 private:
  alignas(64) std::atomic<int64_t> steps_{0};
};

// Runs body(rank) for rank in [0, size) and waits; rank 0 is the caller. One region at a time: false, and nothing was
// run, if another thread of the process holds the pool. Survives fork: the child starts workers of its own.
bool run_parallel(int size, const std::function<void(int rank)>& body);

// Sets flush-to-zero and denormals-are-zero for its lifetime: subnormal numbers would slow the kernels 20-fold.
class FlushSubnormals {
 public:
  FlushSubnormals();
  ~FlushSubnormals();
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  uint64_t saved_;
};

}  // namespace fusedrnn
