// Compiled once per element type (cmake/cuda.cmake holds the table), with FUSEDRNN_ELEMENT and FUSEDRNN_ENGINE set: the
// kernels of every cell.
#include "cuda/engine/cuda_device.h"
#include "cuda/engine/engine.h"

namespace fusedrnn::cuda {

const Engine& FUSEDRNN_ENGINE() {
  static const EngineOf<CudaDevice, FUSEDRNN_ELEMENT> engine;
  return engine;
}

}  // namespace fusedrnn::cuda
