// cuBLAS as far as csrc/cuda/engine/blas.cpp calls it: a library of its own, as strict as the real one and with sums in
// the order of the host twin. A product writes all over its workspace.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <library_types.h>

#include <cstring>

#include "device.h"

namespace {

constexpr int success = 0, invalid_value = 7, not_supported = 15;

struct Handle {
  cudaStream_t stream = nullptr;
  char* workspace = nullptr;
  size_t bytes = 0;
  int math_mode = 0;
};

struct Operation {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  const void* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  bool beta;
  void* c;
  int64_t ldc;
  bool tf32;
};

// Rounded to 10 bits of mantissa, as TF32.
template <class A> A rough(A value) {
  const float narrow = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  bits = (bits + 0x1000) & ~uint32_t(0x1FFF);
  float result;
  std::memcpy(&result, &bits, sizeof bits);
  return static_cast<A>(result);
}

template <class E, class C, class A> void multiply(const Operation& p) {
  const auto *a = static_cast<const E*>(p.a), *b = static_cast<const E*>(p.b);
  auto* c = static_cast<C*>(p.c);
  const auto read = [&](E value) { return p.tf32 ? rough(static_cast<A>(value)) : static_cast<A>(value); };
  for (int64_t j = 0; j < p.n; ++j)
    for (int64_t i = 0; i < p.m; ++i) {
      A sum(0);
      for (int64_t l = 0; l < p.k; ++l)
        sum += read(a[p.transpose_a ? i * p.lda + l : l * p.lda + i]) *
               read(b[p.transpose_b ? l * p.ldb + j : j * p.ldb + l]);
      C& to = c[j * p.ldc + i];
      to = static_cast<C>(p.beta ? static_cast<A>(to) + sum : sum);
    }
}

using Multiply = void (*)(const Operation&);

Multiply multiply_of(cudaDataType_t in, cudaDataType_t out) {
  if (in == CUDA_R_64F && out == CUDA_R_64F) return multiply<double, double, double>;
  if (in == CUDA_R_32F && out == CUDA_R_32F) return multiply<float, float, float>;
  if (in == CUDA_R_16F) return out == in ? multiply<__half, __half, float> : multiply<__half, float, float>;
  if (in == CUDA_R_16BF)
    return out == in ? multiply<__nv_bfloat16, __nv_bfloat16, float> : multiply<__nv_bfloat16, float, float>;
  return nullptr;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
  *handle = new Handle;
  return success;
}
int cublasDestroy_v2(void* handle) {
  delete static_cast<Handle*>(handle);
  return success;
}
int cublasSetStream_v2(void* handle, cudaStream_t stream) {
  auto& h = *static_cast<Handle*>(handle);
  h.stream = stream;
  h.workspace = nullptr;  // as the real one goes back to its own
  return success;
}
int cublasSetWorkspace_v2(void* handle, void* workspace, size_t bytes) {
  auto& h = *static_cast<Handle*>(handle);
  h.workspace = static_cast<char*>(workspace);
  h.bytes = bytes;
  return reinterpret_cast<uintptr_t>(workspace) % 256 ? invalid_value : success;
}
int cublasSetMathMode(void* handle, int mode) {
  static_cast<Handle*>(handle)->math_mode = mode;
  return success;
}
const char* cublasGetStatusString(int status) { return status == success ? "success" : "the call is not allowed"; }

int cublasGemmEx_64(void* handle, int transa, int transb, int64_t m, int64_t n, int64_t k, const void* alpha,
                    const void* a, cudaDataType_t a_type, int64_t lda, const void* b, cudaDataType_t b_type,
                    int64_t ldb, const void* beta, void* c, cudaDataType_t c_type, int64_t ldc, int compute,
                    int algorithm) {
  const auto& h = *static_cast<Handle*>(handle);
  constexpr int f32 = 68, f64 = 70, tf32 = 77, sums_in_f32 = 16, by_default = -1;
  const bool wide = a_type == CUDA_R_64F;
  if (m <= 0 || n <= 0 || k < 0 || !a || !b || !c || lda < (transa ? k : m) || ldb < (transb ? n : k) || ldc < m)
    return invalid_value;
  if (a_type != b_type || compute != (wide ? f64 : compute == tf32 && a_type == CUDA_R_32F ? tf32 : f32))
    return not_supported;
  if (algorithm != by_default || h.math_mode != sums_in_f32 || !h.workspace) return invalid_value;
  const double scale = wide ? *static_cast<const double*>(alpha) : *static_cast<const float*>(alpha);
  const double add = wide ? *static_cast<const double*>(beta) : *static_cast<const float*>(beta);
  const Multiply run = multiply_of(a_type, c_type);
  if (!run || scale != 1 || (add != 0 && add != 1)) return not_supported;
  const Operation p{transa != 0, transb != 0, m, n, k, a, lda, b, ldb, add == 1, c, ldc, compute == tf32};
  const auto lock = emulator::locked();
  emulator::stream_of(h.stream).put([=, workspace = h.workspace](emulator::Stream&) {
    for (int i = 0; i < 64; ++i) workspace[i] = static_cast<char>(i);
    run(p);
  });
  return success;
}
}
