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

}  // namespace fusedrnn::FUSEDRNN_ISA
