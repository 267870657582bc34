// The host twin of CudaDevice: the same work in plain loops. It is as unkind as a device may be: lanes run in turn,
// each as far as its waits allow, in calls of even number the last lane first and in the others the first, so that a
// wait that is missing shows. Recorded segments are kept and replayed, so that a recording that has swallowed a pointer
// of one call shows. What was put out before an error is done all the same, as on a device.
#pragma once
#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>

#include "cuda/engine/device.h"
#include "cuda/kernels/element.h"
#include "cuda/path_plan.h"

namespace fusedrnn::cuda {

// Memory full of NaN: whatever is read before it was written shows.
class HostMemory {
 public:
  void* take(int64_t bytes) {
    blocks_.emplace_back(static_cast<size_t>(bytes), static_cast<char>(0xFF));
    return blocks_.back().data();
  }

 private:
  std::vector<std::vector<char>> blocks_;
};

class HostDevice {
 public:
  using Event = size_t;
  using Work = std::vector<std::function<void()>>;

  class Loop {
   public:
    explicit Loop(int64_t bytes) : memory_(static_cast<char*>(own_.take(bytes))) {}
    char* memory() { return memory_; }

   private:
    friend HostDevice;
    HostMemory own_;
    char* memory_;
    std::map<std::pair<int64_t, int64_t>, Work> recorded_;  // empty: seen once
  };

  class Store : public HostMemory {
   public:
    void* take(HostDevice&, int64_t bytes) {
      ask();
      return HostMemory::take(bytes);
    }
    void used(const Place& place) noexcept { last_use_is_captured_ |= is_captured(place); }
    void await(HostDevice&) {
      if (last_use_is_captured_) throw std::runtime_error("the last use of a tape was recorded in a captured stream");
    }

   private:
    bool last_use_is_captured_ = false;
  };

  HostDevice(const Place& place, const std::string& op) : turn_(mutex()), last_lane_first_(calls()++ % 2 == 0) {
    if (is_captured(place)) throw std::runtime_error(op + ": the current stream is being captured");
  }
  ~HostDevice() { run_lanes(); }
  HostDevice(const HostDevice&) = delete;
  HostDevice& operator=(const HostDevice&) = delete;

  int lanes() const { return most_lanes; }
  void* scratch(int64_t bytes) {
    ask();
    return scratch_.take(bytes);
  }
  Store store() { return {}; }

  void fork(int64_t lanes) {
    const Event begin = record(0);
    for (int64_t lane = 1; lane < lanes; ++lane) wait(lane, begin);
  }
  void join(int64_t lanes) {
    for (int64_t lane = 1; lane < lanes; ++lane) wait(0, record(lane));
    run_lanes();
  }
  Event record(int64_t lane) {
    const Event event = happened_.size();
    happened_.push_back(false);
    submit(lane, [this, event] { happened_[event] = true; });
    return event;
  }
  void wait(int64_t lane, Event event) { queue_[lane].push_back({nullptr, event}); }

  template <class F> void each(int64_t lane, int64_t rows, int64_t columns, F f) {
    submit(lane, [=] {
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t column = 0; column < columns; ++column) f(row, column);
    });
  }

  template <class E, class C> void multiply(int64_t lane, const Product<E, C>& p) {
    submit(lane, [p] {
      using A = Sum<E>;
      for (int64_t i = 0; i < p.m; ++i)
        for (int64_t j = 0; j < p.n; ++j) {
          A sum(0);
          for (int64_t k = 0; k < p.k; ++k)
            sum += static_cast<A>(p.a[p.transpose_a ? k * p.lda + i : i * p.lda + k]) *
                   static_cast<A>(p.b[p.transpose_b ? j * p.ldb + k : k * p.ldb + j]);
          C& to = p.c[i * p.ldc + j];
          to = static_cast<C>(p.beta ? static_cast<A>(to) + sum : sum);
        }
    });
  }

  // Shared memory as on an H100. Blocks of two calls have one sample and those of the next two, if possible, several,
  // so that both forward and backward get either.
  static Limits limits(const Place&) { return {calls() / 2 % 2 ? 0 : 132, 227 << 10}; }

