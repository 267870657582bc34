// Products of matrices as plain data: pointers, sizes and strides (in elements).
#pragma once
#include <stdint.h>

namespace fusedrnn {

// Element (row i, k) of item n at data[n*item + i*row + k*step].
template <class T> struct Factor {
  const T* data;
  int64_t item, row, step;
};

// y = x W^T of each of `items`: x (rows, K), W (columns, K), y (rows, columns).
template <class T> struct Product {
  int64_t items, rows, columns, K;
  Factor<T> x, weight;
  T* y;          // (items, rows, columns) in C order
  T* workspace;  // of all threads; each needs as much as Kernels::product_workspace says
};

}  // namespace fusedrnn
