// The functions of the CUDA runtime that the project calls, over the emulated device.
#include <cstdlib>
#include <cstring>
#include <string>

#include "device.h"
#include "emulator.h"

using namespace emulator;

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
cudaError_t lost = cudaSuccess;  // what the device says for ever
int64_t granted = -1;            // pieces of memory until it refuses any; negative: it does not

cudaError_t answer(cudaError_t status) {
  if (lost != cudaSuccess) status = lost;
  if (status != cudaSuccess) last_error = status;
  return status;
}

Event& event_at(cudaEvent_t handle) {
  if (!handle) fatal("an event is null");
  return *reinterpret_cast<Event*>(handle);
}

// A captured stream that is asked for its state or waited for is spoilt.
bool spoils(Stream& stream) {
  if (stream.capture) stream.capture->spoilt = true;
  return stream.capture.has_value();
}

// What CUDA calls unsafe while streams are being captured: captures of the mode "global" by any thread forbid it to
// threads of that mode, others to the thread that captures.
bool forbidden() {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return false;
  bool found = false;
  for (Stream* stream : streams()) {
    if (!stream->capture || stream->capture->mode == cudaStreamCaptureModeRelaxed) continue;
    const bool everybody = stream->capture->mode == cudaStreamCaptureModeGlobal;
    if ((everybody && thread_mode == cudaStreamCaptureModeGlobal) || stream->capture->by == std::this_thread::get_id())
      found = stream->capture->spoilt = true;
  }
  return found;
}

// Streams that were destroyed, to be used again: the thread sanitizer has memory for so many threads only.
std::vector<Stream*>& retired() {
  static auto& instance = *new std::vector<Stream*>;
  return instance;
}

using Graph = std::vector<emulator::Work>;

std::map<const void*, Kernel>& kernels() {
  static auto& instance = *new std::map<const void*, Kernel>;
  return instance;
}

Index index_of(const dim3& d) { return {d.x, d.y, d.z}; }

}  // namespace

