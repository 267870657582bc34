// What of CUDA is built and present, without CUDA headers. Nothing here creates a context on a device.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace fusedrnn::cuda {

struct DeviceInfo {
  std::string name;
  int major, minor;  // compute capability
  int64_t memory_bytes;
};

struct Status {
  std::string architectures;  // as CMake was given them: 80-real;90
  int runtime, driver;        // CUDA versions such as 13000; driver 0: none
  std::vector<DeviceInfo> devices;
  std::string error;  // why there are no devices, in CUDA's words
};
Status status();

// The device on which an address lies, or -1 for memory of the host.
int device_of(const void* address);

int current_device();

// Gives memory that no call uses back to the system.
void release_memory();

// Files to try for cuBLAS before the system's own search; from Python, which knows where wheels lie.
void set_cublas_candidates(std::vector<std::string> paths);

}  // namespace fusedrnn::cuda
