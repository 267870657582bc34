#include "cuda/engine/check.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

#include "cuda/stack.h"

namespace fusedrnn::cuda {
namespace {

// Since CUDA 12, to make a device the current one is to make a context there, which takes memory of it.
bool has_context(int device) {
  using State = int (*)(int device, unsigned* flags, int* active);
  static const auto state = [] {
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<State>(driver ? dlsym(driver, "cuDevicePrimaryCtxGetState") : nullptr);
  }();
  unsigned flags = 0;
  int active = 1;
  return !state || state(device, &flags, &active) != 0 || active;
}

// By number: not every toolkit has a name for each.
bool is_lost(int error) {
  constexpr int ecc = 214, nvlink = 220, contained = 226, mps_client_terminated = 810, external_device = 911;
  return (error >= cudaErrorIllegalAddress && error <= cudaErrorLaunchFailure) || error == ecc || error == nvlink ||
         error == contained || error == mps_client_terminated || error == external_device;
}

}  // namespace

void check(cudaError_t status, const char* function) {
  if (status == cudaSuccess) return;
  std::string message = std::string("CUDA: ") + function + " failed: " + cudaGetErrorString(status) + " (" +
                        cudaGetErrorName(status) + ")";
  message += hint_if_lost();
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(message);
  throw std::runtime_error(message);
}

std::string hint_if_lost() {
  // CUDA keeps most errors until somebody reads them; after a kernel has died it reports the same one for ever. Not the
  // legacy stream is asked: that would spoil what others capture.
  cudaGetLastError();
  const cudaError_t now = cudaStreamQuery(cudaStreamPerThread);
  if (!is_lost(now)) return "";
  return "; the device state of this process is lost: restart it. Arrays and models on the CPU are unaffected";
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
  if (changed_ && has_context(before_)) cudaSetDevice(before_);
}

}  // namespace fusedrnn::cuda