namespace emulator {

const void* kernel(const void* key, Binding bind) {
  const auto lock = locked();
  kernels().try_emplace(key, Kernel{std::move(bind)});
  return key;
}

Kernel& kernel_at(const void* key) {
  const auto found = kernels().find(key);
  if (found == kernels().end()) fatal("an unknown kernel is launched");
  return found->second;
}

}  // namespace emulator

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t status = last_error;
  last_error = cudaSuccess;
  return status;
}
const char* cudaGetErrorName(cudaError_t status) {
  static thread_local std::string name;
  name = status == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "error " + std::to_string(status);
  return name.c_str();
}
const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaErrorMemoryAllocation           ? "out of memory"
         : status == cudaErrorStreamCaptureUnsupported ? "not permitted while a stream is being captured"
         : status == cudaErrorStreamCaptureInvalidated ? "the capture was spoilt"
                                                       : "an error of the emulated device";
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return answer(cudaSuccess);
}
cudaError_t cudaSetDevice(int device) { return answer(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  std::memset(properties, 0, sizeof *properties);
  std::strcpy(properties->name, "an emulated device");
  properties->major = 9;
  properties->totalGlobalMem = total_memory;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = 227 << 10;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = 12;  // few, so that small batches fill the device
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = 1;
      break;
    default:
      fatal("an attribute that the emulated device does not know");
  }
  return answer(cudaSuccess);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  const auto lock = locked();
  std::memset(attributes, 0, sizeof *attributes);
  attributes->type = is_on_device(address) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  return answer(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t* unused, size_t* total) {
  const auto lock = locked();
  *unused = total_memory - used_memory();
  *total = total_memory;
  return answer(cudaSuccess);
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  static char the_pool;
  *pool = reinterpret_cast<cudaMemPool_t>(&the_pool);
  return answer(cudaSuccess);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return answer(cudaSuccess); }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) {
  const auto lock = locked();
  trim();
  return answer(cudaSuccess);
}
cudaError_t cudaMallocFromPoolAsync(void** memory, size_t bytes, cudaMemPool_t, cudaStream_t handle) {
  const auto lock = locked();
  if (lost != cudaSuccess) return answer(lost);
  Stream& stream = stream_of(handle);
  if (stream.capture) fatal("memory is asked for in a captured stream");
  const bool refused = granted == 0;
  if (granted > 0) --granted;
  *memory = refused ? nullptr : take(bytes, stream);
  return answer(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t handle) {
  const auto lock = locked();
  Stream& stream = stream_of(handle);
  if (forbidden()) return answer(cudaErrorStreamCaptureUnsupported);
  if (stream.capture) fatal("memory is given back in a captured stream");
  give_back(memory, stream);
  return answer(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned) {
  const auto lock = locked();
  if (forbidden()) return answer(cudaErrorStreamCaptureUnsupported);
  if (retired().empty()) {
    auto* stream = new Stream;
    streams().insert(stream);
    retired().push_back(stream);
  }
  *handle = handle_of_stream(*retired().back());
  retired().pop_back();
  return answer(cudaSuccess);
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const auto lock = locked();
  retired().push_back(&stream_of(handle));  // which goes on to its end
  return answer(cudaSuccess);
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const auto lock = locked();
  Stream& stream = stream_of(handle);
  if (spoils(stream)) return answer(cudaErrorStreamCaptureUnsupported);
  if (stream.empty()) stream.meet_host();
  return answer(stream.empty() ? cudaSuccess : cudaErrorNotReady);
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const auto lock = locked();
  Stream& stream = stream_of(handle);
  if (spoils(stream)) return answer(cudaErrorStreamCaptureUnsupported);
  stream.synchronise();
  return answer(cudaSuccess);
}
cudaError_t cudaDeviceSynchronize() {
  const auto lock = locked();
  bool captured = false;
  for (Stream* stream : streams()) captured |= spoils(*stream);
  if (captured) return answer(cudaErrorStreamCaptureUnsupported);
  for (Stream* stream : streams()) stream->synchronise();
  return answer(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned) {
  *handle = reinterpret_cast<cudaEvent_t>(new Event);
  return answer(cudaSuccess);
}
cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  delete &event_at(handle);
  return answer(cudaSuccess);
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
  const auto lock = locked();
  event_at(handle).point = stream_of(stream).mark();
  return answer(cudaSuccess);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t handle, unsigned) {
  const auto lock = locked();
  if (event_at(handle).point) stream_of(stream).wait(event_at(handle).point);
  return answer(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
  const auto lock = locked();
  if (forbidden()) return answer(cudaErrorStreamCaptureUnsupported);
  const auto point = event_at(handle).point;
  if (point && !point->passed && !lazy && chance(30)) progress(20);
  if (point && !point->passed) return answer(cudaErrorNotReady);
  if (point) acquired(point->token);
  return answer(cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  const auto lock = locked();
  const auto point = event_at(handle).point;
  if (!point) return answer(cudaSuccess);
  if (!point->passed) progress(-1);
  if (!point->passed) fatal("nothing will come to an event");
  acquired(point->token);
  return answer(cudaSuccess);
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return answer(cudaSuccess);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const auto lock = locked();
  const auto& capture = stream_of(handle).capture;
  *status = !capture          ? cudaStreamCaptureStatusNone
            : capture->spoilt ? cudaStreamCaptureStatusInvalidated
                              : cudaStreamCaptureStatusActive;
  return answer(cudaSuccess);
}
cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const auto lock = locked();
  Stream& stream = stream_of(handle);
  if (stream.capture || &stream == &stream_of(nullptr)) return answer(cudaErrorStreamCaptureUnsupported);
  stream.capture = Capture{mode, std::this_thread::get_id(), false, {}};
  return answer(cudaSuccess);
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const auto lock = locked();
  Stream& stream = stream_of(handle);
  *graph = nullptr;
  if (!stream.capture) return answer(cudaErrorStreamCaptureUnmatched);
  const Capture capture = std::move(*stream.capture);
  stream.capture.reset();
  if (capture.spoilt) return answer(cudaErrorStreamCaptureInvalidated);
  *graph = reinterpret_cast<cudaGraph_t>(new std::shared_ptr<Graph>(std::make_shared<Graph>(capture.work)));
  return answer(cudaSuccess);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable =
      reinterpret_cast<cudaGraphExec_t>(new std::shared_ptr<Graph>(*reinterpret_cast<std::shared_ptr<Graph>*>(graph)));
  return answer(cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<std::shared_ptr<Graph>*>(graph);
  return answer(cudaSuccess);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete reinterpret_cast<std::shared_ptr<Graph>*>(executable);
  return answer(cudaSuccess);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const auto lock = locked();
  stream_of(stream).put([graph = *reinterpret_cast<std::shared_ptr<Graph>*>(executable)](Stream& here) {
    for (const emulator::Work& work : *graph) work(here);
  });
  return answer(cudaSuccess);
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const auto lock = locked();
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) fatal("an unknown attribute of a kernel");
  if (value > 227 << 10) return answer(cudaErrorInvalidValue);
  kernel_at(function).shared_limit = static_cast<size_t>(value);
  return answer(cudaSuccess);
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t stream) {
  const auto lock = locked();
  const Kernel& kernel = kernel_at(function);
  const size_t threads = size_t(block.x) * block.y * block.z, blocks = size_t(grid.x) * grid.y * grid.z;
  if (threads == 0 || threads > 1024 || blocks == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 ||
      shared_bytes > kernel.shared_limit)
    return answer(cudaErrorInvalidValue);
  const auto launch =
      std::make_shared<const Launch>(Launch{kernel.bind(arguments), index_of(grid), index_of(block), shared_bytes});
  stream_of(stream).put([launch](Stream& here) { run_blocks(*launch, here.crew()); });
  return answer(cudaSuccess);
}

// For those who test.
void emulator_seed(uint64_t seed) {
  const auto lock = locked();
  emulator::random().seed(seed);
  lazy = chance(50);
}
void emulator_refuse(int64_t after) { granted = after; }
bool emulator_kept(int number) {
  static const int absent = [] {
    const char* text = std::getenv("EMULATOR_MUTANT");
    return text ? std::atoi(text) : -1;
  }();
  return number != absent;
}
void emulator_lose(int status) { lost = static_cast<cudaError_t>(status); }
}
