// Streams: work runs when somebody waits for it and, unless the device is lazy, by chance; streams then take turns in a
// random order.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "device.h"

namespace emulator {

void fatal(const char* what) {
  std::fprintf(stderr, "emulated device: %s\n", what);
  std::abort();
}

Random& random() {
  static Random& instance = *new Random(1);
  return instance;
}

bool lazy = false;

bool chance(int percent) { return static_cast<int>(random()() % 100) < percent; }

std::unique_lock<std::recursive_mutex> locked() {
  static std::recursive_mutex& mutex = *new std::recursive_mutex;
  return std::unique_lock<std::recursive_mutex>(mutex);
}

std::set<Stream*>& streams() {
  static std::set<Stream*>& instance = *new std::set<Stream*>;
  return instance;
}

// 0 and 1 are the default stream; each thread has one of its own, 2. No stream waits for the default one.
Stream& stream_of(cudaStream_t handle) {
  const auto own = [] {
    auto* stream = new Stream;
    streams().insert(stream);
    return stream;
  };
  static Stream* const by_default = own();
  static thread_local Stream* const per_thread = own();
  const auto number = reinterpret_cast<uintptr_t>(handle);
  return number < 2 ? *by_default : number == 2 ? *per_thread : *reinterpret_cast<Stream*>(handle);
}

cudaStream_t handle_of_stream(Stream& stream) { return reinterpret_cast<cudaStream_t>(&stream); }

void Stream::put(Work work) {
  if (capture) return capture->work.push_back(std::move(work));
  auto sent = std::make_shared<char>();
  released(*sent);
  queue_.push_back({std::move(work), nullptr, std::move(sent)});
  if (!lazy && chance(5)) progress(3);
}

void Stream::wait(std::shared_ptr<Point> point) {
  if (capture) fatal("a captured stream waits for an event");
  auto sent = std::make_shared<char>();
  released(*sent);
  queue_.push_back({nullptr, std::move(point), std::move(sent)});
}

std::shared_ptr<Point> Stream::mark() {
  if (capture) fatal("an event is recorded in a captured stream");
  auto point = std::make_shared<Point>();
  put([point](Stream&) {
    point->passed = true;
    released(point->token);
  });
  return point;
}

bool Stream::ready() const { return !queue_.empty() && (!queue_.front().after || queue_.front().after->passed); }

// To the thread sanitizer a stream is a thread of its own.
void Stream::step() {
  current_ = std::move(queue_.front());
  queue_.pop_front();
  if constexpr (finds_races) {
    if (!fiber_) fiber_ = std::make_unique<Fiber>(&Stream::run, this, std::make_shared<Context>());
    fiber_->enter();
    static auto& immortal = *new std::deque<Piece>;  // to free it would be one more access, and not a stream's
    immortal.push_back(std::move(current_));
  } else if (current_.work) {
    const Piece piece = std::move(current_);
    piece.work(*this);
  }
}

void Stream::run(void* stream) {
  for (;;) {
    Stream& self = *static_cast<Stream*>(stream);
    acquired(*self.current_.sent);
    if (self.current_.after) acquired(self.current_.after->token);
    if (self.current_.work) self.current_.work(self);
    released(self.done_);
    Fiber::leave();
  }
}

void progress(int pieces) {
  static bool under_way = false;
  if (under_way) return;  // a piece of work has put out another
  under_way = true;
  while (pieces != 0) {
    std::vector<Stream*> able;
    for (Stream* stream : streams())
      if (stream->ready()) able.push_back(stream);
    if (able.empty()) break;
    Stream& chosen = *able[random()() % able.size()];
    for (int run = 1 + static_cast<int>(random()() % 8); run > 0 && pieces != 0 && chosen.ready(); --run, --pieces)
      chosen.step();
  }
  under_way = false;
}

void Stream::synchronise() {
  while (!queue_.empty()) {
    const size_t before = queue_.size();
    progress(1 + static_cast<int>(random()() % 16));
    if (queue_.size() == before &&
        std::none_of(streams().begin(), streams().end(), [](Stream* stream) { return stream->ready(); }))
      fatal("a stream waits for an event that nothing will come to");
  }
  meet_host();
}

}  // namespace emulator
