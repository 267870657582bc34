// The threads of the OpenMP library that the process has loaded already, where another library works with them: they
// spin for a while after each of its operations, and two pools would take the processors from each other. Nothing is
// linked; its public entry is looked up by name.
#pragma once
#include <functional>

namespace fusedrnn {

// Whether there is such a library (GNU's, LLVM's or Intel's) and it may be used: not in a child that was forked, where
// its threads are missing and it does not know.
bool openmp_is_loaded();

// Runs body(rank) for rank in [0, size) on a team of it and waits, asking; rank 0 is the caller. False, and nothing was
// run, if the team is smaller: OMP_THREAD_LIMIT, OMP_DYNAMIC, or a call from inside another team.
bool run_openmp(int size, const std::function<void(int rank)>& body, const std::function<bool()>& ask);

}  // namespace fusedrnn
