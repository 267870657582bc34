// What the products and the time loops need to know of a cell. Cells that differ in their formulas alone share them.
#pragma once

namespace fusedrnn::FUSEDRNN_ISA {

template <int Gates, int Slots, int InputSlot, int RecurrentSlot, bool CellState> struct CellShape {
  static constexpr int gates = Gates, slots = Slots, input_slot = InputSlot, recurrent_slot = RecurrentSlot;
  static constexpr bool has_cell_state = CellState;
};
template <class C>
using ShapeOf = CellShape<C::layout.gates, C::layout.slots, C::layout.input_slot, C::layout.recurrent_slot,
                          C::layout.has_cell_state>;

// Whether the functions of a cell are chosen when a layer is made (cells/activation.h).
template <class C> constexpr bool has_options = requires { C::varied; };

}  // namespace fusedrnn::FUSEDRNN_ISA
