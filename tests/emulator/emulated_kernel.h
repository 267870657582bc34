// Kernels as functions of the host: what csrc/cuda/engine/cuda_device.h takes from nvcc otherwise.
#pragma once
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <tuple>

namespace emulator {

struct Index {
  unsigned x, y, z;
};

// What the running thread of a kernel knows.
struct Thread {
  Index thread, block, block_size, grid_size;
  char* shared;
};
Thread self();
void meet();  // all threads of the block

using Body = std::function<void()>;            // a kernel with its arguments
using Binding = std::function<Body(void**)>;   // copies the arguments of a launch
const void* kernel(const void* key, Binding);  // the first one is kept; returns the key

}  // namespace emulator

namespace fusedrnn::cuda {

template <class... A> const void* handle_of(void (*kernel)(A...)) {
  return emulator::kernel(reinterpret_cast<const void*>(kernel), [kernel](void** arguments) -> emulator::Body {
    return [&]<size_t... i>(std::index_sequence<i...>) {
      auto copies = std::make_shared<const std::tuple<A...>>(*static_cast<A*>(arguments[i])...);
      return [kernel, copies] { std::apply(kernel, *copies); };
    }(std::index_sequence_for<A...>());
  });
}

}  // namespace fusedrnn::cuda

#undef __global__
#undef __launch_bounds__
#define __global__
#define __launch_bounds__(...)
#define __syncthreads() emulator::meet()
#define threadIdx (emulator::self().thread)
#define blockIdx (emulator::self().block)
#define blockDim (emulator::self().block_size)
#define gridDim (emulator::self().grid_size)
#define FUSEDRNN_SHARED_MEMORY(name) char* const name = emulator::self().shared
