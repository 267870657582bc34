// CUDA's status codes as exceptions.
#pragma once
#include <cuda_runtime_api.h>

namespace fusedrnn::cuda {

// Throws std::runtime_error naming the function, CUDA's words and, where the device state of the process is lost, that;
// OutOfMemory where memory is what is missing.
void check(cudaError_t status, const char* function);

// Makes a device the current one and goes back to the one before.
class UseDevice {
 public:
  explicit UseDevice(int device);
  ~UseDevice();
  UseDevice(const UseDevice&) = delete;
  UseDevice& operator=(const UseDevice&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace fusedrnn::cuda
