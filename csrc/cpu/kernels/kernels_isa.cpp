// Compiled once per ISA and kind of operands (CMakeLists.txt holds the table) with FUSEDRNN_ISA, FUSEDRNN_VECTOR_BYTES
// and one of FUSEDRNN_OPERAND_float, _double, _bfloat16 set.
#include "cpu/kernel_table.h"
#include "cpu/kernels/cell_step.h"
#include "cpu/kernels/fingerprint.h"
#include "cpu/kernels/input_gradient.h"
#include "cpu/kernels/linear.h"
#include "cpu/kernels/roof.h"
#include "cpu/kernels/transpose.h"
#include "cpu/kernels/vmath.h"
#include "cpu/kernels/weight_gradient.h"

namespace fusedrnn::FUSEDRNN_ISA {

#define FUSEDRNN_FORMULAS
#include "cells/list.h"

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

template <class Shape, class T, class E> int64_t workspace(const Sequence<T>& seq, int threads) {
  const int64_t time_loop = Workspace<Shape, T, E>(seq, threads).total;
  const int64_t weights = threads * WeightGradient<Shape, T, E>::buffer_size(seq);
  return time_loop > weights ? time_loop : weights;
}

// The time loop of a shape with the formulas of a cell: those for N cells side by side at [N].
template <class C, class T, class E> bool forward(const Sequence<T>& seq, const Share& share) {
  using Cell = ForwardCell<C, T, E>;
  static constexpr typename Cell::Pass::Finish by_count[] = {nullptr,
                                                             Cell::template step<1>,
                                                             Cell::template step<2>,
                                                             Cell::template step<3>,
                                                             Cell::template step<4>,
                                                             Cell::template step<5>};
  return Cell::Pass::run(seq, share, by_count);
}
template <class C, class T, class E> bool backward(const Sequence<T>& seq, const Share& share) {
  using Cell = BackwardCell<C, T, E>;
  static constexpr typename Cell::Pass::Finish by_count[] = {nullptr,
                                                             Cell::template step<1>,
                                                             Cell::template step<2>,
                                                             Cell::template step<3>,
                                                             Cell::template step<4>,
                                                             Cell::template step<5>};
  return Cell::Pass::run(seq, share, by_count);
}

template <class C, class T, class E> constexpr CellKernels<T> cell_kernels() {
  using Shape = ShapeOf<C>;
  return {workspace<Shape, T, E>, forward<C, T, E>, backward<C, T, E>, InputGradient<Shape, T, E>::run,
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
                                      Linear<Real>::run,
                                      multiply_add<Real>,
                                      Transpose<Real>::copy,
                                      Transpose<Real>::add,
                                      fingerprint};
#endif

}  // namespace fusedrnn::FUSEDRNN_ISA
