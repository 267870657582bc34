// The problem of a stack from what Python says of it; both kinds of stacks begin here.
#pragma once
#include <stdexcept>
#include <string>

#include "core/error.h"
#include "core/problem.h"
#include "cpu/isa.h"

namespace fusedrnn {

inline Problem problem_of_stack(const std::string& cell, const std::string& dtype, int64_t input_size,
                                int64_t hidden_size, int64_t num_layers, int64_t num_directions, bool reverse,
                                bool bias, const std::string& compute_dtype) {
  Problem p = problem_of(cell, input_size, hidden_size, num_layers, num_directions, reverse, bias);
  p.bfloat16 = compute_dtype == "bfloat16";
  if (!compute_dtype.empty() && compute_dtype != dtype && !(p.bfloat16 && dtype == "float32"))
    throw TypeMismatch(p.op + ": compute_dtype is " + compute_dtype + " with dtype " + dtype +
                       "; expected the same, or bfloat16 with float32");
  if (p.bfloat16 && is_varied(p.cell))
    throw ShapeError(p.op + ": compute_dtype is bfloat16; expected float32 for a cell with options");
  if (p.bfloat16 && !bfloat16_kernels().cell)
    throw std::runtime_error(p.op + ": compute_dtype is bfloat16; expected float32 on this instruction set (" +
                             isa().name + ")");
  if (dtype != "float32" && dtype != "float64")
    throw TypeMismatch(p.op + ": dtype is " + dtype + "; expected float32 or float64");
  return p;
}

}  // namespace fusedrnn
