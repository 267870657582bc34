// What the orchestration (forward.h, backward.h) asks of a device. Two classes offer it: CudaDevice and HostDevice, the
// same in plain loops, so that every index, stride and order is tested without a GPU. One object serves one call.
//
//   lanes()                      how many lanes of work may run side by side; lane 0 is the caller's stream
//   each(lane, rows, columns, f) f(row, column) for every pair, in any order
//   multiply(lane, product)      c = a b + beta c
//   write(lane, to, from, bytes) host memory to device memory, copied before it returns
//   scratch(bytes)               memory until the end of the call; after fork() for lane 0 alone
//   run_phases(lane, grid, w)    w's phases on blocks of threads, with barriers between them (resident_forward.h)
//   limits(place)                what a block of threads may use; static
//   fork(), join()               lanes begin after lane 0; lane 0 goes on after all lanes
//   record(lane), wait(lane, e)  a point in a lane's work, and waiting for it
//   loop(lane, key, bytes)       memory and recorded segments that outlive the call, for one time loop of this key
//   replay(lane, loop, n, variant, body)  body's work; recorded for (n, variant), later replayed without calling body
// scratch, loop, store().take and replay may throw OutOfMemory.
#pragma once
#include <compare>
#include <string_view>

#include "cuda/stack.h"

namespace fusedrnn::cuda {

// Row-major c (m, n) = op(a) (m, k) op(b) (k, n) + beta c. ld: elements from row to row of what is stored. Sums are
// Sum<E>. Rows and columns are at least 1, except k.
template <class E, class C> struct Product {
  int64_t m, n, k;
  const E* a;
  int64_t lda;
  bool transpose_a;
  const E* b;
  int64_t ldb;
  bool transpose_b;
  C* c;
  int64_t ldc;
  int beta;  // 0 or 1
};

// What a recorded loop depends on beside the contents of its memory.
struct LoopKey {
  CellKind cell;
  std::string_view element;
  int64_t slab, batch, hidden_size;
  bool backward, tf32;
  Path path;
  const void* weight_hh;
  int64_t lane;  // the device's to fill in, where its recordings depend on that
  auto operator<=>(const LoopKey&) const = default;
};

// Pieces of one block of memory, each aligned for any use.
class Carver {
 public:
  explicit Carver(char* base) : base_(base) {}
  template <class X> X* take(int64_t n) {
    X* piece = reinterpret_cast<X*>(base_ + size_);
    size_ += (n * static_cast<int64_t>(sizeof(X)) + 255) / 256 * 256;
    return piece;
  }
  int64_t size() const { return size_; }

 private:
  char* base_;
  int64_t size_ = 0;
};

template <class X, class D> X* scratch(D& device, int64_t n) {
  return static_cast<X*>(device.scratch(n * static_cast<int64_t>(sizeof(X))));
}

}  // namespace fusedrnn::cuda
