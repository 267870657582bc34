#include "cuda/check.h"

#include <stdexcept>
#include <string>

#include "cuda/stack.h"

namespace fusedrnn::cuda {

void check(cudaError_t status, const char* function) {
  if (status == cudaSuccess) return;
  std::string message = std::string("CUDA: ") + function + " failed: " + cudaGetErrorString(status) + " (" +
                        cudaGetErrorName(status) + ")";
  // CUDA keeps most errors until somebody reads them; after a kernel has died it reports the same one for ever.
  cudaGetLastError();
  const cudaError_t after = cudaStreamQuery(cudaStreamLegacy);
  if (after != cudaSuccess && after != cudaErrorNotReady && after == status)
    message += "; the device state of this process is lost: restart it. Arrays and models on the CPU are unaffected";
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(message);
  throw std::runtime_error(message);
}

ApartFromCaptures::ApartFromCaptures() {
  check(cudaThreadExchangeStreamCaptureMode(&other_), "cudaThreadExchangeStreamCaptureMode");
}

ApartFromCaptures::~ApartFromCaptures() { cudaThreadExchangeStreamCaptureMode(&other_); }

UseDevice::UseDevice(int device) {
  check(cudaGetDevice(&before_), "cudaGetDevice");
  changed_ = device != before_;
  if (changed_) check(cudaSetDevice(device), "cudaSetDevice");
}

UseDevice::~UseDevice() {
  if (changed_) cudaSetDevice(before_);
}

}  // namespace fusedrnn::cuda
