// What the operating system is asked and told about CPUs. Where it is not Linux, nothing is told.
#pragma once
#include <pthread.h>
#include <sched.h>

namespace fusedrnn {

// Threads that this process may use: the caller's affinity mask and the cgroup's CPU quota.
int available_threads();

// The CPU that the caller runs on; -1: not known.
int this_cpu();

// CPUs that a thread may run on.
class CpuSet {
 public:
  static CpuSet of_this_thread();
  int count() const;
  CpuSet without(int cpu) const;
  void bind(pthread_t thread) const;

 private:
#if defined(__linux__)
  cpu_set_t set_{};
#endif
};

// Asks for the shortest time slices, which makes nobody's share larger or smaller: who is woken for a short while goes
// before a thread with a long slice. The workers of other libraries spin for many milliseconds after their last call.
// From Linux 6.12 on; earlier ones ignore it.
void take_short_slices();

}  // namespace fusedrnn
