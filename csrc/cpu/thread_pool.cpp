#include "cpu/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cpu/scheduling.h"

namespace fusedrnn {
namespace {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int most_spins = 2000;  // some tens of microseconds

// Spins while `value` equals `old`, then sleeps on it. True: it had to sleep.
template <class A, class V> bool wait_while_equal(A& value, V old, int spins = most_spins) {
  for (int i = 0; i < spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return false;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
  return true;
}

// Stores what others wait for. Sequentially consistent: notify looks whether anybody sleeps, and were it to look before
// the store has left the core, whoever still sees the old value at that moment and lies down would never be woken.
template <class A, class V> void publish(A& value, V now) {
  value.store(now, std::memory_order_seq_cst);
  value.notify_all();
}

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::atomic<bool> always_wait{false};

class Pool {
 public:
  bool run(int size, int64_t patience_ns, const std::function<void(int)>& body) {
    std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    while (started_ < size - 1) {
      if (static_cast<int>(workers_.size()) == started_)
        workers_.emplace_back();  // else: last time there was no thread
      Worker& worker = workers_.back();
      std::thread thread([this, rank = started_ + 1, &worker, cpus = CpuSet::of_this_thread(), seen = job_.load()] {
        work(rank, worker, cpus, seen);
      });
      worker.handle = thread.native_handle();
      thread.detach();
      ++started_;
    }
    keep_off_this_cpu(size);
    body_ = &body;
    pending_.store(size - 1, std::memory_order_relaxed);
    patience_ns_.store(patience_ns, std::memory_order_relaxed);
    const uint64_t serial = job_.load(std::memory_order_relaxed) / max_size + 1;
    publish(job_, serial * max_size + static_cast<uint64_t>(size));
    const bool go = have_come(size, serial, patience_ns);
    publish(decision_, serial * 2 + go);
    if (!go) return false;
    body(0);
    for (int left; (left = pending_.load(std::memory_order_acquire)) != 0;) wait_while_equal(pending_, left);
    return true;
  }

  static constexpr uint64_t max_size = 1024;

 private:
  struct alignas(64) Worker {
    std::atomic<uint64_t> here{0};               // the last job for which it has come
    alignas(64) std::atomic<bool> asleep{true};  // or not yet running
    std::atomic<int> avoids{-1};                 // CPU where it must not wake
    pthread_t handle{};
  };

  // Says that it has come, and works if the caller has waited for all.
  void work(int rank, Worker& self, const CpuSet& cpus, uint64_t seen) {
    FlushSubnormals flush;
    take_short_slices();
    self.asleep.store(false, std::memory_order_relaxed);
    constexpr int64_t shortly_ns = 300'000;  // between two calls of a training loop
    for (;;) {
      if (!spin_until_next_job(seen, shortly_ns)) sleep(self, cpus, seen);
      seen = job_.load(std::memory_order_acquire);
      if (static_cast<uint64_t>(rank) >= seen % max_size) continue;
      const uint64_t serial = seen / max_size;
      self.here.store(serial, std::memory_order_release);
      if (self.avoids.load(std::memory_order_relaxed) >= 0) {
        self.avoids.store(-1, std::memory_order_relaxed);
        cpus.bind(pthread_self());
      }
      uint64_t decision;
      while ((decision = decision_.load(std::memory_order_acquire)) / 2 < serial) wait_while_equal(decision_, decision);
      if (decision == serial * 2 + 1) {
        (*body_)(rank);
        if (pending_.fetch_sub(1) == 1) pending_.notify_all();
      } else {
        // Too late. It stays awake for 1.5 times what the call takes on one thread, should the next follow at once.
        spin_until_next_job(seen, std::min<int64_t>(15 * patience_ns_.load(std::memory_order_relaxed), 2'000'000));
      }
    }
  }

  // False: for `ns` there was none.
  bool spin_until_next_job(uint64_t seen, int64_t ns) const {
    const int64_t until = now_ns() + ns;
    for (int i = 1; job_.load(std::memory_order_acquire) == seen; ++i) {
      if (i % 16 == 0 && now_ns() > until) return false;
      pause();
    }
    return true;
  }

  bool have_come(int size, uint64_t serial, int64_t patience_ns) const {
    const int64_t deadline = now_ns() + patience_ns;
    for (int rank = 1; rank < size; ++rank)
      for (int i = 1; workers_[static_cast<size_t>(rank - 1)].here.load(std::memory_order_acquire) != serial; ++i) {
        if (i % 16 == 0 && now_ns() > deadline && !always_wait.load(std::memory_order_relaxed)) return false;
        pause();
      }
    return true;
  }

  // Until there is another job. The worker is not to be woken on the CPU of the caller, who keeps it until all have
  // come. On a virtual machine the scheduler does so all the same, because a CPU that has been idle for a while counts
  // as taken away there, and leaves it where it is until the next tick: 4 ms. Once awake it may run anywhere again, for
  // the caller may be moved to where the worker is.
  void sleep(Worker& self, const CpuSet& cpus, uint64_t seen) {
    if (cpus.count() >= static_cast<int>(seen % max_size)) {
      const int cpu = caller_cpu_.load(std::memory_order_relaxed);
      cpus.without(cpu).bind(pthread_self());
      self.avoids.store(cpu, std::memory_order_relaxed);
    }
    self.asleep.store(true, std::memory_order_relaxed);
    job_.wait(seen, std::memory_order_acquire);
    self.asleep.store(false, std::memory_order_relaxed);
  }

  // The same for workers that sleep already, should the caller have come to another CPU since.
  void keep_off_this_cpu(int size) {
    const int cpu = this_cpu();
    caller_cpu_.store(cpu, std::memory_order_relaxed);
    for (int rank = 1; rank < size; ++rank) {
      Worker& worker = workers_[static_cast<size_t>(rank - 1)];
      if (!worker.asleep.load(std::memory_order_relaxed) || worker.avoids.load(std::memory_order_relaxed) == cpu)
        continue;
      const CpuSet cpus = CpuSet::of_this_thread();
      if (cpus.count() < size) return;
      cpus.without(cpu).bind(worker.handle);
      worker.avoids.store(cpu, std::memory_order_relaxed);
    }
  }

  std::mutex busy_;
  int started_ = 0;
  std::deque<Worker> workers_;  // by rank - 1
  const std::function<void(int)>* body_ = nullptr;
  // Serial number and team size of the current job in one word, so that a late riser never mixes two jobs.
  alignas(64) std::atomic<uint64_t> job_{0};
  alignas(64) std::atomic<uint64_t> decision_{0};  // twice the serial number, and 1 if that job is done by all
  alignas(64) std::atomic<int> pending_{0};
  std::atomic<int64_t> patience_ns_{0};
  std::atomic<int> caller_cpu_{-1};
};

// Never destroyed: workers may outlive static destruction. A forked child has no workers, so it gets a new pool.
std::atomic<Pool*> pool{nullptr};
std::atomic<int> thread_count{0};

Pool& the_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool = new Pool;
    pthread_atfork(nullptr, nullptr, [] { pool = new Pool; });
  });
  return *pool;
}

}  // namespace

