// The host twin of every engine. Tests compare it with the reference where there is no GPU.
#include "cuda/engine/engine.h"
#include "cuda/engine/host_device.h"

namespace fusedrnn::cuda {

const Engine* host_engine(const std::string& dtype) {
  static const EngineOf<HostDevice, float> f32;
  static const EngineOf<HostDevice, double> f64;
  static const EngineOf<HostDevice, __nv_bfloat16> bf16;
  static const EngineOf<HostDevice, __half> f16;
  if (dtype == "float32") return &f32;
  if (dtype == "float64") return &f64;
  if (dtype == "bfloat16") return &bf16;
  if (dtype == "float16") return &f16;
  return nullptr;
}

void refuse_on_host(int64_t after) { HostDevice::refuse(after); }

void forget_loops_on_host() { HostDevice::forget_loops(); }

}  // namespace fusedrnn::cuda
