#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>
#if defined(__linux__)
#include <link.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "system/system.h"

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

int64_t private_cache_bytes() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return bytes;
#endif
  return 1 << 20;
}

bool processor_has_dot_product() {
#if defined(__linux__) && defined(__aarch64__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__APPLE__) && defined(__aarch64__)
  return true;  // from the first of Apple's computers with ARM on
#else
  return false;
#endif
}

void* system_memory(std::size_t size, std::size_t alignment) {
  void* memory = std::aligned_alloc(alignment, size);
#if defined(__linux__)
  if (memory && alignment == huge_page_bytes) madvise(memory, size, MADV_HUGEPAGE);  // a wish; refusal is fine
#endif
  return memory;
}

void free_system_memory(void* memory) { std::free(memory); }

void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) { pthread_atfork(before, in_parent, in_child); }

// First among the names that all libraries see. Extension modules load theirs apart, and wheels bring them under names
// of their own (libgomp-a34b3233.so.1), so then in each file that is called like one.
void* loaded_openmp(const char* function) {
  void* found = dlsym(RTLD_DEFAULT, function);
  Dl_info where{};
  if (found && dladdr(found, &where)) return dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  void* library = nullptr;
#if defined(__linux__)
  const auto look = [](dl_phdr_info* info, size_t, void* data) {
    const std::string_view path = info->dlpi_name;
    const std::string_view file = path.substr(path.rfind('/') + 1);
    if (!file.starts_with("libgomp") && !file.starts_with("libomp") && !file.starts_with("libiomp")) return 0;
    void*& handle = *static_cast<void**>(data);
    handle = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    return handle ? 1 : 0;
  };
  dl_iterate_phdr(look, &library);
#endif
  return library;
}

AnyFunction function_of(void* library, const char* name) { return reinterpret_cast<AnyFunction>(dlsym(library, name)); }

namespace {

constinit std::atomic<uint64_t> forks{0};
[[maybe_unused]] const bool counted = [] {
  at_fork(nullptr, nullptr, [] { ++forks; });
  return true;
}();

}  // namespace

uint64_t process_number() { return forks.load(std::memory_order_relaxed); }

void wait_for_ever() {
  for (;;) pause();
}

void CpuSet::bind_this_thread() const { bind(pthread_self()); }

#if defined(__linux__)

namespace {

cpu_set_t* native(uint64_t* words) { return reinterpret_cast<cpu_set_t*>(words); }
const cpu_set_t* native(const uint64_t* words) { return reinterpret_cast<const cpu_set_t*>(words); }

}  // namespace

int this_cpu() { return sched_getcpu(); }

CpuSet CpuSet::of_this_thread() {
  static_assert(sizeof(cpu_set_t) == sizeof words_);
  CpuSet cpus;
  if (sched_getaffinity(0, sizeof cpus.words_, native(cpus.words_)) != 0) CPU_ZERO(native(cpus.words_));
  return cpus;
}
int CpuSet::count() const { return CPU_COUNT(native(words_)); }
CpuSet CpuSet::without(int cpu) const {
  CpuSet others = *this;
  if (cpu >= 0) CPU_CLR(static_cast<unsigned>(cpu), native(others.words_));
  return others;
}
void CpuSet::bind(std::thread::native_handle_type thread) const {
  pthread_setaffinity_np(thread, sizeof words_, native(words_));
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
CpuSet CpuSet::of_this_thread() { return {}; }
int CpuSet::count() const { return 0; }
CpuSet CpuSet::without(int) const { return {}; }
void CpuSet::bind(std::thread::native_handle_type) const {}

void take_short_slices() {}

#endif

}  // namespace fusedrnn
