#include "cuda/engine/blas.h"

#include <dlfcn.h>

#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/engine/check.h"
#include "cuda/stack.h"
#include "cuda/status.h"

#if __has_include(<cublas_v2.h>)
#include <cublas_v2.h>
#endif

namespace fusedrnn::cuda {
namespace {

constexpr int op_n = 0, op_t = 1;
constexpr int compute_32f = 68, compute_32f_fast_tf32 = 77, compute_64f = 70;
constexpr int algorithm_default = -1;
constexpr int math_without_reduced_sums = 0 | 16;  // default math; sums of 16-bit products stay in float32
constexpr int status_not_initialized = 1, status_alloc_failed = 3;
constexpr size_t needed_by_handle = size_t(64) << 20;  // bytes, with room to spare

using Create = int (*)(void** handle);
using Destroy = int (*)(void* handle);
using SetStream = int (*)(void* handle, cudaStream_t stream);
using SetWorkspace = int (*)(void* handle, void* workspace, size_t bytes);
using SetMathMode = int (*)(void* handle, int mode);
using StatusString = const char* (*)(int status);
using GemmEx = int (*)(void* handle, int transa, int transb, int64_t m, int64_t n, int64_t k, const void* alpha,
                       const void* a, cudaDataType_t a_type, int64_t lda, const void* b, cudaDataType_t b_type,
                       int64_t ldb, const void* beta, void* c, cudaDataType_t c_type, int64_t ldc, int compute_type,
                       int algorithm);

#if defined(CUBLAS_VERSION)
// Where the real header is at hand, it confirms what is declared above. Enumerations are passed as int.
static_assert(CUBLAS_OP_N == op_n && CUBLAS_OP_T == op_t && CUBLAS_GEMM_DEFAULT == algorithm_default);
static_assert(CUBLAS_COMPUTE_32F == compute_32f && CUBLAS_COMPUTE_64F == compute_64f);
static_assert(CUBLAS_COMPUTE_32F_FAST_TF32 == compute_32f_fast_tf32);
static_assert((CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION) == math_without_reduced_sums);
static_assert(CUBLAS_STATUS_SUCCESS == 0 && CUBLAS_STATUS_ALLOC_FAILED == status_alloc_failed);
static_assert(CUBLAS_STATUS_NOT_INITIALIZED == status_not_initialized);
static_assert(sizeof(cublasOperation_t) == sizeof(int) && sizeof(cublasComputeType_t) == sizeof(int) &&
              sizeof(cublasGemmAlgo_t) == sizeof(int) && sizeof(cublasMath_t) == sizeof(int) &&
              sizeof(cublasStatus_t) == sizeof(int) && sizeof(cublasHandle_t) == sizeof(void*));
using RealGemmEx = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int64_t, int64_t, int64_t,
                                      const void*, const void*, cudaDataType, int64_t, const void*, cudaDataType,
                                      int64_t, const void*, void*, cudaDataType, int64_t, cublasComputeType_t,
                                      cublasGemmAlgo_t);
static_assert(std::is_same_v<decltype(&cublasGemmEx_64), RealGemmEx>);
static_assert(std::is_same_v<decltype(&cublasCreate_v2), cublasStatus_t (*)(cublasHandle_t*)>);
static_assert(std::is_same_v<decltype(&cublasSetStream_v2), cublasStatus_t (*)(cublasHandle_t, cudaStream_t)>);
static_assert(std::is_same_v<decltype(&cublasSetWorkspace_v2), cublasStatus_t (*)(cublasHandle_t, void*, size_t)>);
static_assert(std::is_same_v<decltype(&cublasSetMathMode), cublasStatus_t (*)(cublasHandle_t, cublasMath_t)>);
static_assert(std::is_same_v<decltype(&cublasGetStatusString), const char* (*)(cublasStatus_t)>);
#endif

std::mutex& candidates_mutex() {
  static std::mutex mutex;
  return mutex;
}
std::vector<std::string>& candidates() {
  static std::vector<std::string> paths;
  return paths;
}

struct Library {
  Create create;
  Destroy destroy;
  SetStream set_stream;
  SetWorkspace set_workspace;
  SetMathMode set_math_mode;
  StatusString status_string;
  GemmEx gemm;

