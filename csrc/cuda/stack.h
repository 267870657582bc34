// A stack of recurrent layers on a device, as bind/ calls it: plain pointers, no CUDA headers. The element type is the
// engine's; pointers are void, strides in elements.
//
// Calls put work on the caller's stream and return before it is done. Errors of that work appear in later calls.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/problem.h"
#include "core/row_order.h"
#include "core/sequence.h"
#include "cuda/path_plan.h"

namespace fusedrnn::cuda {

// Not enough device memory; nothing is left allocated, nothing was added to gradients: the call may be made again.
struct OutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Weights {
  const void *weight_ih, *weight_hh, *bias_ih, *bias_hh;  // biases may be null
};
struct WeightGradients {
  void *weight_ih, *weight_hh, *bias_ih, *bias_hh;
};

// Slab = (layer, direction), counted as torch counts states.
struct ForwardCall {
  Problem problem;
  std::shared_ptr<const RowOrder> rows;
  std::vector<Weights> weights;  // by slab
  TimeMajorView<const void> x;
  TimeMajorView<void> y;                      // (T, B, directions*H); data null: not wanted
  std::vector<StateView<const void>> h0, c0;  // by slab; data may be null: zeros
  std::vector<StateView<void>> hn, cn;        // data may be null: not wanted
};

struct BackwardCall {
  TimeMajorView<const void> dy;  // data may be null: zeros
  TimeMajorView<void> dx;        // data may be null: not wanted
  std::vector<StateView<const void>> dhn, dcn;
  std::vector<StateView<void>> dh0, dc0;
  std::vector<WeightGradients> gradients;  // by slab; added to
};

struct Place {
  int device;           // ordinal; the host twin ignores it
  void* stream;         // cudaStream_t of the caller
  bool tf32;            // float32 products may round their inputs to TF32
  int64_t chunk_bytes;  // of input projections kept at a time; 0: the default
  Path most;            // the fastest path that may be taken
};

// What a training call keeps for its backward: x packed, the activated gates, h before and c after every step.
class Tape {
 public:
  virtual ~Tape() = default;
};

class Engine {
 public:
  virtual ~Engine() = default;
  // Null in inference. The tape refers to x and the weights.
  virtual std::unique_ptr<Tape> forward(const ForwardCall& call, const Place& place, bool training) const = 0;
  // Consumes the saved gates; another backward on the same tape first runs the forward again.
  virtual void backward(Tape& tape, const BackwardCall& call, const Place& place) const = 0;
  // n floats as elements of the engine's type, and back: rounded, or widened and added to what is there.
  virtual void round(const float* from, void* to, int64_t n, const Place& place) const = 0;
  virtual void add_widened(const void* from, float* to, int64_t n, const Place& place) const = 0;
  // Which path a call takes, in words.
  virtual std::string plan(const Problem& problem, const Place& place) const = 0;
};

// "float32", "float64", "bfloat16", "float16"; null for any other name.
const Engine* device_engine(const std::string& dtype);
const Engine* host_engine(const std::string& dtype);  // the same code in plain loops, for tests
void refuse_on_host(int64_t after);                   // that of memory after so many more, once; for tests as well
void forget_loops_on_host();                          // all that were recorded; the same

// Marks this point of a caller's stream: what is returned says whether the device has come so far, and no where that
// cannot be known. Null where the stream is being captured: calls refuse it, so that nothing of theirs is on its way.
std::function<bool()> mark(int device, void* stream);

}  // namespace fusedrnn::cuda
