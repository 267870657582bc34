// Where threads meet (cpu/threads/region.h), and the pool that starts them.
#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/threads/flush_subnormals.h"
#include "cpu/threads/region.h"
#include "cpu/threads/thread_pool.h"

namespace fusedrnn {
namespace {

void on_threads(int size, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

// After each meeting everybody sees what everybody wrote before it; the values are plain, so the barrier alone orders
// them.
UNIT_TEST(nobody_leaves_a_barrier_before_all_have_come) {
  for (int size : {1, 2, 3, 5, 8}) {
    Barrier barrier(size);
    const std::atomic<bool> stop{false};
    std::vector<int> round(static_cast<size_t>(size), 0);
    std::atomic<int> wrong{0};
    on_threads(size, [&](int rank) {
      for (int i = 1; i <= 200; ++i) {
        round[static_cast<size_t>(rank)] = i;
        barrier.wait(rank, stop);
        wrong += std::accumulate(round.begin(), round.end(), 0) != i * size;
        barrier.wait(rank, stop);
      }
    });
    CHECK(wrong == 0);
  }
}

UNIT_TEST(those_who_wait_are_let_go_when_the_call_is_stopped) {
  for (int size : {2, 3, 6}) {
    Region region(size, size, [] { return true; });
    std::atomic<int> left{0};
    on_threads(size, [&](int rank) {
      if (rank == 0) {  // never comes, and polls until it has asked
        while (region.poll(0)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      } else {
        CHECK(!region.meet_in_loop(rank));
      }
      ++left;
    });
    CHECK(left == size && region.stopped());
  }
}

// The calling thread has done its part and waits for others, who take long: it asks meanwhile, and all leave.
UNIT_TEST(who_waits_for_the_others_still_asks) {
  for (const bool at_the_end : {false, true}) {
    std::atomic<bool> interrupted{false};
    Region region(2, 2, [&] { return interrupted.load(); });
    const auto begin = std::chrono::steady_clock::now();
    CHECK(run_parallel(
        2, 10'000'000'000,
        [&](int rank) {
          if (rank == 0) {
            if (!at_the_end) CHECK(!region.meet_all(0));
            return;
          }
          std::this_thread::sleep_for(std::chrono::milliseconds(50));
          interrupted = true;
          while (region.poll(1)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        },
        [&] { return region.poll(0); }));
    CHECK(region.stopped());
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
  }
}

UNIT_TEST(a_call_that_nobody_stops_goes_on) {
  Region region(2, 1, [] { return false; });
  on_threads(2, [&](int rank) {
    if (rank == 0) CHECK(region.meet_in_loop(0));  // the other one has no part in the loop
    CHECK(region.meet_all(rank));
    CHECK(region.poll(rank));
  });
  CHECK(!region.stopped());
}

UNIT_TEST(progress_is_waited_for) {
  Progress progress;
  std::vector<int> values(100, 0);
  std::atomic<int> wrong{0};
  on_threads(2, [&](int rank) {
    for (int i = 0; i < 100; ++i) {
      if (rank == 0) {
        values[static_cast<size_t>(i)] = i + 1;
        progress.advance_to(i + 1);
      } else {
        progress.await(i + 1);
        wrong += values[static_cast<size_t>(i)] != i + 1;
      }
    }
  });
  CHECK(wrong == 0);
}

UNIT_TEST(the_pool_runs_every_rank_once_or_nothing) {
  constexpr int64_t patience_ns = 10'000'000'000;
  for (int size : {1, 2, 4}) {
    for (int call = 0; call < 50; ++call) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(size));
      const bool ran = run_parallel(size, patience_ns, [&](int rank) { ++runs[static_cast<size_t>(rank)]; });
      for (const auto& count : runs) CHECK(count == (ran ? 1 : 0));
      CHECK(ran);
    }
  }
  CHECK(run_parallel(2, patience_ns, [&](int rank) {  // the pool is taken
    if (rank == 0) CHECK(!run_parallel(2, patience_ns, [](int) { CHECK(false); }));
  }));
}

UNIT_TEST(subnormals_are_zero_for_a_while) {
  volatile float small = 1e-38f, tenth = 0.01f;
  const float kept = small * tenth;
  {
    const FlushSubnormals flush;
    CHECK(small * tenth == 0);
  }
  CHECK(kept > 0 && small * tenth == kept);
}

}  // namespace
}  // namespace fusedrnn
