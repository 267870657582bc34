// The device of device.h on a GPU. Compiled by nvcc, or by a C++ compiler for the device that tests/emulator emulates.
#pragma once
#include <type_traits>

#include "cuda/engine/context.h"
#include "cuda/kernels/element.h"
#include "cuda/path_plan.h"

// What a C++ compiler lacks. emulated_kernel.h has the same, and threadIdx, __syncthreads() and the like.
#if defined(__CUDACC__)
#define FUSEDRNN_SHARED_MEMORY(name) extern __shared__ __align__(16) char name[]
namespace fusedrnn::cuda {
template <class... A> const void* handle_of(void (*kernel)(A...)) { return reinterpret_cast<const void*>(kernel); }
}  // namespace fusedrnn::cuda
#else
#include <emulated_kernel.h>
#endif

namespace fusedrnn::cuda {

template <class E> constexpr cudaDataType_t data_type = std::is_same_v<E, double>          ? CUDA_R_64F
                                                        : std::is_same_v<E, float>         ? CUDA_R_32F
                                                        : std::is_same_v<E, __nv_bfloat16> ? CUDA_R_16BF
                                                                                           : CUDA_R_16F;

template <class F> __global__ void each_kernel(F f, int64_t rows, int64_t columns) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.y;
  FUSEDRNN_DO_NOT_UNROLL  // most launches have a thread for every row
      for (int64_t row = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step)
          f(row, column);
}

// See resident_forward.h and fused_step.h. One block a multiprocessor is enough: told so, the compiler gives each
// thread all of its registers, and so lets it have many loads on their way.
template <class W> __global__ void __launch_bounds__(W::threads, 1) phases_kernel(const W w) {
  FUSEDRNN_SHARED_MEMORY(shared);
  const int block = static_cast<int>(blockIdx.x), end = w.end_step(block);
  int s = w.first_step(block);
  if ((end - s) * W::stride <= 0) return;
  typename W::Thread thread;
  w.begin(thread, shared, block, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
  if constexpr (!W::is_one_step) __syncthreads();
  for (; s != end; s += W::stride) {
    w.first(thread, shared, s);
    __syncthreads();
    w.second(thread, shared, s);
    if constexpr (!W::is_one_step) {
      __syncthreads();
      w.after(thread, s);
    }
  }
  w.finish(thread, shared);
}

class CudaDevice {
 public:
  using Event = cudaEvent_t;
  using Loop = RecordedLoop;

  CudaDevice(const Place& place, const std::string& op);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  class Store : public DeviceStore {
   public:
    using DeviceStore::DeviceStore;
    void* take(CudaDevice& device, int64_t bytes) { return DeviceStore::take(bytes, device.main_, device.op_); }
    void used(const Place& place) noexcept { DeviceStore::used(static_cast<cudaStream_t>(place.stream)); }
    void await(CudaDevice& device) { DeviceStore::await(device.main_); }
  };

  int lanes() const { return Context::max_lanes; }
  Store store() { return Store(context_->device()); }
  void* scratch(int64_t bytes);
  void fork(int64_t lanes);
  void join(int64_t lanes);
  Event record(int64_t lane);
  void wait(int64_t lane, Event event);
  void write(int64_t lane, void* to, const void* from, int64_t bytes);
  Loop& loop(int64_t lane, LoopKey key, int64_t bytes);

  template <class F> void each(int64_t lane, int64_t rows, int64_t columns, F f) {
    launch(lane, handle_of(&each_kernel<F>), rows, columns, &f);
  }

  static Limits limits(const Place& place);

  template <class W> void run_phases(int64_t lane, const Grid& grid, const W& w) {
    launch_blocks(lane, handle_of(&phases_kernel<W>), grid, &w);
  }

  template <class E, class C> void multiply(int64_t lane, const Product<E, C>& p) {
    if (p.m == 0 || (p.k == 0 && p.beta)) return;
    Gemm g{};
    // A row-major matrix is the transpose of a column-major one: c^T = op(b)^T op(a)^T.
    g.transpose_a = p.transpose_b;
    g.transpose_b = p.transpose_a;
    g.m = p.n;
    g.n = p.m;
    g.k = p.k;
    g.a = p.b;
    g.lda = p.ldb;
    g.b = p.a;
    g.ldb = p.lda;
    g.ab_type = data_type<E>;
    g.beta = p.beta;
    g.c = p.c;
    g.c_type = data_type<C>;
    g.ldc = p.ldc;
    g.compute = std::is_same_v<E, double>           ? Compute::f64
                : std::is_same_v<E, float> && tf32_ ? Compute::tf32
                                                    : Compute::f32;
    lane_at(lane).blas.multiply(g);
  }

  // Work of a shape that comes for the first time runs as it is: that loads every kernel it needs, which must not
  // happen while recording. The second time it is recorded.
  template <class Body> void replay(int64_t lane, Loop& loop, int64_t steps, int64_t variant, Body body) {
    RecordedLoop::Segment& segment = loop.segments[{steps, variant}];
    if (!segment.seen) {
      body();
      segment.seen = true;
      return;
    }
    constexpr int most_graphs = 256;  // of a loop: sequences of any length have up to 64 ends, each batch its own
    if (!segment.graph && loop.graphs < most_graphs) {
      segment.graph = recorded(lane, body);
      loop.graphs += segment.graph != nullptr;
    }
    if (!segment.graph) return body();
    check(cudaGraphLaunch(segment.graph, lane_at(lane).stream), "cudaGraphLaunch");
  }

 private:
  // Sends a lane's work into a graph instead. On a stream of its own, because the caller's may be the default one,
  // which cannot record.
  class Recording {
   public:
    Recording(CudaDevice& device, int64_t lane);
    ~Recording();
    cudaGraphExec_t finish() const;

   private:
    Recording(Lane& lane, const Context& context);

    const std::shared_lock<std::shared_mutex> unspoilt_ = hold_handles_off();
    Lane& lane_;
    cudaStream_t capture_, own_;
    int64_t workspace_bytes_;
  };

  // Null where others have spoiled it: a device that a user's thread synchronises fails whatever is being recorded. The
  // next call tries again. What is wrong with the work itself comes out when it runs as it is.
  template <class Body> cudaGraphExec_t recorded(int64_t lane, Body& body) {
    try {
      const Recording recording(*this, lane);
      body();
      return recording.finish();
    } catch (const OutOfMemory&) {
      throw;
    } catch (const std::runtime_error&) {
      return nullptr;
    }
  }

  Lane& lane_at(int64_t lane) { return context_->lane(lane, op_); }
  void launch(int64_t lane, const void* kernel, int64_t rows, int64_t columns, void* functor);
  void launch_blocks(int64_t lane, const void* kernel, const Grid& grid, const void* functor);

  const std::string op_;
  const UseDevice use_;
  const cudaStream_t main_;
  const bool tf32_;
  std::unique_ptr<Context> context_;
  std::vector<void*> scratch_;
  int64_t forked_ = 0;
};

}  // namespace fusedrnn::cuda
