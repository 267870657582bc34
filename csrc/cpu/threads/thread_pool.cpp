#include "cpu/threads/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "cpu/threads/flush_subnormals.h"
#include "cpu/threads/openmp.h"
#include "cpu/threads/waiting.h"
#include "system/system.h"

namespace fusedrnn {
namespace {

std::atomic<bool> always_wait{false};
std::atomic<int> source_set{-1};
thread_local int preferring_openmp = 0;

class Pool {
 public:
  bool run(int size, int64_t patience_ns, const std::function<void(int)>& body, const std::function<bool()>& ask) {
    std::unique_lock<std::mutex> lock(busy_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    if (thread_source() == ThreadSource::openmp && openmp_is_loaded()) return run_openmp(size, body, ask);
    if (!start_workers(size - 1)) return false;
    const uint64_t process = process_number();
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
    await_all(pending_, process, ask);
    return true;
  }

  static constexpr uint64_t max_size = 1024;

 private:
  struct alignas(64) Worker {
    std::atomic<uint64_t> here{0};               // the last job for which it has come
    alignas(64) std::atomic<bool> asleep{true};  // or not yet running
    std::atomic<int> avoids{-1};                 // CPU where it must not wake
    std::thread::native_handle_type handle{};
  };

  // False: the system has no more threads, or no memory for them.
  bool start_workers(int count) try {
    while (started_ < count) {
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
    return true;
  } catch (const std::system_error&) {
    return false;
  } catch (const std::bad_alloc&) {
    return false;
  }

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
        cpus.bind_this_thread();
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
      spin();
    }
    return true;
  }

  bool have_come(int size, uint64_t serial, int64_t patience_ns) const {
    const int64_t deadline = now_ns() + patience_ns;
    for (int rank = 1; rank < size; ++rank)
      for (int i = 1; workers_[static_cast<size_t>(rank - 1)].here.load(std::memory_order_acquire) != serial; ++i) {
        if (i % 16 == 0 && now_ns() > deadline && !always_wait.load(std::memory_order_relaxed)) return false;
        spin();
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
      cpus.without(cpu).bind_this_thread();
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
  // Serial number and number of threads of the current job in one word, so that a late riser never mixes two jobs.
  alignas(64) std::atomic<uint64_t> job_{0};
  alignas(64) std::atomic<uint64_t> decision_{0};  // twice the serial number, and 1 if that job is done by all
  alignas(64) std::atomic<int> pending_{0};
  std::atomic<int64_t> patience_ns_{0};
  std::atomic<int> caller_cpu_{-1};
};

// Never destroyed: workers may outlive static destruction. A forked child has no workers, so it gets a new pool.
std::atomic<Pool*> pool = [] {
  at_fork(nullptr, nullptr, [] { pool = new Pool; });
  return new Pool;
}();
std::atomic<int> thread_count{0};

}  // namespace

int num_threads() {
  int n = thread_count.load(std::memory_order_relaxed);
  n = n > 0 ? n : available_threads();
  return std::min(n, static_cast<int>(Pool::max_size) - 1);
}

void set_num_threads(int n) { thread_count = n; }

void set_thread_source(ThreadSource source) { source_set = static_cast<int>(source); }

ThreadSource thread_source() {
  const int set = source_set.load(std::memory_order_relaxed);
  if (set >= 0) return static_cast<ThreadSource>(set);
  return preferring_openmp > 0 ? ThreadSource::openmp : ThreadSource::own;
}

PreferOpenMP::PreferOpenMP() { ++preferring_openmp; }
PreferOpenMP::~PreferOpenMP() { --preferring_openmp; }

void wait_for_workers(bool always) { always_wait = always; }

bool run_parallel(int size, int64_t patience_ns, const std::function<void(int)>& body,
                  const std::function<bool()>& ask) {
  if (size <= 1) {
    body(0);
    return true;
  }
  return pool.load()->run(size, patience_ns, body, ask);
}

}  // namespace fusedrnn
