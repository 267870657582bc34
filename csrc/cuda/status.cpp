#include "cuda/status.h"

#include <cuda_runtime_api.h>

#include "cuda/engine/check.h"

namespace fusedrnn::cuda {

Status status() {
  Status s{FUSEDRNN_CUDA_ARCHITECTURES, CUDART_VERSION, 0, {}, {}};
  cudaDriverGetVersion(&s.driver);  // leaves 0 without a driver
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess) {
    cudaGetLastError();
    s.error = cudaGetErrorString(found);
    return s;
  }
  for (int device = 0; device < count; ++device) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) continue;
    s.devices.push_back(
        {properties.name, properties.major, properties.minor, static_cast<int64_t>(properties.totalGlobalMem)});
  }
  return s;
}

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

int device_of(const void* address) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, address), "cudaPointerGetAttributes");
  const bool on_device = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  return on_device ? attributes.device : -1;
}

}  // namespace fusedrnn::cuda
