#include "cuda/stack.h"

namespace fusedrnn::cuda {

const Engine& engine_f32();
const Engine& engine_f64();
const Engine& engine_bf16();
const Engine& engine_f16();

const Engine* device_engine(const std::string& dtype) {
  if (dtype == "float32") return &engine_f32();
  if (dtype == "float64") return &engine_f64();
  if (dtype == "bfloat16") return &engine_bf16();
  if (dtype == "float16") return &engine_f16();
  return nullptr;
}

}  // namespace fusedrnn::cuda
