// The recursion of connectionist temporal classification (Graves et al. 2006, equations 6 to 8) with probabilities.
#pragma once
#include <cstdint>

namespace fusedrnn {

// Arrays of `columns` sequences side by side, which do not meet: (steps, states, columns), and what is said otherwise.
struct Alignments {
  int64_t steps, states, columns;
  const double* emissions;  // the probability of a state's symbol at a step
  const double* allowed;    // 1 where a state may be reached from the one two before it, else 0: (states, columns)
  double* before;           // what has reached a state in front of each step
  double* after;            // before * emission, (steps, states + 2, columns): the first two states are 0
  double* scales;           // logarithms of what `after` was divided by, (steps, columns), 0 where it was not
  int64_t rescaled;         // steps from one division by the sum to the next
};

void align(const Alignments& a) noexcept;

}  // namespace fusedrnn
