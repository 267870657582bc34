// What the time loops of forward and backward share: groups of cells, and states on their way in and out.
#pragma once
#include "core/sequence.h"
#include "core/share.h"
#include "cpu/kernels/tile.h"

namespace fusedrnn::FUSEDRNN_ISA {

// How many cells of a tile go through the cell's formula side by side. More of them would hide no more latency: with 16
// registers the values of more than three are kept in memory between its operations.
constexpr int most_cells = max_accumulators > 12 ? 4 : 3;
constexpr int cells_at_once(int cells) {
  if (cells <= most_cells) return cells;
  return cells == 4 ? 2 : cells % 3 == 0 || most_cells == 3 || cells == 5 ? 3 : 4;
}

// Calls body(N, i) for groups of N cells, the first of which is cell i of the tile.
template <int cells, class Body> FUSEDRNN_INLINE void each_group(const Body& body) {
  constexpr int N = cells_at_once(cells), rest = cells % N;
#pragma GCC unroll 1
  for (int i = 0; i + N <= cells; i += N) body(N, i);
  if constexpr (rest > 0) body(rest, cells - rest);
}

// The same for a number of cells that is known only now.
template <class Body> FUSEDRNN_INLINE void for_groups(int cells, const Body& body) {
  const int N = cells_at_once(cells);
  int i = 0;
  for (; i + N <= cells; i += N) body(N, i);
  if (i < cells) body(cells - i, i);
}

// Calls body(j, unit, at) for each sorted sample and block of units that are this thread's; at: where the block begins
// in a state whose rows are `row` apart.
template <int L, class Body> FUSEDRNN_INLINE void each_state(const Share& share, int64_t row, const Body& body) {
  for (int64_t j = share.sample_begin; j < share.sample_end; ++j)
    for (int64_t unit = share.unit_begin; unit < share.unit_end; ++unit) body(j, unit, j * row + unit * L);
}

// Calls body(j) for samples [begin, end). One alone does not pass through the checks before a vectorised loop, which
// take as long as a tenth of a step of few units.
template <class Body> FUSEDRNN_INLINE void each_sample(int64_t begin, int64_t end, const Body& body) {
  if (end - begin == 1) return body(begin);
  for (int64_t j = begin; j < end; ++j) body(j);
}

// A block of units of sorted sample j in the caller's arrays, of states of this size: seq.P of h, seq.H of c.
template <class T>
FUSEDRNN_INLINE Vec<T> read_state(const Sequence<T>& seq, const StateView<const T>& from, int64_t j, int64_t unit,
                                  int64_t size) {
  if (!from.data || unit * Vec<T>::lanes >= size) return Vec<T>(T(0));
  return load_within(from.data + seq.ragged->state[j] * from.stride, unit * Vec<T>::lanes, size);
}
template <class T>
FUSEDRNN_INLINE void write_state(const Sequence<T>& seq, const StateView<T>& to, int64_t j, int64_t unit, Vec<T> state,
                                 int64_t size) {
  if (unit * Vec<T>::lanes >= size) return;
  store_within(state, to.data + seq.ragged->state[j] * to.stride, unit * Vec<T>::lanes, size);
}

}  // namespace fusedrnn::FUSEDRNN_ISA
