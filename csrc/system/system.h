// What the operating system is asked and told. All that is not standard C++ stands behind this header, in one source
// file for each kind of system: posix.cpp for Linux and macOS. (CUDA's loader of libraries is the exception.)
#pragma once
#include <cstddef>
#include <cstdint>
#include <thread>

namespace fusedrnn {

// Threads that this process may use: the caller's affinity mask and the cgroup's CPU quota.
int available_threads();

// The CPU that the caller runs on; -1: not known.
int this_cpu();

// Bytes of second-level cache that a core has to itself; a guess where that is not known.
int64_t private_cache_bytes();

// Whether an ARM processor multiplies four pairs of 8 bits in an instruction (FEAT_DotProd); elsewhere false.
bool processor_has_dot_product();

// CPUs that a thread may run on; none where the system does not say.
class CpuSet {
 public:
  static CpuSet of_this_thread();
  int count() const;
  CpuSet without(int cpu) const;
  void bind(std::thread::native_handle_type thread) const;
  void bind_this_thread() const;

 private:
  uint64_t words_[16] = {};  // a bit for each of 1024
};

// Asks for the shortest time slices, which makes nobody's share larger or smaller: who is woken for a short while goes
// before a thread with a long slice. The workers of other libraries spin for many milliseconds after their last call.
// From Linux 6.12 on; elsewhere nothing is asked.
void take_short_slices();

// Memory of the system; the alignment is a power of two and divides the size. Null: there is none. Where it is that of
// a huge page, huge pages are asked for.
constexpr std::size_t huge_page_bytes = std::size_t(2) << 20;
void* system_memory(std::size_t size, std::size_t alignment);
void free_system_memory(void* memory);

// Functions to be called before a fork, after it in the parent, and after it in the child; each may be null.
void at_fork(void (*before)(), void (*in_parent)(), void (*in_child)());

// The OpenMP library that the process has loaded, known by one of its functions, or null; nothing is loaded. Where
// there are several, it is that which other libraries are given.
void* loaded_openmp(const char* function);
using AnyFunction = void (*)();
AnyFunction function_of(void* library, const char* name);  // or null

// Another number in a forked child than in its parent.
uint64_t process_number();

// The calling thread does nothing any more, until the process ends.
[[noreturn]] void wait_for_ever();

}  // namespace fusedrnn
