#include <algorithm>
#include <cstring>

#include "cuda/engine/cuda_device.h"

namespace fusedrnn::cuda {
namespace {

// Host memory that travels as an argument of a kernel: no pinned buffer that would have to stay untouched until the
// copy is done, and no waiting for the stream.
template <int words> struct Payload {
  uint64_t word[words];
};
constexpr int block_words = 32;   // holds a ForwardBlock or BackwardBlock
constexpr int array_words = 500;  // the arguments of a kernel may take 4 KB

template <int words> __global__ void write_kernel(uint64_t* to, Payload<words> payload, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) to[i] = payload.word[i];
}

template <int words> void write_words(uint64_t* to, const char* from, int count, cudaStream_t stream) {
  Payload<words> payload;
  std::memcpy(payload.word, from, static_cast<size_t>(count) * sizeof(uint64_t));
  void* arguments[] = {&to, &payload, &count};
  check(cudaLaunchKernel(handle_of(&write_kernel<words>), dim3(1), dim3(32), arguments, 0, stream), "cudaLaunchKernel");
}

cudaStream_t checked_stream(void* stream, const std::string& op) {
  if (is_captured(static_cast<cudaStream_t>(stream)))
    throw std::runtime_error(op +
                             ": the current stream is being captured into a CUDA graph; expected a stream that runs "
                             "(the kernels record graphs of their own)");
  return static_cast<cudaStream_t>(stream);
}

}  // namespace

CudaDevice::CudaDevice(const Place& place, const std::string& op)
    : op_(op),
      use_(place.device),
      main_(checked_stream(place.stream, op)),
      tf32_(place.tf32),
      context_(borrow_context(place.device, main_)) {
  context_->begin(main_);
}

CudaDevice::~CudaDevice() {
  // After an error lanes may still be at work on memory that goes back below.
  for (int64_t lane = 1; lane < forked_; ++lane) {
    try {
      wait(0, record(lane));
    } catch (const std::exception&) {  // the device is lost; the call has said so
    }
  }
  for (void* memory : scratch_) release(memory, main_);
  context_->end();
  return_context(std::move(context_));
}

void* CudaDevice::scratch(int64_t bytes) {
  scratch_.push_back(nullptr);
  return scratch_.back() = allocate(context_->device(), bytes, main_, op_);
}

void CudaDevice::fork(int64_t lanes) {
  if (lanes < 2) return;
  lane_at(lanes - 1);  // a new lane's workspace is allocated in lane 0, so before the others wait for that
  const Event begin = record(0);
  forked_ = lanes;
  for (int64_t lane = 1; lane < lanes; ++lane) wait(lane, begin);
}

void CudaDevice::join(int64_t lanes) {
  for (int64_t lane = 1; lane < lanes; ++lane) wait(0, record(lane));
  forked_ = 0;
}

CudaDevice::Event CudaDevice::record(int64_t lane) {
  const Event event = context_->next_event();
  check(cudaEventRecord(event, lane_at(lane).stream), "cudaEventRecord");
  return event;
}

void CudaDevice::wait(int64_t lane, Event event) {
  check(cudaStreamWaitEvent(lane_at(lane).stream, event, 0), "cudaStreamWaitEvent");
}

void CudaDevice::write(int64_t lane, void* to, const void* from, int64_t bytes) {
  const cudaStream_t stream = lane_at(lane).stream;
  auto* target = static_cast<uint64_t*>(to);
  const auto* source = static_cast<const char*>(from);
  int64_t words = bytes / static_cast<int64_t>(sizeof(uint64_t));  // everything written here is made of 8-byte words
  if (words <= block_words) return write_words<block_words>(target, source, static_cast<int>(words), stream);
  for (; words > 0; words -= array_words, target += array_words, source += array_words * sizeof(uint64_t))
    write_words<array_words>(target, source, static_cast<int>(std::min<int64_t>(words, array_words)), stream);
}

CudaDevice::Loop& CudaDevice::loop(int64_t lane, LoopKey key, int64_t bytes) {
  key.lane = lane;  // recorded products use the lane's workspace
  return context_->loop(key, bytes, lane_at(lane).stream, op_);
}

void CudaDevice::launch(int64_t lane, const void* kernel, int64_t rows, int64_t columns, void* functor) {
  if (rows <= 0 || columns <= 0) return;
  constexpr int64_t threads = 128, most_y = 65535;
  int64_t x = 32;
  while (x < threads && x < columns) x *= 2;
  const int64_t y = threads / x;
  const dim3 block(static_cast<unsigned>(x), static_cast<unsigned>(y));
  const dim3 grid(static_cast<unsigned>((columns + x - 1) / x),
                  static_cast<unsigned>(std::min((rows + y - 1) / y, most_y)));
  void* arguments[] = {functor, &rows, &columns};
  check(cudaLaunchKernel(kernel, grid, block, arguments, 0, lane_at(lane).stream), "cudaLaunchKernel");
}

void CudaDevice::launch_blocks(int64_t lane, const void* kernel, const Grid& grid, const void* functor) {
  if (grid.blocks <= 0) return;
  constexpr int64_t without_asking = 48 << 10;
  // The limit is the kernel's: if it were what this launch needs, another thread might lower it before the launch.
  if (grid.shared_bytes > without_asking)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, context_->block_shared_bytes()),
          "cudaFuncSetAttribute");
  void* arguments[] = {const_cast<void*>(functor)};
  check(cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(grid.blocks)), dim3(static_cast<unsigned>(grid.threads)),
                         arguments, static_cast<size_t>(grid.shared_bytes), lane_at(lane).stream),
        "cudaLaunchKernel");
}

Limits CudaDevice::limits(const Place& place) {
  int multiprocessors = 0, shared_bytes = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, place.device),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, place.device),
        "cudaDeviceGetAttribute");
  return {multiprocessors, shared_bytes};
}

CudaDevice::Recording::Recording(Lane& lane, const Context& context)
    : lane_(lane), capture_(context.capture_stream()), own_(lane.stream), workspace_bytes_(context.workspace_bytes()) {}

// Delegates first, so that the destructor puts the lane back if what follows throws.
CudaDevice::Recording::Recording(CudaDevice& device, int64_t lane) : Recording(device.lane_at(lane), *device.context_) {
  lane_.blas.bind(capture_, lane_.workspace, workspace_bytes_);
  lane_.stream = capture_;
  check(cudaStreamBeginCapture(capture_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

CudaDevice::Recording::~Recording() {
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(capture_, &capturing);
  if (capturing != cudaStreamCaptureStatusNone) {  // the recording was given up
    cudaGraph_t graph = nullptr;
    cudaStreamEndCapture(capture_, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
  }
  lane_.stream = own_;
  try {
    lane_.blas.bind(own_, lane_.workspace, workspace_bytes_);
  } catch (const std::exception&) {  // reported by the next product
  }
}

cudaGraphExec_t CudaDevice::Recording::finish() const {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamEndCapture(capture_, &graph), "cudaStreamEndCapture");
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
  return executable;
}

}  // namespace fusedrnn::cuda
