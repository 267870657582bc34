// What a file compiled for one ISA offers the rest: a table of functions. No kernel is reached in any other way.
#pragma once
#include "core/cell.h"
#include "core/product.h"
#include "core/sequence.h"
#include "core/share.h"
#include "core/update.h"

namespace fusedrnn {

template <class T> struct CellKernels {
  // Elements of Sequence::workspace that so many threads need.
  int64_t (*workspace)(const Sequence<T>&, int threads);
  // Each does one thread's part and returns false if it was asked to stop.
  bool (*forward)(const Sequence<T>&, const Share&);
  bool (*backward)(const Sequence<T>&, const Share&);
  bool (*input_gradient)(const Sequence<T>&, const Share&);
  bool (*weight_gradient)(const Sequence<T>&, const Share&);
  bool (*option_gradients)(const Sequence<T>&, const Share&);  // of peepholes and W_hr; null: the cell has none
};

template <class T> struct Kernels {
  int lanes;                        // of bfloat16 kernels too: they count pairs
  CellKernels<T> cell[cell_count];  // by CellKind
  // Elements of Product::workspace that a thread needs, and its part of the product.
  int64_t (*product_workspace)(const Product<T>&);
  bool (*product)(const Product<T>&, const Share&);
  // By Rule: changes n elements of a parameter and its state by the gradient.
  void (*update[rule_count])(T* param, const T* grad, T* state0, T* state1, int64_t n, const Rates& rates);
  double (*square_sum)(const T* x, int64_t n);
  // Independent fused multiply-adds in registers for `rounds` rounds: the roof. Returns the operations done.
  int64_t (*multiply_add)(int64_t rounds);
  // Vectors over the rows of a matrix, and back (cpu/kernels/transpose.h).
  void (*copy_transposed)(const T* from, int64_t stride, int64_t rows, int64_t columns, T* to, int64_t step);
  void (*add_transposed)(const T* from, int64_t step, int64_t rows, int64_t columns, T* to, int64_t stride);
  // One value of a gate function, with the bits that the kernels give it.
  T (*value_at)(const GateFunction<T>& f, T x);
  // Mixes n bytes (a multiple of 4) into state[32]: any single changed word changes the state.
  void (*fingerprint)(const void* data, int64_t n, uint64_t* state);
};

}  // namespace fusedrnn
