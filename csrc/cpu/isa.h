// Which instruction sets were compiled in, which of them this processor has, and the one in use.
#pragma once
#include <string>
#include <vector>

#include "cpu/kernel_table.h"

namespace fusedrnn {

struct Isa {
  const char* name;
  bool (*supported)();
  const Kernels<float>* f32;
  const Kernels<double>* f64;
};

// Names of the compiled instruction sets that this processor supports, slowest first.
std::vector<std::string> available_isas();

// The one in use: the fastest, or what FUSEDRNN_ISA names. Chosen once; throws ShapeError for an unknown or
// unsupported name.
const Isa& isa();

// The kernels with bfloat16 products and float sums for the ISA in use. Where the processor has no such instruction two
// float multiply-adds stand for it.
struct Bfloat16Kernels {
  const CellKernels<float>* cell;  // by CellKind; null: none for this ISA
  bool in_hardware;
};
const Bfloat16Kernels& bfloat16_kernels();

template <class T> const Kernels<T>& kernels();
template <> inline const Kernels<float>& kernels() { return *isa().f32; }
template <> inline const Kernels<double>& kernels() { return *isa().f64; }

}  // namespace fusedrnn
