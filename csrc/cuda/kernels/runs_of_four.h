// W_hh as the products of the fused path read it: the k of a unit adjacent, in whole runs of four.
#pragma once
#include "cuda/kernels/element.h"
#include "cuda/path_plan.h"

namespace fusedrnn::cuda {

// Elements from row to row of what a product reads: whole runs of four, the last one filled up with zeros.
FUSEDRNN_BOTH constexpr int64_t operand_row(int64_t columns) { return (columns + 3) / 4 * 4; }

// Whether W_hh (G, H, H) may be read so as it lies.
template <class E> bool has_runs(const E* weight_hh, int64_t H) {
  return H % 4 == 0 && reinterpret_cast<uintptr_t>(weight_hh) % (4 * sizeof(E)) == 0;
}

// to (n, operand_row(columns)) of from (n, columns).
template <class E> struct FillRows {
  const E* from;
  E* to;
  int64_t columns;

  FUSEDRNN_BOTH void operator()(int64_t row, int64_t column) const {
    to[row * operand_row(columns) + column] = column < columns ? from[row * columns + column] : static_cast<E>(0.0f);
  }
};

// to (columns, operand_row(rows)) of from (rows, columns). A block of threads has a square of both, so that whole
// sectors are read and written.
template <class E> struct Transpose {
  static constexpr int side = 32, threads = 256, pitch = side + 1;

  const E* from;
  E* to;
  int rows, columns;

  static Grid grid(int64_t rows, int64_t columns) {
    return {squares(operand_row(rows)) * squares(columns), threads, side * pitch * int64_t(sizeof(E))};
  }

  struct Thread {
    int row, column, x, y;  // the first of the square; the thread's place in a line, and its first line
  };

  static constexpr int stride = 1;
  static constexpr bool is_one_step = true;
  FUSEDRNN_PHASE int first_step(int) const { return 0; }
  FUSEDRNN_PHASE int end_step(int) const { return 1; }

  FUSEDRNN_PHASE void begin(Thread& t, char*, int block, int thread, int) const {
    const int across = static_cast<int>(squares(columns));
    t = {block / across * side, block % across * side, thread % side, thread / side};
  }

  FUSEDRNN_PHASE void first(const Thread& t, char* memory, int) const {
    E* square = reinterpret_cast<E*>(memory);
    const int column = t.column + t.x;
    FUSEDRNN_UNROLL
    for (int line = 0; line < side; line += threads / side) {
      const int row = t.row + t.y + line;
      square[(t.y + line) * pitch + t.x] =
          row < rows && column < columns ? from[int64_t(row) * columns + column] : static_cast<E>(0.0f);
    }
  }

  FUSEDRNN_PHASE void second(const Thread& t, char* memory, int) const {
    const E* square = reinterpret_cast<const E*>(memory);
    const int row = t.row + t.x, width = static_cast<int>(operand_row(rows));
    FUSEDRNN_UNROLL
    for (int line = 0; line < side; line += threads / side) {
      const int column = t.column + t.y + line;
      if (row < width && column < columns) to[int64_t(column) * width + row] = square[t.x * pitch + t.y + line];
    }
  }

  FUSEDRNN_PHASE void finish(const Thread&, char*) const {}

 private:
  FUSEDRNN_BOTH static constexpr int64_t squares(int64_t n) { return (n + side - 1) / side; }
};

}  // namespace fusedrnn::cuda
