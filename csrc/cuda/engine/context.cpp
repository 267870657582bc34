#include "cuda/engine/context.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "cuda/stack.h"
#include "cuda/status.h"

namespace fusedrnn::cuda {
namespace {

// Never destroyed: at the end of the process the driver may be gone before static objects are.
template <class X> X& immortal() {
  static X* const instance = new X;
  return *instance;
}

struct Pools {
  std::mutex mutex;
  std::map<int, cudaMemPool_t> by_device;
  std::map<int, cudaStream_t> reapers;  // streams in which the memory of dead tapes is given back
};

cudaMemPool_t pool_of(int device) {
  Pools& pools = immortal<Pools>();
  const std::lock_guard<std::mutex> lock(pools.mutex);
  cudaMemPool_t& pool = pools.by_device[device];
  if (!pool) {
    int supported = 0;
    check(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, device), "cudaDeviceGetAttribute");
    if (!supported)
      throw std::runtime_error("CUDA: this device has no memory pools (some virtual GPUs); use another one");
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    check(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
    // Without a threshold every synchronisation would give the memory back to the system and the next call would wait
    // for it; without a limit other users of the device would starve.
    size_t free_bytes = 0, total_bytes = 0;
    check(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
    uint64_t keep = std::min<uint64_t>(total_bytes / 4, uint64_t(2) << 30);
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep), "cudaMemPoolSetAttribute");
  }
  return pool;
}

cudaStream_t reaper_of(int device) {
  Pools& pools = immortal<Pools>();
  const std::lock_guard<std::mutex> lock(pools.mutex);
  cudaStream_t& stream = pools.reapers[device];
  if (!stream) check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

std::shared_mutex& recordings() { return immortal<std::shared_mutex>(); }

struct IdleContexts {
  std::mutex mutex;
  std::condition_variable returned;
  std::vector<std::unique_ptr<Context>> contexts;
  std::map<int, size_t> made;  // by device: the idle ones and those that serve a call
};

// With their recorded loops and workspaces.
void forget_idle_contexts() {
  IdleContexts& idle = immortal<IdleContexts>();
  std::vector<std::unique_ptr<Context>> contexts;
  {
    const std::lock_guard<std::mutex> lock(idle.mutex);
    contexts.swap(idle.contexts);
    for (const auto& context : contexts) --idle.made[context->device()];
  }
  idle.returned.notify_all();
  const std::unique_lock<std::shared_mutex> lock(recordings());  // as where handles of cuBLAS are made
  for (auto& context : contexts) {
    const UseDevice use(context->device());
    context.reset();
  }
}

// Until calls that have ended are done, and dead tapes have gone, what they gave back is not free. Not the whole
// device: that would spoil every capture on it, whoever's it is.
void wait_for_own_work(int device) {
  check(cudaStreamSynchronize(reaper_of(device)), "cudaStreamSynchronize");
  IdleContexts& idle = immortal<IdleContexts>();
  const std::lock_guard<std::mutex> lock(idle.mutex);
  for (const auto& context : idle.contexts)
    if (context->device() == device) context->wait();
}

}  // namespace

std::shared_lock<std::shared_mutex> hold_handles_off() { return std::shared_lock<std::shared_mutex>(recordings()); }

bool is_captured(cudaStream_t stream) {
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &capturing), "cudaStreamIsCapturing");
  return capturing != cudaStreamCaptureStatusNone;
}

void* allocate(int device, int64_t bytes, cudaStream_t stream, const std::string& op) {
  const cudaMemPool_t pool = pool_of(device);
  const size_t size = static_cast<size_t>(std::max<int64_t>(bytes, 256));
  void* memory = nullptr;
  cudaError_t status = cudaMallocFromPoolAsync(&memory, size, pool, stream);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    wait_for_own_work(device);
    check(cudaMemPoolTrimTo(pool, 0), "cudaMemPoolTrimTo");
    status = cudaMallocFromPoolAsync(&memory, size, pool, stream);
  }
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    throw OutOfMemory(op + ": " + std::to_string(bytes) + " bytes of device memory were asked for; device " +
                      std::to_string(device) + " has " + std::to_string(free_bytes) + " of " +
                      std::to_string(total_bytes) + " free. Use a smaller batch or shorter sequences");
  }
  check(status, "cudaMallocFromPoolAsync");
  return memory;
}

void release(void* memory, cudaStream_t stream) noexcept {
  if (memory) cudaFreeAsync(memory, stream);
}

