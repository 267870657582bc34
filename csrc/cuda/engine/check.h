// CUDA's status codes as exceptions.
#pragma once
#include <cuda_runtime_api.h>

#include <string>

namespace fusedrnn::cuda {

// Throws std::runtime_error naming the function, CUDA's words and, where the device state of the process is lost, that;
// OutOfMemory where memory is what is missing.
void check(cudaError_t status, const char* function);

// Says that the device state of the process is lost, if it is; else empty.
std::string hint_if_lost();

// While it lives, captures of streams that are not ours are no concern of this thread, not even one of its own: a tape
// may die anywhere. A capture would otherwise forbid it cudaEventQuery, cudaFreeAsync or the making of streams, and be
// spoilt by them itself.
class ApartFromCaptures {
 public:
  ApartFromCaptures();
  ~ApartFromCaptures();
  ApartFromCaptures(const ApartFromCaptures&) = delete;
  ApartFromCaptures& operator=(const ApartFromCaptures&) = delete;

 private:
  cudaStreamCaptureMode other_ = cudaStreamCaptureModeRelaxed;  // the mode that is not in force
};

// Makes a device the current one for calls of ours, and goes back to the one before, if this process works on that.
class UseDevice {
 public:
  explicit UseDevice(int device);
  ~UseDevice();
  UseDevice(const UseDevice&) = delete;
  UseDevice& operator=(const UseDevice&) = delete;

 private:
  const ApartFromCaptures apart_;
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace fusedrnn::cuda
