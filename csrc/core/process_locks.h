// The locks of the library that outlive a call, and what a forked child finds of them. Only the thread that forks lives
// on in the child: a lock that another one holds at that moment would stay locked there for ever. So a fork takes all
// of them, in this order, and both processes go on with open ones. Nobody may fork while holding one.
//
// What else a fork meets, and where that is seen to:
// - The pool of workers, who do not live on: the child gets a new one (cpu/threads/thread_pool.cpp).
// - Statics that are made when they are first used, one thread waiting for the other: made by the import of the module
//   (bind/module.cpp).
// - Regions and barriers belong to a call, which does not go on in the child, but for one of the thread that forks: it
//   asked Python, and a signal handler forked. That call ends with an error there (cpu/threads/region.h). A tape or
//   stream that was in use stays so there and is refused (bind/exclusive_use.h).
// - Python's lock around gradients: made anew in the child (arrays/accumulation.py).
// - CUDA: a child of a process that has used it cannot.
#pragma once
#include <mutex>

namespace fusedrnn {

// Held while a backward adds to the caller's gradients: two threads may use one layer, and gradients are added up.
std::mutex& gradients_lock();

// The lock of what this object keeps for its next call: packed weights, the order of the rows. Several objects share a
// lock; it is held for a moment only.
std::mutex& weights_lock(const void* owner);

// The lock of the store of memory (core/memory.h); taken last, also by those who hold another one.
std::mutex& memory_lock();

}  // namespace fusedrnn
