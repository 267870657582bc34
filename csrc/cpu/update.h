// What a training step does to all parameters: the steps of optimizers, the norm of the gradients, and the look whether
// somebody has written to them.
#pragma once
#include <span>

#include "core/update.h"

namespace fusedrnn {

// Changes all of them. It is not interrupted on the way: of a step that was half made nobody could know which half.
template <class T> void run_update(Rule rule, const Rates& rates, std::span<const Update<T>> updates);

// The sum of squares of n elements, in double precision; its bits do not depend on the number of threads.
template <class T> double square_sum(const T* x, int64_t n);

// A hash of some memory, of which any single changed word changes it. Sizes are multiples of 4 bytes.
struct Bytes {
  const void* data;
  int64_t size;
};
uint64_t fingerprint(std::span<const Bytes> parts);

}  // namespace fusedrnn
