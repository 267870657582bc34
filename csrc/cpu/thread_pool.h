// Worker threads of our own: the time loop meets at a barrier every step, so waking through the operating system each
// time would cost more than the step. Workers spin for a bounded time, then sleep.
#pragma once
#include <atomic>
#include <functional>
#include <vector>

namespace fusedrnn {

// As set, otherwise available_threads() (cpu/scheduling.h).
int num_threads();
void set_num_threads(int n);

// A place where threads meet: nobody goes on before everybody has come.
class Barrier {
 public:
  explicit Barrier(int size);
  void wait(int rank, const std::atomic<bool>& stop);
  void release();  // after stop was set: wakes those who sleep

 private:
  // A cache line each, with one thread that writes it and one that waits for it.
  struct alignas(64) Flag {
    std::atomic<int> phase{0};
  };
  struct Seat {
    int phase = 0;   // times it was here
    int spins;       // before it sleeps
    Flag heard[10];  // by round: 2^10 threads
  };

  const int size_;
  std::vector<Seat> seats_;
};

// What the threads of one parallel region share: two barriers, and a way to stop early.
class Region {
 public:
  // The first `walkers` of `size` threads walk through time. interrupted is asked now and then, by the calling thread
  // alone.
  Region(int size, int walkers, std::function<bool()> interrupted)
      : all_(size), walkers_(walkers), interrupted_(std::move(interrupted)) {}
  bool meet_all(int rank) { return meet(all_, rank); }          // false: stop
  bool meet_walkers(int rank) { return meet(walkers_, rank); }  // the same
  bool poll(int rank);                                          // the same without waiting
  bool stopped() const { return stop_.load(std::memory_order_acquire); }

 private:
  Barrier all_, walkers_;
  std::function<bool()> interrupted_;
  alignas(64) std::atomic<bool> stop_{false};
  int64_t last_poll_ns_ = 0;

  bool meet(Barrier& barrier, int rank) {
    barrier.wait(rank, stop_);
    return !stopped();
  }
};

// How far a thread has come, for one that follows it.
class Progress {
 public:
  void advance_to(int64_t steps);
  void await(int64_t steps);  // returns once there are that many

 private:
  alignas(64) std::atomic<int64_t> steps_{0};
};

// Runs body(rank) for rank in [0, size) and waits; rank 0 is the caller. False, and nothing was run, if another thread
// of the process holds the pool, or if not all workers have come after patience_ns: waking one takes 5 to 300 us, and
// on a busy machine any time. Survives fork: the child starts workers of its own.
bool run_parallel(int size, int64_t patience_ns, const std::function<void(int rank)>& body);

// For tests that are about several threads: patience has no end.
void wait_for_workers(bool always);

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
