// What several threads do at once with one layer, for the thread sanitizer, which does not work inside Python: forward
// and backward of calls of their own that share weights and their cache, by every plan, and interrupted now and then.
//
//   cmake -G Ninja -S . -B build/races -DFUSEDRNN_SANITIZE=thread -DFUSEDRNN_ISAS=x86-64-v2 -DFUSEDRNN_TESTS=ON
//   cmake --build build/races --target races unit_tests
//   TSAN_OPTIONS="halt_on_error=1 die_after_fork=0" build/races/races
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "core/error.h"
#include "cpu/isa.h"
#include "cpu/stack.h"
#include "cpu/threads/thread_pool.h"

namespace fusedrnn {
namespace {

std::atomic<int> wrong{0};
void expect(bool holds, const char* what) {
  if (!holds && ++wrong <= 20) std::printf("%s\n", what);
}

// A stack with random weights, which all threads share.
struct Layer {
  Problem p;
  std::vector<std::vector<float>> weights;
  std::vector<std::unique_ptr<WeightCache<float>>> caches;

  Layer(const char* cell, int64_t I, int64_t H, int64_t layers, int64_t directions)
      : p(problem_of(cell, I, H, layers, directions, false, true)) {
    unsigned state = 1;
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      const int64_t layer = slab / directions;
      caches.push_back(std::make_unique<WeightCache<float>>(p, layer));
      for (int which = 0; which < 4; ++which) {
        int64_t size = 1;
        for (int64_t n : p.weight_shape(layer, which)) size *= n;
        weights.emplace_back(static_cast<size_t>(size));
        for (float& w : weights.back())
          w = static_cast<float>((state = state * 1664525 + 1013904223) >> 8) * 1e-8f - 0.08f;
      }
    }
  }
  WeightArrays<float> arrays(int64_t slab) const {
    const auto* w = &weights[static_cast<size_t>(4 * slab)];
    return {w[0].data(), w[1].data(), w[2].data(), w[3].data()};
  }
};

// One training call: y, and what backward adds to its gradients.
struct Call {
  ForwardCall<float> forward;
  std::vector<std::vector<float>> y;
  std::vector<float> x, hn, cn, dx, dh0, dc0;
  std::vector<std::vector<float>> grads;

  Call(Layer& layer, int64_t T, int64_t B, const Interrupt& interrupt) {
    Problem& p = forward.problem;
    p = layer.p;
    p.batch_first = false;
    p.set_input({T, B, p.input_size});
    forward.rows = std::make_shared<RowOrder>(p, nullptr);
    x.assign(static_cast<size_t>(T * B * p.input_size), 0.5f);
    forward.x = {x.data(), B * p.input_size, p.input_size};
    const int64_t width = p.num_directions * p.hidden_size, state = B * p.hidden_size;
    for (int64_t l = 0; l < p.num_layers; ++l) {
      y.emplace_back(static_cast<size_t>(T * B * width));
      forward.y.push_back({y.back().data(), B * width, width});
    }
    for (auto* each : {&hn, &cn, &dh0, &dc0}) each->resize(static_cast<size_t>(p.slabs() * state));
    dx.resize(x.size());
    for (const auto& w : layer.weights) grads.emplace_back(w.size());
    forward.slabs.resize(static_cast<size_t>(p.slabs()));
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& to = forward.slabs[static_cast<size_t>(slab)];
      to.hn = {hn.data() + slab * state, p.hidden_size};
      to.cn = {cn.data() + slab * state, p.hidden_size};
      to.weights = layer.caches[static_cast<size_t>(slab)]->get(layer.arrays(slab), true, 0, interrupt);
    }
    keep_for_backward(forward);
    run_forward(forward, interrupt);
    BackwardCall<float> back{};
    back.dy = {y.back().data(), B * width, width};
    back.dx = {dx.data(), B * p.input_size, p.input_size};
    back.slabs.resize(forward.slabs.size());
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      auto& to = back.slabs[static_cast<size_t>(slab)];
      to.dh0 = {dh0.data() + slab * state, p.hidden_size};
      to.dc0 = {dc0.data() + slab * state, p.hidden_size};
      float** pointers[] = {&to.weight_ih, &to.weight_hh, &to.bias_ih, &to.bias_hh};
      for (int which = 0; which < 4; ++which) *pointers[which] = grads[static_cast<size_t>(4 * slab + which)].data();
    }
    run_backward(forward, back, interrupt);
  }
};

void share_a_layer(const char* cell, int64_t I, int64_t H, int64_t layers, int64_t directions, int64_t T, int64_t B) {
  const int before = wrong;
  Layer layer(cell, I, H, layers, directions);
  const Interrupt never = [] { return false; };
  set_num_threads(1);
  const Call expected(layer, T, B, never);
  set_num_threads(3);
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k)
    threads.emplace_back([&, k] {
      for (int i = 0; i < 4; ++i) {
        std::atomic<int> asked{0};
        try {
          const Call call(layer, T, B, [&] { return (k + i) % 4 == 3 && ++asked > 1; });
          expect(call.y == expected.y && call.grads == expected.grads && call.dx == expected.dx, "other bits");
        } catch (const Interrupted&) {
          expect((k + i) % 4 == 3, "an interrupt that nobody asked for");
        }
      }
    });
  for (std::thread& thread : threads) thread.join();
  std::printf("%s I=%d H=%d layers=%d directions=%d T=%d B=%d: %s\n", cell, int(I), int(H), int(layers),
              int(directions), int(T), int(B), wrong == before ? "passed" : "WRONG");
}

}  // namespace
}  // namespace fusedrnn

int main() {
  using namespace fusedrnn;
  wait_for_workers(true);
  share_a_layer("lstm", 5, 37, 1, 1, 12, 2);      // one thread, or by unit
  share_a_layer("gru", 8, 24, 2, 2, 9, 3);        // by direction
  share_a_layer("rnn_tanh", 6, 20, 3, 1, 40, 1);  // by layer
  share_a_layer("lstm", 16, 64, 2, 1, 10, 16);    // by sample
  share_a_layer("gru", 16, 200, 1, 1, 10, 2);     // by unit
  return wrong ? 1 : 0;
}
