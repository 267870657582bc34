// The order of rows. Samples are sorted by length, longest first. Step s then concerns the first count(s) of them, and
// the rows of all steps lie behind each other, (step, sorted sample). A reversed direction takes the steps of each
// sample from its own end.
#pragma once
#include <stdint.h>

#include "core/inline.h"

namespace fusedrnn {

// A sample whose state starts again on the way is as many samples here as it has segments, each with its own place in
// time. The rest of the code speaks of samples.
struct Ragged {
  int64_t steps;          // the longest length
  int64_t batch;          // B, or the number of segments
  const int64_t* first;   // (steps + 1): row at which step s starts; first[steps] = R
  const int64_t* sample;  // (batch): batch index of the j-th longest sample
  const int64_t* length;  // (batch): its length
  const int64_t* begin;   // (batch): the time of its first step; 0 but for segments
  const int64_t* state;   // (batch): its row in the states; its sample but for segments
  const int64_t* packed;  // null, or (T): x and y hold no padding, and time t begins at row packed[t] of theirs

  FUSEDRNN_INLINE int64_t count(int64_t step) const { return first[step + 1] - first[step]; }
  FUSEDRNN_INLINE int64_t rows() const { return first[steps]; }  // R
};

// The time at which a direction takes a step of a sample of this length, which is read only where it matters.
FUSEDRNN_INLINE int64_t time_of(int64_t step, const int64_t& length, bool reverse) {
  return reverse ? length - 1 - step : step;
}

}  // namespace fusedrnn
