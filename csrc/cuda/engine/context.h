// What lasts longer than a call on one device: streams, cuBLAS handles, device memory, recorded loops.
#pragma once
#include <map>
#include <memory>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "cuda/engine/blas.h"
#include "cuda/engine/check.h"
#include "cuda/engine/device.h"

namespace fusedrnn::cuda {

// Held while a thread records: handles of cuBLAS are made only when nobody holds it.
std::shared_lock<std::shared_mutex> hold_handles_off();

bool is_captured(cudaStream_t stream);

// Memory in the order of a stream, from one pool a device, which keeps what it is given back. Throws OutOfMemory after
// one more try with an emptied pool; `op` leads the message.
void* allocate(int device, int64_t bytes, cudaStream_t stream, const std::string& op);
void release(void* memory, cudaStream_t stream) noexcept;

// Memory that lives as long as this object. Its last use is a point in a stream; it is given back after that point.
class DeviceStore {
 public:
  explicit DeviceStore(int device) : device_(device) {}
  ~DeviceStore();
  DeviceStore(const DeviceStore&) = delete;
  DeviceStore& operator=(const DeviceStore&) = delete;
  void* take(int64_t bytes, cudaStream_t stream, const std::string& op);
  void used(cudaStream_t stream) noexcept;  // everything in the stream so far may use the memory
  void await(cudaStream_t stream);          // what comes next in the stream uses it

 private:
  int device_;
  std::vector<void*> blocks_;
  bool in_use_ = false;  // by a call that has not said where its work ends; for ever where it could not
  cudaEvent_t last_use_ = nullptr;
};

// One time loop of fixed shape, weights and place: its state, and the segments of steps that were recorded.
struct RecordedLoop {
  struct Segment {
    bool seen = false;
    cudaGraphExec_t graph = nullptr;
  };
  char* memory() const { return static_cast<char*>(data); }
  void* data = nullptr;
  int64_t bytes = 0;
  uint64_t last_call = 0;
  int graphs = 0;                                           // of the segments below
  std::map<std::pair<int64_t, int64_t>, Segment> segments;  // by (steps, variant)
};

// Work that may run beside that of other lanes. The workspace makes products deterministic: it is used by this lane
// alone, and a recorded product keeps its address.
struct Lane {
  cudaStream_t stream = nullptr;
  Blas blas;
  void* workspace = nullptr;
};

// Serves one call at a time. A call on another stream first waits for the work of the last one.
class Context {
 public:
  static constexpr int max_lanes = 4;

  explicit Context(int device);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  int device() const { return device_; }
  int64_t workspace_bytes() const { return workspace_bytes_; }
  int block_shared_bytes() const { return block_shared_bytes_; }  // the most that a block may ask for
  cudaStream_t capture_stream() const { return capture_; }
  cudaStream_t last_stream() const { return last_stream_; }
  bool idle() const { return cudaEventQuery(done_) == cudaSuccess; }

  void begin(cudaStream_t stream);
  void end() noexcept;
  void wait();                                       // for the work of calls that have ended
  Lane& lane(int64_t index, const std::string& op);  // made when first asked for
  cudaEvent_t next_event();                          // good until the next call
  // Memory is allocated in the stream of the lane that uses it.
  RecordedLoop& loop(const LoopKey& key, int64_t bytes, cudaStream_t stream, const std::string& op);

 private:
  static void forget(RecordedLoop& loop, cudaStream_t stream) noexcept;
  void forget_old_loops();

  int device_;
  int64_t workspace_bytes_;
  int block_shared_bytes_ = 0;
  cudaStream_t capture_ = nullptr, last_stream_ = nullptr;
  cudaEvent_t done_ = nullptr;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<cudaEvent_t> events_;
  size_t events_used_ = 0;
  std::map<LoopKey, RecordedLoop> loops_;
  uint64_t call_ = 0;
};

// A context for a call on this stream, one that served it before if possible; and back.
std::unique_ptr<Context> borrow_context(int device, cudaStream_t stream);
void return_context(std::unique_ptr<Context> context) noexcept;

}  // namespace fusedrnn::cuda
