// One thread's share of the work on a Sequence, and how it meets the threads that have the rest of it.
#pragma once
#include <stdint.h>

#include "core/inline.h"

namespace fusedrnn {

struct Share {
  int rank, size;
  int64_t sample_begin, sample_end;  // sorted samples of this thread
  int64_t unit_begin, unit_end;      // blocks of units of this thread
  bool shares_steps;                 // units are split: everybody must have finished a step before the next one
  void* context;
  bool (*barrier)(void* context);  // false: somebody asked to stop
  bool (*poll)(void* context);     // the same question without waiting

  // Where another thread runs the layer below, or above: wait until x holds this many steps; say that y does. Null
  // where x is complete, or nobody waits for y.
  bool (*await_input)(void* context, int64_t steps) = nullptr;
  void (*publish_output)(void* context, int64_t steps) = nullptr;
  FUSEDRNN_INLINE bool follows_closely() const { return await_input || publish_output; }

  // Those of n equal pieces of work that are this thread's.
  struct Range {
    int64_t begin, end;
  };
  FUSEDRNN_INLINE Range part_of(int64_t n) const { return {n * rank / size, n * (rank + 1) / size}; }
};

}  // namespace fusedrnn