void release_memory() {
  forget_idle_contexts();
  std::map<int, cudaMemPool_t> by_device;
  {
    Pools& pools = immortal<Pools>();
    const std::lock_guard<std::mutex> lock(pools.mutex);
    by_device = pools.by_device;
  }
  for (const auto& [device, pool] : by_device) {
    const UseDevice use(device);
    wait_for_own_work(device);
    check(cudaMemPoolTrimTo(pool, 0), "cudaMemPoolTrimTo");
  }
}

void* DeviceStore::take(int64_t bytes, cudaStream_t stream, const std::string& op) {
  reaper_of(device_);  // made now, and not where the memory dies
  in_use_ = true;
  blocks_.push_back(nullptr);
  try {
    return blocks_.back() = allocate(device_, bytes, stream, op);
  } catch (...) {
    used(stream);
    throw;
  }
}

void DeviceStore::used(cudaStream_t stream) noexcept {
  in_use_ = true;
  try {
    const UseDevice use(device_);
    if (!last_use_) check(cudaEventCreateWithFlags(&last_use_, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaEventRecord(last_use_, stream), "cudaEventRecord");
    in_use_ = false;
  } catch (const std::exception&) {  // the device is lost
  }
}

void DeviceStore::await(cudaStream_t stream) {
  in_use_ = true;
  if (last_use_) check(cudaStreamWaitEvent(stream, last_use_, 0), "cudaStreamWaitEvent");
}

DeviceStore::~DeviceStore() {
  if (blocks_.empty() || in_use_) return;  // in_use_: the device is lost, and its memory with it
  try {
    const UseDevice use(device_);
    const cudaStream_t reaper = reaper_of(device_);
    check(cudaStreamWaitEvent(reaper, last_use_, 0), "cudaStreamWaitEvent");
    for (void* block : blocks_) release(block, reaper);
    cudaEventDestroy(last_use_);
  } catch (const std::exception&) {  // as above
  }
}

namespace {

// An event in a stream of a caller's, apart from what others capture.
class Marker {
 public:
  Marker(int device, cudaStream_t stream) : device_(device) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
    recorded_ = cudaEventRecord(event_, stream) == cudaSuccess;
  }
  ~Marker() {
    try {
      const UseDevice use(device_);
      cudaEventDestroy(event_);
    } catch (const std::exception&) {  // the device is lost
    }
  }
  Marker(const Marker&) = delete;
  Marker& operator=(const Marker&) = delete;

  bool passed() const {
    const UseDevice use(device_);
    return recorded_ && cudaEventQuery(event_) == cudaSuccess;
  }

 private:
  int device_;
  bool recorded_ = false;
  cudaEvent_t event_ = nullptr;
};

}  // namespace

std::function<bool()> mark(int device, void* stream) {
  try {
    const UseDevice use(device);
    const auto caller = static_cast<cudaStream_t>(stream);
    if (is_captured(caller)) return nullptr;
    return [marker = std::make_shared<const Marker>(device, caller)] {
      try {
        return marker->passed();
      } catch (const std::exception&) {  // the device is lost
        return false;
      }
    };
  } catch (const std::exception&) {  // as above; what the caller holds goes with the process
    return [] { return false; };
  }
}

Context::Context(int device) : device_(device) {
  int major = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&block_shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "cudaDeviceGetAttribute");
  workspace_bytes_ = int64_t(major >= 9 ? 32 : 8) << 20;  // what cuBLAS itself would take
  check(cudaStreamCreateWithFlags(&capture_, cudaStreamNonBlocking), "cudaStreamCreate");
  check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreate");
}

// The streams of the last call may be gone by now: its memory goes back in another one.
Context::~Context() {
  try {
    const cudaStream_t reaper = reaper_of(device_);
    check(cudaStreamWaitEvent(reaper, done_, 0), "cudaStreamWaitEvent");
    for (auto& [key, loop] : loops_) forget(loop, reaper);
    for (size_t i = 0; i < lanes_.size(); ++i) {
      release(lanes_[i]->workspace, reaper);
      if (i > 0) cudaStreamDestroy(lanes_[i]->stream);  // the first is a caller's
    }
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
    cudaEventDestroy(done_);
    cudaStreamDestroy(capture_);
  } catch (const std::exception&) {  // the device is lost, and all of this with it
  }
}

void Context::begin(cudaStream_t stream) {
  check(cudaStreamWaitEvent(stream, done_, 0), "cudaStreamWaitEvent");  // at once, if it was never recorded
  last_stream_ = stream;
  events_used_ = 0;
  ++call_;
  if (lanes_.empty()) return;
  lanes_.front()->stream = stream;
  lanes_.front()->blas.bind(stream, lanes_.front()->workspace, workspace_bytes_);
}

