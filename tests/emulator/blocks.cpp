// A launch: blocks in a random order, the threads of a block as fibers that meet at barriers.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "device.h"

namespace emulator {
namespace {

struct Worker;
Worker* at_work = nullptr;

// What orders the threads of a block: its begin, its end and, by number, its barriers.
struct Tokens {
  char *begin, *end;
  std::deque<char> barriers;
};

// A fiber that runs one thread of a block after another.
struct Worker {
  explicit Worker(std::shared_ptr<Context> context) : fiber(&Worker::run, this, std::move(context)) {}
  static void run(void* worker) {
    Worker& self = *static_cast<Worker*>(worker);
    for (;;) {
      acquired(*self.tokens->begin);
      (*self.body)();
      self.done = true;
      released(*self.tokens->end);
      Fiber::leave();
    }
  }
  void meet() {
    if (met == tokens->barriers.size()) tokens->barriers.push_back(0);
    char& barrier = tokens->barriers[met++];
    released(barrier);
    Fiber::leave();
    acquired(barrier);  // only this one: those who go on first may have met again
  }
  void go_on() {
    at_work = this;
    fiber.enter();
  }

  const Body* body = nullptr;
  Thread thread{};
  Tokens* tokens = nullptr;
  size_t met = 0;  // barriers so far
  bool done = true;
  Fiber fiber;
};

// Those that run a block. To the thread sanitizer they are a few threads, which share the block's at random.
struct Gang {
  Worker& worker(size_t i) {
    if (contexts.empty())
      for (int n = 0; n < (finds_races ? 4 : 1); ++n) contexts.push_back(std::make_shared<Context>());
    if (i == workers.size()) workers.push_back(std::make_unique<Worker>(contexts[random()() % contexts.size()]));
    return *workers[i];
  }
  std::vector<std::shared_ptr<Context>> contexts;
  std::vector<std::unique_ptr<Worker>> workers;
};

std::vector<unsigned> any_order(unsigned n) {
  std::vector<unsigned> order(n);
  std::iota(order.begin(), order.end(), 0u);
  shuffle(order);
  return order;
}

Index place(unsigned i, const Index& size) { return {i % size.x, i / size.x % size.y, i / size.x / size.y}; }
unsigned count(const Index& size) { return size.x * size.y * size.z; }

// Of exactly this size, for the sanitizers, and full of NaN.
std::unique_ptr<char, decltype(&std::free)> shared_memory(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, std::max<size_t>(bytes, 1)) != 0) fatal("out of host memory");
  std::memset(memory, 0xFF, bytes);
  return {static_cast<char*>(memory), &std::free};
}

class Block {
 public:
  Block(const Launch& launch, unsigned index, char* begin, char* end, Gang& gang)
      : launch_(launch), index_(index), tokens_{begin, end, {}}, gang_(gang) {}

  void run(char* shared) {
    const unsigned threads = count(launch_.block);
    const Index block = place(index_, launch_.grid);
    std::vector<Worker*> waiting;
    for (unsigned thread : any_order(threads)) {
      Worker& worker = idle();
      worker.body = &launch_.body;
      worker.thread = {place(thread, launch_.block), block, launch_.block, launch_.grid, shared};
      worker.tokens = &tokens_;
      worker.met = 0;
      worker.done = false;
      released(*tokens_.begin);  // with what has just been allocated for the worker
      worker.go_on();
      (worker.done ? idle_ : waiting).push_back(&worker);
    }
    while (!waiting.empty()) {
      if (waiting.size() != threads) fatal("some threads of a block wait at a barrier that others never reach");
      shuffle(waiting);
      std::vector<Worker*> next;
      for (Worker* worker : waiting) {
        worker->go_on();
        if (!worker->done) next.push_back(worker);
      }
      waiting = std::move(next);
    }
  }

 private:
  Worker& idle() {
    constexpr size_t together = finds_races ? 6 : 1;
    if (idle_.size() < together) return gang_.worker(used_++);
    std::swap(idle_[random()() % idle_.size()], idle_.back());
    Worker& worker = *idle_.back();
    idle_.pop_back();
    return worker;
  }

  const Launch& launch_;
  const unsigned index_;
  Tokens tokens_;
  Gang& gang_;
  size_t used_ = 0;
  std::vector<Worker*> idle_;
};

}  // namespace

// Blocks that follow each other are not ordered: they get different gangs.
struct Crew {
  Gang gangs[finds_races ? 3 : 1];
};

Stream::Stream() : crew_(new Crew) {}

Thread self() { return at_work->thread; }
void meet() { at_work->meet(); }

void run_blocks(const Launch& launch, Crew& crew) {
  std::vector<std::unique_ptr<char, decltype(&std::free)>> shared;
  char begin = 0, end = 0;
  size_t turn = 0;
  for (unsigned index : any_order(count(launch.grid))) {
    shared.push_back(shared_memory(launch.shared_bytes));
    Block(launch, index, &begin, &end, crew.gangs[turn++ % std::size(crew.gangs)]).run(shared.back().get());
  }
  acquired(end);
}

}  // namespace emulator
