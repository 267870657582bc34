// What a cell is to everything but its formulas: its place in the list, and the layout of its gates.
#pragma once
#include "cells/list.h"

namespace fusedrnn {

#define FUSEDRNN_KIND(kind, formula, name) kind,
#define FUSEDRNN_ONE(kind, formula, name) +1
enum class CellKind { FUSEDRNN_CELLS(FUSEDRNN_KIND) FUSEDRNN_VARIED_CELLS(FUSEDRNN_KIND) };
constexpr int fixed_cell_count = FUSEDRNN_CELLS(FUSEDRNN_ONE);
constexpr int cell_count = fixed_cell_count FUSEDRNN_VARIED_CELLS(FUSEDRNN_ONE);
#undef FUSEDRNN_KIND
#undef FUSEDRNN_ONE

// How a cell lays out its gates; each cell states it beside its formulas (cells/*.h).
struct CellLayout {
  int gates;           // G: blocks of H rows in W_ih and W_hh
  int slots;           // S: vectors saved per unit and step
  int input_slot;      // slots [input_slot, input_slot + G) are fed by W_ih x
  int recurrent_slot;  // slots [recurrent_slot, recurrent_slot + G) are fed by W_hh h
  int input_order[4];  // which block of W_ih feeds the g-th of these slots
  int recurrent_order[4];
  bool has_cell_state;  // c beside h
  // The last gate reads, by W_hh, what the step itself makes (GRU's r h): each gate of W_hh is packed by itself then.
  bool two_products = false;
};

CellLayout layout_of(CellKind cell);

// Whether its functions are chosen when a layer is made (core/cell_options.h).
constexpr bool is_varied(CellKind cell) { return static_cast<int>(cell) >= fixed_cell_count; }

}  // namespace fusedrnn