void Context::end() noexcept { cudaEventRecord(done_, last_stream_); }

void Context::wait() { check(cudaEventSynchronize(done_), "cudaEventSynchronize"); }

Lane& Context::lane(int64_t index, const std::string& op) {
  while (static_cast<int64_t>(lanes_.size()) <= index) {
    auto lane = [] {  // a handle of cuBLAS: its making may synchronise, which spoils what is being recorded
      const std::unique_lock<std::shared_mutex> lock(recordings());
      return std::make_unique<Lane>();
    }();
    if (lanes_.empty())
      lane->stream = last_stream_;
    else
      check(cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking), "cudaStreamCreate");
    lane->workspace = allocate(device_, workspace_bytes_, last_stream_, op);
    lane->blas.bind(lane->stream, lane->workspace, workspace_bytes_);
    lanes_.push_back(std::move(lane));
  }
  return *lanes_[static_cast<size_t>(index)];
}

cudaEvent_t Context::next_event() {
  if (events_used_ == events_.size()) {
    cudaEvent_t event;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    events_.push_back(event);
  }
  return events_[events_used_++];
}

RecordedLoop& Context::loop(const LoopKey& key, int64_t bytes, cudaStream_t stream, const std::string& op) {
  RecordedLoop& loop = loops_[key];
  loop.last_call = call_;
  if (loop.data) return loop;
  forget_old_loops();
  try {
    loop.data = allocate(device_, bytes, stream, op);
  } catch (...) {
    loops_.erase(key);
    throw;
  }
  loop.bytes = bytes;
  return loop;
}

// Work in flight may still use it: memory goes back in the order of the stream, and a graph that is destroyed while it
// runs lives until it is done.
void Context::forget(RecordedLoop& loop, cudaStream_t stream) noexcept {
  for (auto& [shape, segment] : loop.segments)
    if (segment.graph) cudaGraphExecDestroy(segment.graph);
  release(loop.data, stream);
}

void Context::forget_old_loops() {
  constexpr size_t most_loops = 128;
  constexpr int64_t most_bytes = int64_t(256) << 20;
  for (;;) {
    int64_t bytes = 0;
    auto oldest = loops_.end();
    for (auto at = loops_.begin(); at != loops_.end(); ++at) {
      bytes += at->second.bytes;
      if (at->second.last_call == call_) continue;
      if (oldest == loops_.end() || at->second.last_call < oldest->second.last_call) oldest = at;
    }
    if ((loops_.size() <= most_loops && bytes <= most_bytes) || oldest == loops_.end()) return;
    forget(oldest->second, last_stream_);
    loops_.erase(oldest);
  }
}

// One that this stream had before, so that calls need not wait for each other; else one that is done, a new one, one
// that is busy with other streams. Where as many calls are under way as there may be contexts, the next call waits for
// one.
std::unique_ptr<Context> borrow_context(int device, cudaStream_t stream) {
  constexpr size_t few = 4, most = 8;
  IdleContexts& idle = immortal<IdleContexts>();
  std::unique_lock<std::mutex> lock(idle.mutex);
  const auto at = [&](auto suits) {
    return std::find_if(idle.contexts.begin(), idle.contexts.end(),
                        [&](const auto& context) { return context->device() == device && suits(*context); });
  };
  size_t& made = idle.made[device];
  for (;; idle.returned.wait(lock)) {
    auto best = at([&](const Context& context) { return context.last_stream() == stream; });
    if (best == idle.contexts.end()) best = at([](const Context& context) { return context.idle(); });
    const bool others = at([](const Context&) { return true; }) != idle.contexts.end();
    if (best == idle.contexts.end() && made < (others ? few : most)) {
      auto context = std::make_unique<Context>(device);
      ++made;
      return context;
    }
    if (best == idle.contexts.end()) best = at([](const Context&) { return true; });
    if (best == idle.contexts.end()) continue;
    std::unique_ptr<Context> context = std::move(*best);
    idle.contexts.erase(best);
    return context;
  }
}

void return_context(std::unique_ptr<Context> context) noexcept {
  IdleContexts& idle = immortal<IdleContexts>();
  {
    const std::lock_guard<std::mutex> lock(idle.mutex);
    idle.contexts.push_back(std::move(context));
  }
  idle.returned.notify_all();
}

}  // namespace fusedrnn::cuda
