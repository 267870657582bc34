// What the threads of one call share: places where they meet, and a way to stop early.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/threads/interrupt.h"
#include "system/system.h"

namespace fusedrnn {

// A place where threads meet: nobody goes on before everybody has come.
class Barrier {
 public:
  explicit Barrier(int size);
  // `ask`, if there is one, is called now and then while the thread waits.
  void wait(int rank, const std::atomic<bool>& stop, const std::function<bool()>& ask = {});
  void release();  // after stop was set: wakes those who sleep

 private:
  // A cache line each, with one thread that writes it and one that waits for it.
  struct alignas(64) Flag {
    std::atomic<int> phase{0};
  };
  struct Member {
    int phase = 0;   // times it was here
    int spins;       // before it sleeps
    Flag heard[10];  // by round: 2^10 threads
  };

  const int size_;
  std::vector<Member> members_;
};

// What the threads of one parallel region share: two barriers, and a way to stop early.
class Region {
 public:
  // The first `loop_threads` of `size` threads run the time loops. The interrupt is asked now and then.
  Region(int size, int loop_threads, Interrupt interrupted)
      : all_(size), in_loop_(loop_threads), inquiry_(std::move(interrupted)), ask_([this] { return poll(0); }) {}
  bool meet_all(int rank) { return meet(all_, rank, true); }           // false: stop
  bool meet_in_loop(int rank) { return meet(in_loop_, rank, false); }  // the same; nobody is late by more than a step
  bool poll(int rank);                                                 // the same without waiting
  bool stopped() const { return stop_.load(std::memory_order_acquire); }
  // From here on nobody is asked: what follows is done as a whole, or holds a lock, which whoever is asked may want.
  // For rank 0.
  void finish() { asks_ = false; }
  // Whether it was the answer that stopped it. False for a child that whoever was asked has forked: it goes on with the
  // calling thread alone, and cannot end what several began.
  bool interrupted() const { return interrupted_; }

 private:
  Barrier all_, in_loop_;
  Inquiry inquiry_;
  const std::function<bool()> ask_;
  const uint64_t process_ = process_number();
  bool asks_ = true, interrupted_ = false;  // of rank 0
  alignas(64) std::atomic<bool> stop_{false};

  bool meet(Barrier& barrier, int rank, bool asks) {
    if (asks && rank == 0)
      barrier.wait(rank, stop_, ask_);
    else
      barrier.wait(rank, stop_);
    return !stopped();
  }
};

// How far a thread has come, for one that follows it.
class Progress {
 public:
  void advance_to(int64_t steps);
  void await(int64_t steps);  // returns once there are that many

 private:
  alignas(64) std::atomic<int64_t> steps_{0};
};

}  // namespace fusedrnn
