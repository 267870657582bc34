// A step of an optimizer as plain data: which formula, its numbers, and the arrays that it changes.
#pragma once
#include <stdint.h>

namespace fusedrnn {

enum class Rule { sgd, momentum, rmsprop, rmsprop_momentum, adam };
constexpr int rule_count = 5;

// The numbers of a rule, rounded to the type of the arrays before they are used. cpu/kernels/update.h says what for.
struct Rates {
  double lr = 0;
  double shrink = 1, decay = 0;
  double momentum = 0, along = 1, ahead = 0;
  double mean_share = 0, square_kept = 0, square_share = 0;
  double root_scale = 1, eps = 0;
};

// One parameter with what belongs to it, all in C order: `rows` rows of `width` elements, or those `chosen` of more.
template <class T> struct Update {
  T* param;
  const T* grad;
  T* state[2];  // as many as the rule has; the others are null
  int64_t rows, width;
  const int64_t* chosen;  // ascending; null: all
};

}  // namespace fusedrnn
