// How H hidden units lie in blocks of L, the lanes of a vector. Shared by code compiled for different ISAs: everything
// here is inlined.
//
// A block has a vector for each of its G gates. Only in the last one are there fewer than L units; where that saves a
// vector, its gates lie side by side instead, `slot` columns each, and it is called dense. (Not where it is the only
// one: one sequence of so few units would wait for the gates to be taken apart.)
//
//   H = 20, L = 16, LSTM:  iiiiiiiiiiiiiiii ffffffffffffffff gggggggggggggggg oooooooooooooooo | iiiiffffggggoooo
//
// Weights, their gradients and the gate gradients are kept so; what is saved by forward has a vector per gate
// everywhere.
#pragma once
#include <stdint.h>

#include "core/inline.h"

namespace fusedrnn {

struct Blocks {
  int64_t units;    // U = ceil(H / L), all blocks
  int64_t wide;     // those with a vector per gate
  int64_t vectors;  // of the dense block; 0: there is none
  int64_t slot;     // columns of each of its gates: its units, rounded up to whole operands
  int64_t columns;  // from the first gate of the first block to the last unit of the last gate
  int64_t lanes, gates;

  // values: columns that share an operand (2 for bfloat16).
  FUSEDRNN_INLINE Blocks(int64_t H, int64_t G, int64_t L, int64_t values)
      : units((H + L - 1) / L), wide(units), vectors(0), slot(L), lanes(L), gates(G) {
    const int64_t rest = H - (units - 1) * L, narrow = (rest + values - 1) / values * values;
    columns = ((units - 1) * G + G - 1) * L + rest;
    if (units == 1 || G * narrow > (G - 1) * L) return;
    wide = units - 1;
    vectors = (G * narrow + L - 1) / L;
    slot = narrow;
    columns = wide * G * L + G * narrow;
  }

  // The same units with so many of their gates, as the k of a product with transposed weights.
  FUSEDRNN_INLINE Blocks part(int64_t some) const {
    Blocks b = *this;
    b.gates = some;
    b.columns = wide < units ? some * (wide * lanes + slot) : columns - units * (gates - some) * lanes;
    return b;
  }

  // Between the gates of a unit of this block.
  FUSEDRNN_INLINE int64_t distance(int64_t block) const { return block < wide ? lanes : slot; }
};

}  // namespace fusedrnn
