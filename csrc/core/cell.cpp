#include "core/cell.h"

#include "core/inline.h"

namespace fusedrnn {
namespace {

// For their layouts; nothing is computed here.
#define FUSEDRNN_FORMULAS
#include "cells/list.h"

}  // namespace

CellLayout layout_of(CellKind cell) {
#define FUSEDRNN_LAYOUT(kind, formula, name) formula::layout,
  static constexpr CellLayout layouts[] = {FUSEDRNN_CELLS(FUSEDRNN_LAYOUT) FUSEDRNN_VARIED_CELLS(FUSEDRNN_LAYOUT)};
  return layouts[static_cast<int>(cell)];
}

}  // namespace fusedrnn
