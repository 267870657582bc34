// What a training step does to all parameters: the steps of optimizers, and the norm of the gradients.
#pragma once
#include <span>

#include "core/update.h"

namespace fusedrnn {

// Changes all of them. It is not interrupted on the way: of a step that was half made nobody could know which half.
template <class T> void run_update(Rule rule, const Rates& rates, std::span<const Update<T>> updates);

// The sum of squares of n elements, in double precision; its bits do not depend on the number of threads.
template <class T> double square_sum(const T* x, int64_t n);

}  // namespace fusedrnn
