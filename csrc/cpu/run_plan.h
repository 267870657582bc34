// A plan put to work: what each thread of a call gets, and how they start and meet.
#pragma once
#include <stdexcept>

#include "core/error.h"
#include "core/plan.h"
#include "core/share.h"
#include "cpu/layers.h"
#include "cpu/threads/flush_subnormals.h"
#include "cpu/threads/region.h"
#include "cpu/threads/thread_pool.h"

namespace fusedrnn {

// One thread of a parallel region, and how far those have come that run the layers below and above.
struct Thread {
  Region* region;
  int rank, size;
  Progress *input = nullptr, *output = nullptr;
  static bool await_input(void* thread, int64_t steps) {
    const Thread* t = static_cast<Thread*>(thread);
    t->input->await(steps);
    return !t->region->stopped();
  }
  static void publish_output(void* thread, int64_t steps) { static_cast<Thread*>(thread)->output->advance_to(steps); }
  static bool barrier(void* thread) {
    const Thread* t = static_cast<Thread*>(thread);
    return t->region->meet_in_loop(t->rank);
  }
  static bool poll(void* thread) {
    const Thread* t = static_cast<Thread*>(thread);
    return t->region->poll(t->rank);
  }

  // Its share among `threads`, of all samples and units; the scheme narrows it.
  Share share(int threads, int64_t samples, int64_t units) {
    Share share{};
    share.rank = rank;
    share.size = threads;
    share.sample_end = samples;
    share.unit_end = units;
    share.context = this;
    share.barrier = barrier;
    share.poll = poll;
    return share;
  }
};

// Splits the sorted samples so that every thread gets about the same number of steps.
inline int64_t first_sample(const Ragged& ragged, int rank, int size) {
  const int64_t goal = ragged.first[ragged.steps] * rank / size;
  int64_t j = 0;
  for (int64_t sum = 0; j < ragged.batch && sum + ragged.length[j] / 2 < goal; ++j) sum += ragged.length[j];
  return rank == size ? ragged.batch : j;
}

// The time loops of one layer, as this thread's share of the plan.
template <class T, class Kernel>
bool run_layer(const Plan& plan, std::span<Sequence<T>> directions, int64_t units, Thread& thread, Kernel kernel) {
  if (thread.rank >= plan.threads) return true;
  const Ragged& ragged = *directions[0].ragged;
  Share share = thread.share(plan.threads, ragged.batch, units);
  if (plan.scheme == Scheme::by_sample) {
    share.sample_begin = first_sample(ragged, thread.rank, plan.threads);
    share.sample_end = first_sample(ragged, thread.rank + 1, plan.threads);
  } else if (plan.scheme == Scheme::by_unit) {
    share.unit_begin = units * thread.rank / plan.threads;
    share.unit_end = units * (thread.rank + 1) / plan.threads;
    share.shares_steps = true;
  } else if (plan.scheme == Scheme::by_direction) {
    share.rank = 0;
    share.size = 1;
    return kernel(directions[static_cast<size_t>(thread.rank)], share);
  }
  for (const Sequence<T>& direction : directions)
    if (!kernel(direction, share)) return false;
  return true;
}

// Runs body(thread, plan) on `size` threads, or on this one alone if those are not to be had.
template <class Body> void run_plan(Plan plan, int size, const Interrupt& interrupt, Body body) {
  const auto attempt = [&] {
    Region region(size, plan.threads, interrupt);
    const bool ran = run_parallel(
        size, plan.patience_ns,
        [&](int rank) {
          Thread thread{&region, rank, size};
          body(thread, plan);
        },
        [&] { return region.poll(0); });
    if (ran && region.stopped() && !region.interrupted())
      throw std::runtime_error(
          "fusedrnn: a signal handler forked in the middle of this call, whose threads the child does not have; "
          "expected a child that ends, or begins anew, in the handler");
    if (ran && region.stopped()) throw Interrupted();
    return ran;
  };
  const FlushSubnormals flush;
  if (!attempt()) {
    plan = {};
    size = 1;
    attempt();
  }
}

}  // namespace fusedrnn
