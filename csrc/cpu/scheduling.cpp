#include "cpu/scheduling.h"

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
  int n = CpuSet::of_this_thread().count();
  if (n == 0) n = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(n, quota_threads()));
}

#if defined(__linux__)

int this_cpu() { return sched_getcpu(); }

CpuSet CpuSet::of_this_thread() {
  CpuSet cpus;
  if (sched_getaffinity(0, sizeof cpus.set_, &cpus.set_) != 0) CPU_ZERO(&cpus.set_);
  return cpus;
}
int CpuSet::count() const { return CPU_COUNT(&set_); }
CpuSet CpuSet::without(int cpu) const {
  CpuSet others = *this;
  if (cpu >= 0) CPU_CLR(static_cast<unsigned>(cpu), &others.set_);
  return others;
}
void CpuSet::bind(pthread_t thread) const { pthread_setaffinity_np(thread, sizeof set_, &set_); }

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
CpuSet CpuSet::of_this_thread() { return {}; }
int CpuSet::count() const { return 0; }
CpuSet CpuSet::without(int) const { return {}; }
void CpuSet::bind(pthread_t) const {}

void take_short_slices() {}

#endif

}  // namespace fusedrnn
