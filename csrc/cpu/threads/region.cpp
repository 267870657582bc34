#include "cpu/threads/region.h"

#include "cpu/threads/waiting.h"

namespace fusedrnn {

Barrier::Barrier(int size) : size_(size), members_(static_cast<size_t>(size > 1 ? size : 0)) {
  for (Member& member : members_) member.spins = most_spins;
}

// Dissemination (Hensgen, Finkel & Manber 1988): in each round a thread tells the one 1, 2, 4 ... places on that it has
// come, and so whom it has heard of, and waits to be told the same. Two threads exchange one cache line each.
void Barrier::wait(int rank, const std::atomic<bool>& stop, const std::function<bool()>& ask) {
  if (size_ == 1) return;
  Member& member = members_[static_cast<size_t>(rank)];
  const int phase = ++member.phase;
  for (int round = 0, distance = 1; distance < size_; ++round, distance *= 2) {
    publish(members_[static_cast<size_t>((rank + distance) % size_)].heard[round].phase, phase);
    const std::atomic<int>& heard = member.heard[round].phase;
    // Who spins in vain may be holding the core that the other one needs: next time it waits less.
    for (int now; (now = heard.load(std::memory_order_acquire)) < phase && !stop.load(std::memory_order_acquire);)
      if (ask)
        wait_asking(heard, now, ask);
      else
        member.spins = wait_while_equal(heard, now, member.spins) ? member.spins / 8 : most_spins;
  }
}

void Barrier::release() {
  for (Member& member : members_)
    for (Flag& flag : member.heard) {
      flag.phase.fetch_add(1);
      flag.phase.notify_one();
    }
}

bool Region::poll(int rank) {
  if (rank != 0 || !asks_ || stopped()) return !stopped();
  interrupted_ = inquiry_.stop();
  if (interrupted_ || process_number() != process_) {
    stop_.store(true, std::memory_order_release);
    all_.release();
    in_loop_.release();
  }
  return !stopped();
}

void Progress::advance_to(int64_t steps) { publish(steps_, steps); }

void Progress::await(int64_t steps) {
  for (int64_t now; (now = steps_.load(std::memory_order_acquire)) < steps;) wait_while_equal(steps_, now);
}

}  // namespace fusedrnn
