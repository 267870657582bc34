// Where rows lie, in code that runs for one row and one column: from (time, sorted sample) to addresses.
#pragma once
#include "cuda/kernels/element.h"

namespace fusedrnn::cuda {

// The row order of core/sequence.h, readable on the device. Packed rows lie in the order (time, sorted sample), for
// both directions alike: row(t, j) = first[t] + j, R rows in all.
struct Rows {
  int64_t time, batch;                     // T, B
  const int64_t *first, *sample, *length;  // (steps + 1), (B), (B); all null where every sample has T steps

  FUSEDRNN_BOTH int64_t length_of(int64_t j) const { return length ? length[j] : time; }
  FUSEDRNN_BOTH int64_t sample_of(int64_t j) const { return sample ? sample[j] : j; }
  FUSEDRNN_BOTH int64_t row(int64_t t, int64_t j) const { return first ? first[t] + j : t * batch + j; }
  // The row of step s, taken at time t, where rows lie in the order of the steps, as projected ones do: that of row()
  // where every sample has T steps.
  FUSEDRNN_BOTH int64_t row_in_order(int64_t s, int64_t t, int64_t j) const {
    return first ? first[s] + j : t * batch + j;
  }
};

// An array with one row a (time, sample): the caller's, addressed by strides, or packed with `batch` from row to row.
template <class P> struct Sequenced {
  P* data;
  int64_t step, batch;
  bool packed;

  FUSEDRNN_BOTH P* at(const Rows& rows, int64_t t, int64_t j) const {
    return packed ? at(rows.row(t, j), 0, 0) : at(0, t, rows.sample_of(j));
  }
  // The same where the packed row and the caller's sample are known.
  FUSEDRNN_BOTH P* at(int64_t row, int64_t t, int64_t sample) const {
    return data + (packed ? row * batch : t * step + sample * batch);
  }
};

// The functors below run once for each (row, column) of a matrix.

// Packed rows, or the rows of steps [step, step + n) in the order in which a direction takes them, from any source.
template <class E> struct Gather {
  Rows rows;
  Sequenced<const E> from;
  bool reverse;
  int64_t step, origin;  // the first of the steps; the row that becomes row 0
  E* to;
  int64_t width;

  // i counts (step, sorted sample) without gaps.
  FUSEDRNN_BOTH void operator()(int64_t i, int64_t u) const {
    const int64_t s = step + i / rows.batch, j = i % rows.batch, length = rows.length_of(j);
    if (s >= length) return;
    const int64_t t = time_of(s, length, reverse), row = rows.row_in_order(s, t, j);
    to[(row - origin) * width + u] = from.at(rows, t, j)[u];
  }
};

// Packed rows into the caller's array, zeros past each sample's end; i counts (time, sorted sample).
template <class A, class E> struct Scatter {
  Rows rows;
  const A* from;
  int64_t width;
  Sequenced<E> to;

  FUSEDRNN_BOTH void operator()(int64_t i, int64_t u) const {
    const int64_t t = i / rows.batch, j = i % rows.batch;
    const bool valid = t < rows.length_of(j);
    to.at(rows, t, j)[u] = static_cast<E>(valid ? from[rows.row(t, j) * width + u] : A(0));
  }
};

// Zeros past each sample's end and nothing else.
template <class E> struct ClearPadding {
  Rows rows;
  Sequenced<E> to;

  FUSEDRNN_BOTH void operator()(int64_t i, int64_t u) const {
    const int64_t t = i / rows.batch, j = i % rows.batch;
    if (t >= rows.length_of(j)) to.at(rows, t, j)[u] = static_cast<E>(0.0f);
  }
};

// value(begin) + ... + value(end - 1), in order. They are read a few at a time, so that one does not wait for the next.
template <class A, class Value> FUSEDRNN_INLINE A sum_in_order(int64_t begin, int64_t end, Value value) {
  constexpr int together = 8;
  A sum(0);
  int64_t i = begin;
  FUSEDRNN_DO_NOT_UNROLL
  for (; i + together <= end; i += together) {
    A values[together];
    FUSEDRNN_UNROLL
    for (int k = 0; k < together; ++k) values[k] = value(i + k);
    FUSEDRNN_UNROLL
    for (int k = 0; k < together; ++k) sum += values[k];
  }
  FUSEDRNN_DO_NOT_UNROLL
  for (; i < end; ++i) sum += value(i);
  return sum;
}

// Sums over the rows of a matrix in an order that depends on its size alone: parts of `part_rows` rows, then the parts.
template <class E> struct SumParts {
  const E* from;  // (rows, columns)
  int64_t rows, columns, part_rows;
  Sum<E>* parts;  // (parts, columns)

  FUSEDRNN_BOTH void operator()(int64_t part, int64_t column) const {
    const int64_t begin = part * part_rows, end = begin + part_rows < rows ? begin + part_rows : rows;
    parts[part * columns + column] = sum_in_order<Sum<E>>(
        begin, end, [&](int64_t row) { return static_cast<Sum<E>>(from[row * columns + column]); });
  }
};
template <class E> struct AddParts {
  const Sum<E>* parts;
  int64_t count, columns;  // of parts
  int64_t column;          // the first column of the run
  E* to;                   // added to

  FUSEDRNN_BOTH void operator()(int64_t, int64_t u) const {
    const Sum<E> sum = sum_in_order<Sum<E>>(0, count, [&](int64_t part) { return parts[part * columns + column + u]; });
    to[u] = static_cast<E>(static_cast<Sum<E>>(to[u]) + sum);
  }
};

}  // namespace fusedrnn::cuda
