// A stack of its own that the running thread of the host changes to and comes back from.
#pragma once
#include <cstddef>
#include <memory>

namespace emulator {

#if defined(__SANITIZE_THREAD__) || defined(EMULATOR_TSAN)
constexpr bool finds_races = true;
#else
constexpr bool finds_races = false;
#endif

// What the thread sanitizer takes for a thread: nothing orders what two of them do but `released` and `acquired`.
class Context {
 public:
  Context();
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

 private:
  friend class Fiber;
  void* handle_ = nullptr;
};

class Fiber {
 public:
  Fiber(void (*body)(void*), void* argument, std::shared_ptr<Context> context);  // the body never returns
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void enter();         // goes on in the fiber, until that leaves
  static void leave();  // from the running fiber back to who has entered it

 private:
  static void start();

  void (*const body_)(void*);
  void* const argument_;
  char* const stack_;
  void *pointer_, *outer_pointer_ = nullptr;
  Fiber* outer_ = nullptr;
  // Of the sanitizers.
  const std::shared_ptr<Context> context_;
  void *outer_context_ = nullptr, *fake_stack_ = nullptr;
  const void* outer_bottom_ = nullptr;
  size_t outer_size_ = 0;
};

// What was done before `released` is visible after `acquired` of the same token.
void released(char& token);
void acquired(char& token);

}  // namespace emulator
