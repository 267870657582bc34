#include "fiber.h"

#include <cstdlib>
#include <new>
#include <utility>

#if defined(EMULATOR_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "the emulated device changes stacks on x86-64 only"
#endif

// Keeps what a function must preserve on the stack in use, and goes on where another one was left.
extern "C" void emulator_change_stack(void** from, void* to);
asm(R"(
  .text
  .globl emulator_change_stack
  .type emulator_change_stack, @function
emulator_change_stack:
  pushq %r15
  pushq %r14
  pushq %r13
  pushq %r12
  pushq %rbx
  pushq %rbp
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %rbp
  popq %rbx
  popq %r12
  popq %r13
  popq %r14
  popq %r15
  ret
  .size emulator_change_stack, . - emulator_change_stack
)");

namespace emulator {
namespace {

constexpr size_t stack_bytes = 128 << 10;
constexpr int preserved = 6;  // registers

Fiber* running = nullptr;  // the device runs under one lock

char* allocate_stack() {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, stack_bytes) != 0) throw std::bad_alloc();
  return static_cast<char*>(memory);
}

}  // namespace

#if defined(EMULATOR_TSAN)
Context::Context() : handle_(__tsan_create_fiber(0)) {}
Context::~Context() { __tsan_destroy_fiber(handle_); }
#else
Context::Context() = default;
Context::~Context() = default;
#endif

Fiber::Fiber(void (*body)(void*), void* argument, std::shared_ptr<Context> context)
    : body_(body), argument_(argument), stack_(allocate_stack()), context_(std::move(context)) {
  void** top = reinterpret_cast<void**>(stack_ + stack_bytes) - 2;  // a function begins 8 bytes past a multiple of 16
  *top = reinterpret_cast<void*>(&start);
  for (int i = 0; i < preserved; ++i) *--top = nullptr;
  pointer_ = top;
}

Fiber::~Fiber() { std::free(stack_); }

void Fiber::start() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &running->outer_bottom_, &running->outer_size_);
#endif
  running->body_(running->argument_);
  std::abort();
}

void Fiber::enter() {
  outer_ = running;
  running = this;
#if defined(EMULATOR_TSAN)
  outer_context_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(context_->handle_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, stack_, stack_bytes);
#endif
  emulator_change_stack(&outer_pointer_, pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void Fiber::leave() {
  Fiber& fiber = *running;
  running = fiber.outer_;
#if defined(EMULATOR_TSAN)
  __tsan_switch_to_fiber(fiber.outer_context_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&fiber.fake_stack_, fiber.outer_bottom_, fiber.outer_size_);
#endif
  emulator_change_stack(&fiber.pointer_, fiber.outer_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack_, &fiber.outer_bottom_, &fiber.outer_size_);
#endif
}

#if defined(EMULATOR_TSAN)
void released(char& token) { __tsan_release(&token); }
void acquired(char& token) { __tsan_acquire(&token); }
#else
void released(char&) {}
void acquired(char&) {}
#endif

}  // namespace emulator
