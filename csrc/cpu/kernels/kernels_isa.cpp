// Compiled once per ISA and kind of operands (CMakeLists.txt holds the table) with FUSEDRNN_ISA, FUSEDRNN_VECTOR_BYTES
// and one of FUSEDRNN_OPERAND_float, _double, _bfloat16, _int8 set.
#include "cpu/kernel_table.h"
#include "cpu/kernels/cell_step.h"
#include "cpu/kernels/fingerprint.h"
#include "cpu/kernels/input_gradient.h"
#include "cpu/kernels/panel_gradients.h"
#include "cpu/kernels/peephole_gradient.h"
#include "cpu/kernels/product.h"
#include "cpu/kernels/roof.h"
#include "cpu/kernels/transpose.h"
#include "cpu/kernels/two_products.h"
#include "cpu/kernels/update.h"
#include "cpu/kernels/vmath.h"
#include "cpu/kernels/weight_gradient.h"
#if defined(FUSEDRNN_OPERAND_int8)
#include "cpu/kernels/any_tile.h"
#include "cpu/kernels/quantized.h"
#endif

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
#elif defined(FUSEDRNN_OPERAND_int8)
using Real = float;
using Element = Quad;
#else
using Real = float;
using Element = float;
#endif

template <class Shape, class T, class E> int64_t workspace(const Sequence<T>& seq, int threads) {
  const int64_t time_loop = Workspace<Shape, T, E>(seq, threads).total;
  if constexpr (is_quantized<E>) {
    return time_loop;
  } else {
    const int64_t weights = threads * WeightGradient<Shape, T, E>::buffer_size(seq);
    return time_loop > weights ? time_loop : weights;
  }
}

// The formulas of a cell for N cells side by side, which the time loop of its shape calls. With options they go in
// pairs: up to four at a time they would make the library a tenth larger.
template <class C, class Cell, int N> constexpr typename Cell::Pass::Finish formulas() {
  if constexpr (N > most_cells)
    return nullptr;
  else if constexpr (has_options<C> && N > 2)
    return Cell::template in_pairs<N>;
  else
    return Cell::template step<N>;
}

// The time loop of a shape with the formulas of a cell: those for N cells side by side at [N].
template <class C, class T, class Cell, auto... more> bool run(const Sequence<T>& seq, const Share& share) {
  if constexpr (is_quantized<Element>) {
    static constexpr typename Cell::Pass::Finish by_count[] = {nullptr, formulas<C, Cell, 1>(), formulas<C, Cell, 2>()};
    return Cell::Pass::run(seq, share, by_count);
  } else {
    static constexpr typename Cell::Pass::Finish by_count[] = {nullptr, formulas<C, Cell, 1>(), formulas<C, Cell, 2>(),
                                                               formulas<C, Cell, 3>(), formulas<C, Cell, 4>()};
    return Cell::Pass::run(seq, share, by_count, more...);
  }
}

template <class Shape, class T> bool option_gradients(const Sequence<T>& seq, const Share& share) {
  if constexpr (Shape::has_cell_state)
    if (!PeepholeGradient<Shape, T>::run(seq, share) || !ProjectionGradient<Shape, T>::run(seq, share)) return false;
  return NormGradient<T>::template run<Shape>(seq, share);
}

template <class C, class T, class E> constexpr CellKernels<T> cell_kernels() {
  using Shape = ShapeOf<C>;
  CellKernels<T> table{};
  table.workspace = workspace<Shape, T, E>;
  if constexpr (is_quantized<E>) {  // for inference alone
    table.forward = run<C, T, ForwardCell<C, T, E>>;
  } else if constexpr (Shape::two_products) {
    table.forward = TwoProductSteps<C, T>::run;
    table.backward = run<C, T, BackwardCell<C, T, E>, TwoProductBackward<C, T>::finish_between>;
    table.weight_gradient = GateWeights<C, T>::run;
  } else {
    table.forward = run<C, T, ForwardCell<C, T, E>>;
    table.backward = run<C, T, BackwardCell<C, T, E>>;
    table.weight_gradient = WeightGradient<Shape, T, E>::run;
  }
  if constexpr (!is_quantized<E>) table.input_gradient = InputGradient<InputSide<Shape>, T, E>::run;
  if constexpr (has_options<C> && may_normalise<Shape, E>) table.option_gradients = option_gradients<Shape, T>;
  return table;
}

#define FUSEDRNN_CELL_KERNELS(kind, cell, name) cell_kernels<cell, Real, Element>(),

}  // namespace

#if defined(FUSEDRNN_OPERAND_bfloat16)
extern const CellKernels<float> cells_bf16[fixed_cell_count];
const CellKernels<float> cells_bf16[fixed_cell_count] = {FUSEDRNN_CELLS(FUSEDRNN_CELL_KERNELS)};
#elif defined(FUSEDRNN_OPERAND_int8)
extern const CellKernels<float> cells_int8[fixed_cell_count];
const CellKernels<float> cells_int8[fixed_cell_count] = {FUSEDRNN_CELLS(FUSEDRNN_CELL_KERNELS)};
int64_t multiply_int8(int64_t rounds);
int64_t multiply_int8(int64_t rounds) { return multiply_add<Quad>(rounds); }
#else
#if defined(FUSEDRNN_OPERAND_double)
#define FUSEDRNN_TABLE kernels_f64
#else
#define FUSEDRNN_TABLE kernels_f32
#endif
extern const Kernels<Real> FUSEDRNN_TABLE;
const Kernels<Real> FUSEDRNN_TABLE = {
    Vec<Real>::lanes,
    {FUSEDRNN_CELLS(FUSEDRNN_CELL_KERNELS) FUSEDRNN_VARIED_CELLS(FUSEDRNN_CELL_KERNELS)},
    RowProducts<Real>::workspace,
    RowProducts<Real>::run,
    {Updates<Real>::sgd, Updates<Real>::momentum, Updates<Real>::rmsprop, Updates<Real>::rmsprop_momentum,
     Updates<Real>::adam},
    square_sum<Real>,
    multiply_add<Real>,
    Transpose<Real>::copy,
    Transpose<Real>::add,
    value_at<Real>,
    fingerprint};
#endif

}  // namespace fusedrnn::FUSEDRNN_ISA
