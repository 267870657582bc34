// How a call is split over threads. Every split gives the same bits; the plan is about speed alone.
#pragma once
#include <string>

#include "core/problem.h"

namespace fusedrnn {

enum class Scheme {
  single,        // one thread
  by_sample,     // each thread has samples of its own through all layers: no meeting between steps
  by_direction,  // each thread runs one direction of a layer; they meet between layers
  by_unit,       // each thread has hidden units of its own; they meet after every step
  by_layer,      // each thread has layers of its own and follows the one below at a distance of a few steps
};

struct Plan {
  Scheme scheme = Scheme::single;
  int threads = 1;           // of the time loops
  int gradient_threads = 1;  // of the products after the time loops of backward, which split at any place
  int64_t patience_ns = 0;   // how long the call waits for threads that sleep before it goes on alone
  std::string describe() const;
};

struct Machine {
  int threads;            // that may be used
  int64_t private_cache;  // bytes of second-level cache per core
};

// How many of the machine's threads this much work is worth waking.
int worthwhile_threads(int64_t multiply_adds, int available);

// A tenth of what this work takes one thread: what a call may lose by waiting in vain.
int64_t patience_for(int64_t multiply_adds);

enum class Pass { forward, backward };

// rows: steps that are really computed, over all samples. lanes, item: vector lanes and bytes of an element.
Plan make_plan(const Problem& problem, int64_t rows, int lanes, int item, const Machine& machine,
               Pass pass = Pass::forward);

}  // namespace fusedrnn
