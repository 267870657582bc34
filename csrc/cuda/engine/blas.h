// cuBLAS, found when it is first needed. Its few functions and constants in use are declared in blas.cpp, so that nvcc
// alone is enough for a build, and the module can be imported where the library is absent.
#pragma once
#include <cuda_runtime_api.h>
#include <library_types.h>

#include <cstdint>

namespace fusedrnn::cuda {

enum class Compute { f32, tf32, f64 };

// Column-major c (m, n) = op(a) (m, k) op(b) (k, n) + beta c, as cublasGemmEx. Element types: cudaDataType.
struct Gemm {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  const void* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  cudaDataType_t ab_type;
  int beta;
  void* c;
  cudaDataType_t c_type;
  int64_t ldc;
  Compute compute;
};

// A handle with a workspace of its own: the same products give the same bits whatever else runs.
class Blas {
 public:
  Blas();  // on the current device; throws std::runtime_error where the library cannot be found
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
  void bind(cudaStream_t stream, void* workspace, int64_t bytes);
  void multiply(const Gemm& gemm);

 private:
  void* handle_ = nullptr;
};

}  // namespace fusedrnn::cuda
