// The emulated device: what its parts know of each other. All of it runs under one lock, on whatever thread of the host
// asks for something; only the order in which things happen is a device's.
#pragma once
#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "emulated_kernel.h"
#include "fiber.h"

namespace emulator {

[[noreturn]] void fatal(const char* what);

using Random = std::mt19937_64;
Random& random();
bool chance(int percent);
extern bool lazy;  // nothing runs before somebody waits for it
template <class X> void shuffle(std::vector<X>& v) {
  for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[random()() % i]);
}

std::unique_lock<std::recursive_mutex> locked();

// A point that a stream comes to.
struct Point {
  bool passed = false;
  char token = 0;
};

struct Event {
  std::shared_ptr<Point> point;  // null: never recorded
};

class Stream;
using Work = std::function<void(Stream&)>;  // of a stream, in which it runs

struct Capture {
  cudaStreamCaptureMode mode;
  std::thread::id by;
  bool spoilt = false;
  std::vector<Work> work;
};

// Blocks and threads of a launch, in a random order. A crew runs the launches of one stream: to the thread sanitizer
// who has worked for another knows what happened there.
struct Launch {
  Body body;
  Index grid, block;
  size_t shared_bytes;
};
struct Crew;
void run_blocks(const Launch& launch, Crew& crew);

class Stream {
 public:
  Stream();
  void put(Work work);  // recorded while the stream is captured
  void wait(std::shared_ptr<Point> point);
  std::shared_ptr<Point> mark();
  bool ready() const;
  bool empty() const { return queue_.empty(); }
  void step();                           // does the next piece of work
  void synchronise();                    // until all of it is done
  void meet_host() { acquired(done_); }  // what the stream has done is visible to the host

  std::optional<Capture> capture;
  Crew& crew() { return *crew_; }

 private:
  struct Piece {
    Work work;                     // null: waits
    std::shared_ptr<Point> after;  // null: nothing
    std::shared_ptr<char> sent;
  };
  static void run(void* stream);

  std::deque<Piece> queue_;
  Crew* const crew_;  // lives as long as the process, as streams do
  std::unique_ptr<Fiber> fiber_;
  Piece current_;
  char done_ = 0;
};

std::set<Stream*>& streams();
Stream& stream_of(cudaStream_t handle);
cudaStream_t handle_of_stream(Stream& stream);
void progress(int pieces);  // of any streams, in a random order; negative: until nothing is left

struct Kernel {
  Binding bind;
  size_t shared_limit = 48 << 10;
};
Kernel& kernel_at(const void* key);

// Memory of the device: full of NaN when it is given and when it is given back, in the order of the stream.
constexpr size_t total_memory = size_t(1) << 30;
size_t used_memory();
void* take(size_t bytes, Stream& stream);  // null: there is not enough
void give_back(void* memory, Stream& stream);
void trim();
bool is_on_device(const void* address);

}  // namespace emulator
