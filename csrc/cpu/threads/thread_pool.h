// Worker threads of our own: the time loop meets at a barrier every step, so waking through the operating system each
// time would cost more than the step. Workers spin for a bounded time, then sleep.
#pragma once
#include <cstdint>
#include <functional>

namespace fusedrnn {

// As set, otherwise available_threads() (system/system.h).
int num_threads();
void set_num_threads(int n);

// Runs body(rank) for rank in [0, size) and waits; rank 0 is the caller. False, and nothing was run, if another thread
// of the process holds the pool, or if not all workers have come after patience_ns: waking one takes 5 to 300 us, and
// on a busy machine any time. Survives fork: the child starts workers of its own. `ask` is called now and then while
// the caller waits for the others; false: they are about to leave.
bool run_parallel(int size, int64_t patience_ns, const std::function<void(int rank)>& body,
                  const std::function<bool()>& ask = {});

// Whose threads they are: our own, or those of the OpenMP library that another library has loaded. As set; otherwise
// our own, or OpenMP's where the caller prefers them and they are there.
enum class ThreadSource { own, openmp };
void set_thread_source(ThreadSource source);
ThreadSource thread_source();

// Inside, calls of this thread prefer OpenMP's threads.
class PreferOpenMP {
 public:
  PreferOpenMP();
  ~PreferOpenMP();
  PreferOpenMP(const PreferOpenMP&) = delete;
  PreferOpenMP& operator=(const PreferOpenMP&) = delete;
};

// For tests that are about several threads: patience has no end.
void wait_for_workers(bool always);

}  // namespace fusedrnn
