// Arrays on a device as Python hands them over: a pointer with shape and strides. Python makes them
// from the arrays of any library (python/fusedrnn/cuda/array_libraries.py).
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/problem.h"

namespace fusedrnn::cuda {

constexpr int on_the_cpu = -1;

struct View {
  void* data;
  Shape shape, strides;  // in elements
  std::string dtype;     // float32, float64, bfloat16, float16
  int device;            // ordinal, or on_the_cpu
  bool read_only;
  std::shared_ptr<void> owner;  // what must live as long as the view, if Python does not see to it
};

// Judges the arrays of one call: all of one dtype, on one device.
struct ArrayRules {
  std::string op, dtype;
  int device;

  int64_t item_bytes() const;
  // An input whose last axis is dense.
  const View& readable(const std::string& name, const View& a) const;
  // An input or output in C order.
  const View& dense(const std::string& name, const View& a) const;
  const View& writable(const std::string& name, const View& a) const;
};

void register_view(pybind11::module_& m);
void register_stack(pybind11::module_& m);

}  // namespace fusedrnn::cuda
