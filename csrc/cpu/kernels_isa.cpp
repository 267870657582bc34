// Compiled once per ISA and kind of operands (CMakeLists.txt holds the table) with FUSEDRNN_ISA, FUSEDRNN_VECTOR_BYTES
// and one of FUSEDRNN_OPERAND_float, _double, _bfloat16 set.
#include "cpu/cell_step.h"
#include "cpu/fingerprint.h"
#include "cpu/kernels.h"
#include "cpu/roof.h"
#include "cpu/row_products.h"
#include "cpu/transpose.h"

namespace fusedrnn::FUSEDRNN_ISA {

#include "cells/activation.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"

namespace {

#if defined(FUSEDRNN_OPERAND_double)
using Real = double;
using Element = double;
#elif defined(FUSEDRNN_OPERAND_bfloat16)
using Real = float;
using Element = Pair;
#else
using Real = float;
using Element = float;
#endif

template <class Shape, class T, class E> int64_t workspace(const Sequence<T>& q, int team_size) {
  const int64_t time_loop = Workspace<Shape, T, E>(q, team_size).total;
  const int64_t weights = team_size * WeightGradient<Shape, T, E>::buffer_size(q);
  return time_loop > weights ? time_loop : weights;
}

template <class C, class T, class E> constexpr CellKernels<T> cell_kernels() {
  using Shape = ShapeOf<C>;
  return {C::layout,
          workspace<Shape, T, E>,
          ForwardCell<C, T, E>::run,
          BackwardCell<C, T, E>::run,
          InputGradient<Shape, T, E>::run,
          WeightGradient<Shape, T, E>::run};
}

#define FUSEDRNN_CELL_KERNELS(kind, cell, name) cell_kernels<cell, Real, Element>(),

}  // namespace

#if defined(FUSEDRNN_OPERAND_bfloat16)
extern const CellKernels<float> cells_bf16[cell_count];
const CellKernels<float> cells_bf16[cell_count] = {FUSEDRNN_CELLS(FUSEDRNN_CELL_KERNELS)};
#else
#if defined(FUSEDRNN_OPERAND_double)
#define FUSEDRNN_TABLE kernels_f64
#else
#define FUSEDRNN_TABLE kernels_f32
#endif
extern const Kernels<Real> FUSEDRNN_TABLE;
const Kernels<Real> FUSEDRNN_TABLE = {Vec<Real>::lanes,
                                      {FUSEDRNN_CELLS(FUSEDRNN_CELL_KERNELS)},
                                      RowProducts<Real>::run,
                                      multiply_add<Real>,
                                      Transpose<Real>::copy,
                                      Transpose<Real>::add,
                                      fingerprint};
#endif

}  // namespace fusedrnn::FUSEDRNN_ISA
