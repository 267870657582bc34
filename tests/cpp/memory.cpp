// Aligned memory from a store of used blocks (core/memory.h), and what the system says (system/system.h).
#include "core/memory.h"

#include <cstring>
#include <new>

#include "check.h"
#include "system/system.h"

namespace fusedrnn {
namespace {

UNIT_TEST(blocks_are_aligned_and_apart) {
  for (int64_t size : {0, 1, 63, 64, 65, 4096, 32769, 1 << 20, 5 << 20}) {
    const Buffer<char> a(size), b(size);
    CHECK(reinterpret_cast<uintptr_t>(a.get()) % 64 == 0);
    CHECK(a.get() != b.get() && (a.get() + size <= b.get() || b.get() + size <= a.get()));
    std::memset(a.get(), 1, static_cast<size_t>(size));
    std::memset(b.get(), 2, static_cast<size_t>(size));
    CHECK(size == 0 || (a.get()[size - 1] == 1 && b.get()[0] == 2));
  }
}

UNIT_TEST(moved_buffers_give_their_memory_back_once) {
  Buffer<int> a(10);
  int* const memory = a.get();
  Buffer<int> b(std::move(a));
  CHECK(b.get() == memory && !a.get());
  Buffer<int> c(20);
  c = std::move(b);
  CHECK(c.get() == memory);
}

UNIT_TEST(what_cannot_be_had_is_refused) {
  CHECK_THROWS(std::bad_alloc, take_memory(SIZE_MAX));
  CHECK_THROWS(std::bad_alloc, take_memory(std::size_t(1) << 60));
}

UNIT_TEST(the_system_answers) {
  CHECK(available_threads() >= 1);
  CHECK(private_cache_bytes() >= 1 << 14);
  const CpuSet cpus = CpuSet::of_this_thread();
  const int cpu = this_cpu();
  CHECK(cpu >= -1);
  if (cpu >= 0) CHECK(cpus.without(cpu).count() == cpus.count() - 1);
}

}  // namespace
}  // namespace fusedrnn
