// What the products and the time loops need to know of a cell. Cells that differ in their formulas alone share them.
#pragma once
#include "cpu/kernels/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

template <int Gates, int Slots, int InputSlot, int RecurrentSlot, bool CellState, bool TwoProducts> struct CellShape {
  static constexpr int gates = Gates, slots = Slots, input_slot = InputSlot, recurrent_slot = RecurrentSlot;
  static constexpr bool has_cell_state = CellState, two_products = TwoProducts;
};
template <class C>
using ShapeOf = CellShape<C::layout.gates, C::layout.slots, C::layout.input_slot, C::layout.recurrent_slot,
                          C::layout.has_cell_state, C::layout.two_products>;

// What the products with W_ih need to know; several shapes have it in common.
template <class Shape>
using InputSide = CellShape<Shape::gates, Shape::slots, Shape::input_slot, 0, false, false>;

// Whether it may have layer normalisation, with these operands.
template <class Shape, class E>
constexpr bool may_normalise = Operand<E>::values == 1 && Shape::gates > 1 && !Shape::two_products;

// Whether the functions of a cell are chosen when a layer is made (cells/activation.h).
template <class C> constexpr bool has_options = requires { C::varied; };

}  // namespace fusedrnn::FUSEDRNN_ISA
