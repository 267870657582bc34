#include "cpu/scheduling.h"

#include <sched.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <thread>

namespace fusedrnn {
namespace {

// CPUs that the cgroup's quota pays for, or a large number.
int quota_threads() {
  double quota = -1, period = 0;
  if (FILE* f = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (std::fscanf(f, "%lf %lf", &quota, &period) != 2) quota = -1;
    std::fclose(f);
  }
  return quota > 0 && period > 0 ? static_cast<int>(std::ceil(quota / period)) : 1 << 20;
}

}  // namespace

int available_threads() {
  int n = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
#endif
  return std::max(1, std::min(n, quota_threads()));
}

#if defined(__linux__)

int this_cpu() { return sched_getcpu(); }

void keep_off(pthread_t thread, int cpu) {
  cpu_set_t set;
  if (cpu < 0 || sched_getaffinity(0, sizeof set, &set) != 0) return;
  CPU_CLR(static_cast<unsigned>(cpu), &set);
  pthread_setaffinity_np(thread, sizeof set, &set);  // refused where the set is empty
}

void take_short_slices() {
  // struct sched_attr as of its first version; the C library has it only lately.
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes{};
  constexpr uint64_t shortest_ns = 100'000;
  if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0u) != 0) return;
  if (attributes.policy != SCHED_OTHER) return;
  attributes.runtime = shortest_ns;
  syscall(SYS_sched_setattr, 0, &attributes, 0u);
}

#else

int this_cpu() { return -1; }
void keep_off(pthread_t, int) {}
void take_short_slices() {}

#endif

}  // namespace fusedrnn
