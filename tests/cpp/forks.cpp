// A child of a process whose other threads are inside the library finds every lock open (core/process_locks.h), and
// gets workers of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>
#include <vector>

#include "check.h"
#include "core/memory.h"
#include "core/process_locks.h"
#include "cpu/threads/thread_pool.h"

namespace fusedrnn {
namespace {

void use_everything(int seed) {
  const Buffer<float> small(64 + seed % 3), large(100'000 + seed % 5);
  {
    const std::lock_guard<std::mutex> lock(gradients_lock());
  }
  for (int owner = 0; owner < 40; ++owner) {
    const std::lock_guard<std::mutex> lock(weights_lock(small.get() + 64 * owner));
    const Buffer<float> inside(64);  // as when packed weights are given back
  }
  run_parallel(2, 1'000'000, [](int) {});
}

bool ends_soon(pid_t child) {
  for (int i = 0; i < 20'000; ++i) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) && WEXITSTATUS(status) == 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return false;
}

UNIT_TEST(a_child_finds_every_lock_open) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([&stop, k] {
      for (int seed = k; !stop; ++seed) use_everything(seed);
    });
  for (int k = 0; k < 100; ++k) {
    const pid_t child = fork();
    if (child == 0) {
      for (int seed = 0; seed < 5; ++seed) use_everything(seed);
      _exit(0);
    }
    CHECK(ends_soon(child));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace fusedrnn