  // Threads take their turns in the opposite order in every other phase: what one of them reads in the phase in which
  // another writes it shows.
  template <class W> void run_phases(int64_t lane, const Grid& grid, const W& w) {
    submit(lane, [w, grid] {
      const int count = grid.threads;
      for (int block = 0; block < grid.blocks; ++block) {
        const int end = w.end_step(block);
        int s = w.first_step(block);
        if ((end - s) * W::stride <= 0) continue;
        HostMemory memory;
        char* shared = static_cast<char*>(memory.take(grid.shared_bytes));
        std::vector<typename W::Thread> threads(static_cast<size_t>(count));
        int phases = 0;
        const auto phase = [&](auto run) {
          ++phases;
          for (int i = 0; i < count; ++i) {
            const int thread = phases % 2 ? i : count - 1 - i;
            run(threads[static_cast<size_t>(thread)], thread);
          }
        };
        phase([&](auto& t, int thread) { w.begin(t, shared, block, thread, count); });
        for (; s != end; s += W::stride) {
          phase([&](auto& t, int) { w.first(t, shared, s); });
          phase([&](auto& t, int) { w.second(t, shared, s); });
          if constexpr (!W::is_one_step) phase([&](auto& t, int) { w.after(t, s); });
        }
        phase([&](auto& t, int) { w.finish(t, shared); });
      }
    });
  }

  void write(int64_t lane, void* to, const void* from, int64_t bytes) {
    const auto* begin = static_cast<const char*>(from);
    submit(lane, [to, copy = std::vector<char>(begin, begin + bytes)] { std::memcpy(to, copy.data(), copy.size()); });
  }

  Loop& loop(int64_t, const LoopKey& key, int64_t bytes) {
    if (!loops().contains(key)) ask();
    return loops().try_emplace(key, bytes).first->second;
  }

  template <class Body> void replay(int64_t lane, Loop& loop, int64_t steps, int64_t variant, Body body) {
    const auto [place, first_time] = loop.recorded_.try_emplace({steps, variant});
    if (first_time) return body();
    if (place->second.empty()) {
      ask();
      recording_ = &place->second;
      body();
      recording_ = nullptr;
    }
    for (const auto& work : place->second) submit(lane, work);
  }

  // Memory is refused once, after so many more pieces; a recording counts as one.
  static void refuse(int64_t after) { granted() = after; }

  // No call finds a loop that another has recorded, as if its weights stood where none have stood before.
  static void forget_loops() {
    const std::lock_guard<std::mutex> turn(mutex());
    loops().clear();
  }

 private:
  // The twin has no streams; this handle stands for one that is being captured.
  static bool is_captured(const Place& place) { return reinterpret_cast<uintptr_t>(place.stream) == 0xCA; }

  static constexpr int most_lanes = 4;
  struct Item {
    std::function<void()> work;  // null: waits for the event
    Event event = 0;
  };

  void submit(int64_t lane, std::function<void()> work) {
    if (recording_)
      recording_->push_back(std::move(work));
    else
      queue_[lane].push_back({std::move(work)});
  }

  void run_lanes() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int i = 0; i < most_lanes; ++i) {
        auto& lane = queue_[last_lane_first_ ? most_lanes - 1 - i : i];
        for (; !lane.empty() && (lane.front().work || happened_[lane.front().event]); lane.pop_front()) {
          if (lane.front().work) lane.front().work();
          moved = true;
        }
      }
    }
  }

  static void ask() {
    if (granted()-- == 0) throw OutOfMemory("a test refuses memory");
  }
  static std::atomic<int64_t>& granted() {
    static std::atomic<int64_t> count = -1;
    return count;
  }
  static std::atomic<int64_t>& calls() {
    static std::atomic<int64_t> count = 0;
    return count;
  }
  static std::mutex& mutex() {
    static std::mutex instance;
    return instance;
  }
  static std::map<LoopKey, Loop>& loops() {
    static std::map<LoopKey, Loop> instance;
    return instance;
  }

  std::lock_guard<std::mutex> turn_;  // loops are shared by all calls
  const bool last_lane_first_;
  std::deque<Item> queue_[most_lanes];
  std::vector<bool> happened_;  // by event
  HostMemory scratch_;
  Work* recording_ = nullptr;
};

}  // namespace fusedrnn::cuda
