// What a varied cell (cells/list.h) is told when it is made: its gate functions, and what else ONNX knows of cells.
#pragma once
#include "core/inline.h"

namespace fusedrnn {

#define FUSEDRNN_FUNCTIONS(X) \
  X(sigmoid)                  \
  X(tanh)                     \
  X(relu) X(affine) X(leaky_relu) X(thresholded_relu) X(scaled_tanh) X(hard_sigmoid) X(elu) X(softsign) X(softplus)

#define FUSEDRNN_FUNCTION(name) name,
enum class Function { FUSEDRNN_FUNCTIONS(FUSEDRNN_FUNCTION) };
#undef FUSEDRNN_FUNCTION

// One function of x with its parameters, as ONNX defines them; what it makes of the two ends of a clipped x.
template <class T> struct GateFunction {
  Function kind;
  T alpha = 0, beta = 0;
  T low = 0, high = 0;
};

// gate: of i, f, o, of r, z; candidate: of g, of n, of a plain cell; output: of c.
template <class T> struct CellOptions {
  GateFunction<T> gate{Function::sigmoid}, candidate{Function::tanh}, output{Function::tanh};
  T clip = __builtin_huge_val();   // what gate and candidate read is clipped to [-clip, clip]; infinity: it is not
  bool coupled = false;            // f = 1 - i
  bool peephole = false;           // i, f, o see c
  T h_zoneout = 0, c_zoneout = 0;  // what stays of h and c in inference
  bool layer_norm = false;         // of W_ih x, of W_hh h, and of c where h reads it (cpu/kernels/layer_norm.h)
};

}  // namespace fusedrnn
