// The pool: pieces that were given back are used again in the order of the streams, as cudaMallocAsync may.
#include <cstdlib>
#include <cstring>

#include "device.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

namespace emulator {
namespace {

constexpr size_t fence = 256;  // behind each piece; nobody may touch it

struct Piece {
  size_t bytes;
  Stream* stream = nullptr;       // in which it was given back
  std::shared_ptr<Point> unused;  // where; null: in use
};

std::map<char*, Piece>& pieces() {
  static auto& instance = *new std::map<char*, Piece>;
  return instance;
}
size_t used = 0;

void put_nan(Stream& stream, char* at, size_t bytes, bool is_given) {
  stream.put([=](Stream&) {
    ASAN_UNPOISON_MEMORY_REGION(at, bytes);
    std::memset(at, 0xFF, bytes);
    if (!is_given) ASAN_POISON_MEMORY_REGION(at, bytes);
  });
}

}  // namespace

size_t used_memory() { return used; }

void* take(size_t bytes, Stream& stream) {
  std::vector<char*> fitting;
  for (const auto& [at, piece] : pieces()) {
    if (!piece.unused || piece.bytes != bytes) continue;
    // To wait for another stream would order what nothing else may.
    if (piece.stream == &stream || piece.unused->passed || !lazy) fitting.push_back(at);
  }
  char* at = nullptr;
  if (!fitting.empty() && chance(90)) {
    at = fitting[random()() % fitting.size()];
    Piece& piece = pieces().at(at);
    if (piece.stream != &stream) stream.wait(piece.unused);
    piece.unused = nullptr;
  } else {
    if (used + bytes > total_memory) return nullptr;
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes + fence) != 0) return nullptr;
    at = static_cast<char*>(memory);
    ASAN_POISON_MEMORY_REGION(at + bytes, fence);
    used += bytes;
    pieces()[at] = {bytes, nullptr, nullptr};
  }
  put_nan(stream, at, bytes, true);
  return at;
}

void give_back(void* memory, Stream& stream) {
  const auto found = pieces().find(static_cast<char*>(memory));
  if (found == pieces().end() || found->second.unused) fatal("memory is given back that is not in use");
  auto& [at, piece] = *found;
  put_nan(stream, at, piece.bytes, false);
  piece.stream = &stream;
  piece.unused = stream.mark();
}

void trim() {
  std::erase_if(pieces(), [](const auto& entry) {
    const auto& [at, piece] = entry;
    if (!piece.unused || !piece.unused->passed) return false;
    acquired(piece.unused->token);
    ASAN_UNPOISON_MEMORY_REGION(at, piece.bytes + fence);
    used -= piece.bytes;
    std::free(at);
    return true;
  });
}

bool is_on_device(const void* address) {
  auto* const at = const_cast<char*>(static_cast<const char*>(address));
  auto next = pieces().upper_bound(at);
  return next != pieces().begin() && (--next, at < next->first + next->second.bytes);
}

}  // namespace emulator
