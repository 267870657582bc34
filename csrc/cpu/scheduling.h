// What the operating system is asked and told about CPUs. Where it is not Linux, nothing is told.
#pragma once
#include <pthread.h>

namespace fusedrnn {

// Threads that this process may use: the caller's affinity mask and the cgroup's CPU quota.
int available_threads();

// The CPU that the caller runs on; -1: not known.
int this_cpu();

// Lets a thread run where the caller may, but not on `cpu`. Without effect if there is no other.
void keep_off(pthread_t thread, int cpu);

// Asks for the shortest time slices, which makes nobody's share larger or smaller: who is woken for a short while goes
// before a thread with a long slice. The workers of other libraries spin for many milliseconds after their last call.
// From Linux 6.12 on; earlier ones ignore it.
void take_short_slices();

}  // namespace fusedrnn
