#include "cpu/threads/openmp.h"

#include <atomic>
#include <cstdint>

#include "cpu/threads/flush_subnormals.h"
#include "cpu/threads/waiting.h"
#include "system/system.h"

namespace fusedrnn {
namespace {

struct Job {
  const std::function<void(int)>* body;
  const std::function<bool()>* ask;
  int size;
  std::atomic<int> pending = size - 1;
  const uint64_t process = process_number();
  std::atomic<bool> ran{false};
};

// What the entries of an OpenMP library look like: GNU's, or LLVM's and Intel's, which have GNU's on some systems only.
// All are of one library: a process may have loaded several, and each knows its own teams alone.
struct Library {
  int (*thread_number)() = nullptr;
  int (*team_size)() = nullptr;
  void (*parallel)(void (*)(void*), void*, unsigned threads, unsigned flags) = nullptr;  // GOMP_parallel
  int32_t (*global_thread)(void*) = nullptr;                                             // __kmpc_...
  void (*push_threads)(void*, int32_t thread, int32_t threads) = nullptr;
  void (*fork_call)(void*, int32_t count, void (*)(int32_t*, int32_t*, ...), ...) = nullptr;

  Library() : handle_(loaded_openmp("omp_get_thread_num")) {
    if (!handle_) return;
    find(thread_number, "omp_get_thread_num");
    find(team_size, "omp_get_num_threads");
    find(parallel, "GOMP_parallel");
    find(global_thread, "__kmpc_global_thread_num");
    find(push_threads, "__kmpc_push_num_threads");
    find(fork_call, "__kmpc_fork_call");
  }
  bool is_llvm() const { return global_thread && push_threads && fork_call; }
  bool usable() const { return thread_number && team_size && (parallel || is_llvm()); }

 private:
  void* handle_;
  template <class F> void find(F& function, const char* name) {
    function = reinterpret_cast<F>(function_of(handle_, name));
  }
};

// The first that is found stays; none is looked for again, because it may be loaded later.
const Library* library() {
  static std::atomic<const Library*> found{nullptr};
  if (const Library* known = found.load(std::memory_order_acquire)) return known;
  const Library now;
  if (!now.usable()) return nullptr;
  const Library* fresh = new Library(now);  // never destroyed: its threads outlive static destruction
  const Library* none = nullptr;
  if (found.compare_exchange_strong(none, fresh)) return fresh;
  delete fresh;
  return none;
}

std::atomic<bool> forked{false};

void work(void* data) {
  Job& job = *static_cast<Job*>(data);
  const Library& openmp = *library();
  if (openmp.team_size() != job.size) return;
  const int rank = openmp.thread_number();
  if (rank == 0) job.ran = true;
  const FlushSubnormals flush;
  (*job.body)(rank);
  if (rank == 0)
    await_all(job.pending, job.process, *job.ask);  // the library would not ask at the end of the team
  else if (job.pending.fetch_sub(1) == 1)
    job.pending.notify_all();
}

void work_of_kmp(int32_t*, int32_t*, void* data) { work(data); }

}  // namespace

bool openmp_is_loaded() {
  static const bool watched = [] {
    at_fork(nullptr, nullptr, [] { forked = true; });
    return true;
  }();
  return watched && !forked.load(std::memory_order_relaxed) && library();
}

bool run_openmp(int size, const std::function<void(int)>& body, const std::function<bool()>& ask) {
  const Library& openmp = *library();
  Job job{&body, &ask, size};
  if (!openmp.is_llvm()) {
    openmp.parallel(work, &job, static_cast<unsigned>(size), 0);
    return job.ran;
  }
  // The struct that a compiler makes of a place in the source (ident_t).
  static char place[] = ";unknown;unknown;0;0;;";
  static struct {
    int32_t reserved1, flags, reserved2, reserved3;
    const char* source;
  } where{0, 2, 0, 0, place};
  openmp.push_threads(&where, openmp.global_thread(&where), size);
  openmp.fork_call(&where, 1, reinterpret_cast<void (*)(int32_t*, int32_t*, ...)>(work_of_kmp), &job);
  return job.ran;
}

}  // namespace fusedrnn
