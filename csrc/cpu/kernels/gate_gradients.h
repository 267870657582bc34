// The gate gradients dz as the operand of a product with transposed weights, whose k counts (unit, gate).
#pragma once
#include "cpu/blocks.h"
#include "cpu/kernels/tile.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Transposed weights hold one vector for each k, where k counts (unit, gate): so many blocks of units are a piece.
template <class T> constexpr int64_t units_per_piece(int64_t gates) { return piece_length / (gates * Vec<T>::lanes); }

// dz as the rows of a product: for each block of units the columns from the gate in `slot` on, `jump` apart.
FUSEDRNN_INLINE RowRun gate_run(const Blocks& blocks, int64_t values, int64_t slot, int64_t jump) {
  const int64_t length = blocks.gates * blocks.lanes, last = blocks.units - 1;
  return {blocks.units, length / values, jump, ceil_div(blocks.columns - last * length, values),
          slot * (blocks.distance(last) - blocks.lanes) / values};
}

}  // namespace fusedrnn::FUSEDRNN_ISA
