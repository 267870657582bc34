// A child of a process whose other threads are inside the library finds every lock open (core/process_locks.h), and
// gets workers of its own.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "core/memory.h"
#include "core/process_locks.h"
#include "cpu/run_plan.h"
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

// Who is asked while a call runs forks: in the parent the call goes on, in the child it ends with an error, and the
// next one has workers of its own. At the barrier, and at the end, where the caller has nothing left to do but wait.
UNIT_TEST(a_child_that_is_forked_in_the_middle_of_a_call_gets_an_error) {
  for (const bool at_the_end : {false, true}) {
    pid_t child = -1;
    int done = 0;
    const auto call = [&] {
      run_plan(
          {Scheme::by_sample, 2, 2, 10'000'000'000}, 2,
          [&] {
            if (child < 0) child = fork();
            return false;
          },
          [&](Thread& thread, const Plan&) {
            if (thread.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(200));
            if (!at_the_end && !thread.region->meet_all(thread.rank)) return;
            if (thread.rank == 0) ++done;
          });
    };
    bool failed = false;
    try {
      call();
    } catch (const std::runtime_error&) {
      failed = true;
    }
    if (child == 0) {
      const bool right = failed && done == (at_the_end ? 1 : 0) && run_parallel(2, 10'000'000'000, [](int) {});
      _exit(right ? 0 : 1);
    }
    CHECK(!failed && done == 1);
    CHECK(child > 0 && ends_soon(child));
  }
}

}  // namespace
}  // namespace fusedrnn
