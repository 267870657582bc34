#include "core/plan.h"

#include <algorithm>

namespace fusedrnn {

int worthwhile_threads(int64_t multiply_adds, int available) {
  constexpr int64_t worth_waking_a_thread = 200'000;  // multiply-adds: ~5 us on one AVX-512 core
  return static_cast<int>(std::min<int64_t>(available, 1 + multiply_adds / worth_waking_a_thread));
}

Plan make_plan(const Problem& p, int64_t rows, int lanes, int item, const Machine& machine, Pass pass) {
  const int64_t multiply_adds = rows * p.layout.gates * p.hidden_size * (p.layer_input(0) + p.hidden_size) * p.slabs();
  const int threads = worthwhile_threads(multiply_adds, machine.threads);
  if (threads <= 1) return {};

  const int64_t units = (p.hidden_size + lanes - 1) / lanes;
  const int64_t recurrent_bytes = p.layout.gates * p.hidden_size * p.hidden_size * item;
  const bool weights_fit = recurrent_bytes <= machine.private_cache * 3 / 4;
  constexpr int64_t full_tile_rows = 4;  // fewer rows leave a thread waiting for its weights
  const int64_t samples_each = p.B / threads;

  if (samples_each >= full_tile_rows && weights_fit) return {Scheme::by_sample, threads, threads};
  if (p.num_directions == 2 && threads <= 3) return {Scheme::by_direction, 2, threads};
  constexpr int64_t meeting_pays = 40'000;  // multiply-adds a step and thread: several times a barrier
  const int64_t step = p.layout.gates * p.hidden_size * p.hidden_size * std::max<int64_t>(p.B, 1) / threads;
  constexpr int64_t long_enough = 32;  // steps, so that filling and emptying the row of layers takes little of it
  const bool layers = p.num_layers > 1 && p.num_directions == 1 && p.T >= long_enough;
  const Plan by_layer{Scheme::by_layer, static_cast<int>(std::min<int64_t>(p.num_layers, threads)), threads};
  if (pass == Pass::forward && layers && weights_fit && p.num_layers >= threads) return by_layer;
  if (units >= 2 * threads && step >= meeting_pays) return {Scheme::by_unit, threads, threads};
  if (layers) return pass == Pass::forward ? by_layer : Plan{Scheme::single, 1, threads};
  if (samples_each >= 1) return {Scheme::by_sample, threads, threads};
  return {};
}

std::string Plan::describe() const {
  static const char* const names[] = {"single", "by_sample", "by_direction", "by_unit", "by_layer"};
  return std::string(names[static_cast<int>(scheme)]) + " x" + std::to_string(threads);
}

}  // namespace fusedrnn