  Library() {
    void* library = open();
    load(library, "cublasCreate_v2", create);
    load(library, "cublasDestroy_v2", destroy);
    load(library, "cublasSetStream_v2", set_stream);
    load(library, "cublasSetWorkspace_v2", set_workspace);
    load(library, "cublasSetMathMode", set_math_mode);
    load(library, "cublasGetStatusString", status_string);
    load(library, "cublasGemmEx_64", gemm);
  }

 private:
  // A copy that is loaded already (by torch or CuPy), the candidates, then the system's search.
  static void* open() {
    const std::string name = "libcublas.so." + std::to_string(CUDART_VERSION / 1000);
    if (void* loaded = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD)) return loaded;
    std::string tried;
    std::vector<std::string> paths;
    {
      const std::lock_guard<std::mutex> lock(candidates_mutex());
      paths = candidates();
    }
    paths.push_back(name);
    for (const std::string& path : paths) {
      if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
      const char* why = dlerror();
      tried += "\n  " + std::string(why ? why : path.c_str());
    }
    throw std::runtime_error("CUDA: cuBLAS was not found; install the wheel nvidia-cublas (the extra [cuda]), " + name +
                             " of a CUDA toolkit, or set FUSEDRNN_CUBLAS to the file. Tried:" + tried);
  }

  template <class F> static void load(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (!function)
      throw std::runtime_error(std::string("CUDA: this cuBLAS has no ") + name + "; install version 12 or newer");
  }
};

// Tried again by the next call if it throws.
const Library& library() {
  static const Library instance;
  return instance;
}

void check_blas(int status, const char* function) {
  if (status == 0) return;
  const std::string message =
      std::string("CUDA: ") + function + " failed: " + library().status_string(status) + hint_if_lost();
  if (status == status_alloc_failed) throw OutOfMemory(message + ": not enough device memory");
  throw std::runtime_error(message);
}

}  // namespace

void set_cublas_candidates(std::vector<std::string> paths) {
  const std::lock_guard<std::mutex> lock(candidates_mutex());
  candidates() = std::move(paths);
}

Blas::Blas() {
  const int status = library().create(&handle_);
  if (status == status_not_initialized) {  // which is also how it says that there is too little memory
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    if (free_bytes < needed_by_handle) check_blas(status_alloc_failed, "cublasCreate");
  }
  check_blas(status, "cublasCreate");
  check_blas(library().set_math_mode(handle_, math_without_reduced_sums), "cublasSetMathMode");
}

Blas::~Blas() {
  if (handle_) library().destroy(handle_);
}

void Blas::bind(cudaStream_t stream, void* workspace, int64_t bytes) {
  check_blas(library().set_stream(handle_, stream), "cublasSetStream");
  // After the stream: setting that goes back to cuBLAS's own workspace.
  check_blas(library().set_workspace(handle_, workspace, static_cast<size_t>(bytes)), "cublasSetWorkspace");
}

void Blas::multiply(const Gemm& g) {
  const float alpha32 = 1, beta32 = static_cast<float>(g.beta);
  const double alpha64 = 1, beta64 = g.beta;
  const bool wide = g.compute == Compute::f64;
  const int compute = wide ? compute_64f : g.compute == Compute::tf32 ? compute_32f_fast_tf32 : compute_32f;
  check_blas(library().gemm(handle_, g.transpose_a ? op_t : op_n, g.transpose_b ? op_t : op_n, g.m, g.n, g.k,
                            wide ? static_cast<const void*>(&alpha64) : &alpha32, g.a, g.ab_type, g.lda, g.b, g.ab_type,
                            g.ldb, wide ? static_cast<const void*>(&beta64) : &beta32, g.c, g.c_type, g.ldc, compute,
                            algorithm_default),
             "cublasGemmEx");
}

}  // namespace fusedrnn::cuda