int num_threads() {
  int n = thread_count.load(std::memory_order_relaxed);
  n = n > 0 ? n : available_threads();
  return std::min(n, static_cast<int>(Pool::max_size) - 1);
}

void set_num_threads(int n) { thread_count = n; }

void wait_for_workers(bool always) { always_wait = always; }

Barrier::Barrier(int size) : size_(size), seats_(static_cast<size_t>(size > 1 ? size : 0)) {
  for (Seat& seat : seats_) seat.spins = most_spins;
}

// Dissemination (Hensgen, Finkel & Manber 1988): in each round a thread tells the one 1, 2, 4 ... places on that it has
// come, and so whom it has heard of, and waits to be told the same. Two threads exchange one cache line each.
void Barrier::wait(int rank, const std::atomic<bool>& stop) {
  if (size_ == 1) return;
  Seat& seat = seats_[static_cast<size_t>(rank)];
  const int phase = ++seat.phase;
  for (int round = 0, distance = 1; distance < size_; ++round, distance *= 2) {
    publish(seats_[static_cast<size_t>((rank + distance) % size_)].heard[round].phase, phase);
    const std::atomic<int>& heard = seat.heard[round].phase;
    // Who spins in vain may be holding the core that the other one needs: next time it waits less.
    for (int now; (now = heard.load(std::memory_order_acquire)) < phase && !stop.load(std::memory_order_acquire);)
      seat.spins = wait_while_equal(heard, now, seat.spins) ? seat.spins / 8 : most_spins;
  }
}

void Barrier::release() {
  for (Seat& seat : seats_)
    for (Flag& flag : seat.heard) {
      flag.phase.fetch_add(1);
      flag.phase.notify_one();
    }
}

bool Region::poll(int rank) {
  if (rank == 0 && interrupted_) {
    constexpr int64_t period_ns = 20'000'000;
    const int64_t now = now_ns();
    if (last_poll_ns_ == 0) last_poll_ns_ = now;
    if (now - last_poll_ns_ > period_ns) {
      last_poll_ns_ = now;
      if (interrupted_()) {
        stop_.store(true, std::memory_order_release);
        all_.release();
        walkers_.release();
      }
    }
  }
  return !stopped();
}

void Progress::advance_to(int64_t steps) { publish(steps_, steps); }

void Progress::await(int64_t steps) {
  for (int64_t now; (now = steps_.load(std::memory_order_acquire)) < steps;) wait_while_equal(steps_, now);
}

bool run_parallel(int size, int64_t patience_ns, const std::function<void(int)>& body) {
  if (size <= 1) {
    body(0);
    return true;
  }
  return the_pool().run(size, patience_ns, body);
}

FlushSubnormals::FlushSubnormals() {
#if defined(__x86_64__)
  saved_ = _mm_getcsr();
  _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040);  // FTZ | DAZ
#elif defined(__aarch64__)
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" : : "r"(saved_ | (1u << 24)));  // FZ
#endif
}

FlushSubnormals::~FlushSubnormals() {
#if defined(__x86_64__)
  _mm_setcsr(static_cast<unsigned>(saved_));
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" : : "r"(saved_));
#endif
}

}  // namespace fusedrnn
