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

// Names of the compiled instruction sets that this processor supports, slowest first. With `extensions` also those that
// differ in the kernels for weights in 8 bits alone.
std::vector<std::string> available_isas(bool extensions = false);

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

// The kernels that multiply weights in 8 bits, forward only. Where the processor has an instruction for four products
// at once (VNNI) they use it, unless FUSEDRNN_ISA names the instruction set without it. All give the same integer sums.
struct Int8Kernels {
  const char* name;                         // avx512_vnni, avx512, ...
  const CellKernels<float>* cell;           // by CellKind
  int64_t (*multiply_add)(int64_t rounds);  // as in Kernels
};
const Int8Kernels& int8_kernels();

template <class T> const Kernels<T>& kernels();
template <> inline const Kernels<float>& kernels() { return *isa().f32; }
template <> inline const Kernels<double>& kernels() { return *isa().f64; }

}  // namespace fusedrnn
