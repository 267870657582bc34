// Uninitialised, cache-line aligned memory from a small store of blocks that were used before. A training step wants
// the same large blocks again and again; taking them fresh from the system would cost a page fault for every 4 KiB,
// which is a tenth of the step.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace fusedrnn {

// Throws std::bad_alloc.
void* take_memory(std::size_t bytes);
void give_memory(void* memory, std::size_t bytes);  // the size that was taken

template <class T> class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size)
      : bytes_(static_cast<std::size_t>(size) * sizeof(T)), data_(static_cast<T*>(take_memory(bytes_))) {}
  // Memory of somebody else's, at a cache line; it is left alone.
  static Buffer borrowed(T* data) {
    Buffer buffer;
    buffer.data_ = data;
    buffer.owned_ = false;
    return buffer;
  }
  Buffer(Buffer&& other) noexcept
      : bytes_(other.bytes_), data_(std::exchange(other.data_, nullptr)), owned_(other.owned_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~Buffer() {
    if (data_ && owned_) give_memory(data_, bytes_);
  }
  T* get() const { return data_; }

 private:
  std::size_t bytes_ = 0;
  T* data_ = nullptr;
  bool owned_ = true;
};

}  // namespace fusedrnn
