#include "core/memory.h"

#include <algorithm>
#include <bit>
#include <list>
#include <new>
#include <string>

#include "core/process_locks.h"
#include "system/system.h"

namespace fusedrnn {
namespace {

constexpr std::size_t cache_line = 64, huge_page = huge_page_bytes;
constexpr std::size_t largest_small = 32 << 10;
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t most_kept = 0, most_small = 0;  // a block that lives on would hide its overruns
#else
constexpr std::size_t most_kept = std::size_t(256) << 20;  // bytes of unused blocks, over all sizes
constexpr std::size_t most_small = 32;                     // unused blocks of each small size
#endif

// Small blocks come in powers of two.
std::size_t rounded(std::size_t bytes) {
  if (bytes <= largest_small) return std::bit_ceil(std::max(bytes, cache_line));
  const std::size_t unit = bytes >= huge_page ? huge_page : 4096;
  return (bytes + unit - 1) / unit * unit;
}

std::size_t small_class(std::size_t size) { return static_cast<std::size_t>(std::countr_zero(size / cache_line)); }
constexpr std::size_t small_classes = std::bit_width(largest_small / cache_line);

struct Block {
  void* memory;
  std::size_t size;
};

struct Store {
  std::list<Block> blocks;  // most recently used first
  std::size_t kept = 0;
  struct {
    void* memory[most_small + 1];  // + 1: no array of size 0 under the address sanitizer
    std::size_t count = 0;
  } small[small_classes];
};

// Never destroyed: arrays that outlive the interpreter still give their memory back.
Store& store = *new Store;

// Becomes Python's MemoryError.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::size_t bytes)
      : message_("fusedrnn: " + std::to_string(bytes) +
                 " bytes could not be allocated; use a smaller batch or shorter sequences") {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  const std::string message_;
};

void* fresh(std::size_t size) {
  void* memory = system_memory(size, size >= huge_page ? huge_page : cache_line);
  if (!memory) throw OutOfMemory(size);
  return memory;
}

}  // namespace

void* take_memory(std::size_t bytes) {
  if (bytes > PTRDIFF_MAX - huge_page) throw OutOfMemory(bytes);
  const std::size_t size = rounded(bytes);
  {
    const std::lock_guard<std::mutex> lock(memory_lock());
    if (size <= largest_small) {
      auto& small = store.small[small_class(size)];
      if (small.count > 0) return small.memory[--small.count];
    } else {
      const auto found =
          std::find_if(store.blocks.begin(), store.blocks.end(), [&](const Block& b) { return b.size == size; });
      if (found != store.blocks.end()) {
        void* memory = found->memory;
        store.kept -= size;
        store.blocks.erase(found);
        return memory;
      }
    }
  }
  return fresh(size);
}

void give_memory(void* memory, std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  if (size > most_kept) return free_system_memory(memory);
  const std::lock_guard<std::mutex> lock(memory_lock());
  if (size <= largest_small) {
    auto& small = store.small[small_class(size)];
    if (small.count == most_small) return free_system_memory(memory);
    small.memory[small.count++] = memory;
    return;
  }
  store.blocks.push_front({memory, size});
  for (store.kept += size; store.kept > most_kept; store.blocks.pop_back()) {
    store.kept -= store.blocks.back().size;
    free_system_memory(store.blocks.back().memory);
  }
}

}  // namespace fusedrnn
