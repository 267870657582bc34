#include "core/plan.h"

#include <algorithm>
#include <cmath>

namespace fusedrnn {

namespace {

constexpr int64_t per_ns = 60;  // multiply-adds, float32, on one AVX-512 core of a Zen 4; small calls reach 40
constexpr int int8_gain = 4;    // as many of 8 bits in the same time

}  // namespace

int worthwhile_threads(int64_t multiply_adds, int available) {
  constexpr int64_t worth_waking_a_thread = 200'000;  // multiply-adds: 2 to 5 us
  return static_cast<int>(std::min<int64_t>(available, 1 + multiply_adds / worth_waking_a_thread));
}

int64_t patience_for(int64_t multiply_adds) {
  constexpr int64_t small_call_per_ns = per_ns * 2 / 3;
  return multiply_adds / small_call_per_ns / 10;
}

namespace {

// What a step of all layers takes the slowest thread, counted in multiply-adds. Rough, but
// enough to rank the schemes.
class Estimate {
 public:
  Estimate(const Problem& p, int lanes, int item, const Machine& machine)
      : p_(p), lanes_(lanes), item_(item), cache_(machine.private_cache * 3 / 4) {}

  int64_t blocks() const { return (p_.hidden_size + lanes_ - 1) / lanes_; }

  // One thread's part of one direction of each of `layers` layers: `rows` samples, `blocks` vectors of units.
  double layers(int64_t layers, int64_t rows, int64_t blocks) const {
    constexpr double gate_function = 25;  // of one unit
    const double H = static_cast<double>(p_.hidden_size), r = static_cast<double>(rows);
    const double inputs = static_cast<double>(p_.layer_input(0) + (p_.num_layers - 1) * p_.layer_input(1)) /
                          static_cast<double>(p_.num_layers);
    const double gates = static_cast<double>(blocks * lanes_ * p_.layout.gates);
    // One or two rows wait for the weights, more so where those come from far away at every step. And fewer than eight
    // sums side by side wait for the latency of the multiply-add, however few they are.
    const bool near = gates * H * item_ <= static_cast<double>(cache_);
    const double arrival = near ? std::max(r, 2.0) : std::max(r, 4.0) + 0.4;
    const double waiting = std::max(arrival, 8 / static_cast<double>(blocks * p_.layout.gates));
    const double products =
        p_.int8_planes ? (H * waiting + inputs * r * p_.int8_planes) / int8_gain : H * waiting + inputs * r;
    return static_cast<double>(layers) * gates * (products + gate_function * r);
  }

  // The threads meet, and read of each other what they have computed: h of every sample. On a Zen 5 this takes 100 to
  // 150 ns of a small step, in which a core makes 100 multiply-adds a ns.
  double meeting(int threads) const {
    constexpr double exchange = 12'000, value = 5;  // a round of the barrier with the first lines of h; each value of h
    return exchange * std::ceil(std::log2(threads)) + value * static_cast<double>(p_.B * p_.hidden_size);
  }

 private:
  const Problem& p_;
  const int64_t lanes_, item_, cache_;
};

}  // namespace

Plan make_plan(const Problem& p, int64_t rows, int lanes, int item, const Machine& machine, Pass pass) {
  const int64_t multiply_adds = rows * p.layout.gates * p.hidden_size * (p.layer_input(0) + p.hidden_size) * p.slabs() /
                                (p.int8_planes ? int8_gain / p.int8_planes : 1);
  const int threads = worthwhile_threads(multiply_adds, machine.threads);
  if (threads <= 1) return {};

  const Estimate estimate(p, lanes, item, machine);
  const int64_t units = estimate.blocks(), layers = p.num_layers, slabs = p.slabs();
  const auto at_most = [&](int64_t parts) { return static_cast<int>(std::min<int64_t>(threads, parts)); };
  const int64_t patience_ns = patience_for(multiply_adds);
  Plan best{Scheme::single, 1, threads, patience_ns};
  // Another thread has to save more than what the estimate may be wrong by.
  double least = 0.8 * estimate.layers(slabs, p.B, units);
  const auto consider = [&](Scheme scheme, int size, double cost) {
    if (size < 2 || cost >= least) return;
    best = {scheme, size, threads, patience_ns};
    least = cost;
  };
  const auto share = [](int64_t n, int parts) { return (n + parts - 1) / std::max(parts, 1); };

  const int by_sample = at_most(p.B);
  consider(Scheme::by_sample, by_sample, estimate.layers(slabs, share(p.B, by_sample), units));
  if (p.num_directions == 2) consider(Scheme::by_direction, 2, estimate.layers(layers, p.B, units));
  // Back through time, a layer needs the whole gradient of the one above. A long sequence, so that filling and emptying
  // the row of layers takes little of it; following closely takes smaller pieces of the input.
  if (pass == Pass::forward && p.num_directions == 1 && p.T >= 32) {
    const int by_layer = at_most(layers);
    consider(Scheme::by_layer, by_layer, 1.15 * estimate.layers(share(layers, by_layer), p.B, units));
  }
  // To normalise a row takes all of its units.
  for (int size = 2; !p.options.layer_norm && size <= at_most(units / 2); ++size)
    consider(Scheme::by_unit, size,
             estimate.layers(slabs, p.B, share(units, size)) + static_cast<double>(slabs) * estimate.meeting(size));
  return best;
}

std::string Plan::describe() const {
  static const char* const names[] = {"single", "by_sample", "by_direction", "by_unit", "by_layer"};
  return std::string(names[static_cast<int>(scheme)]) + " x" + std::to_string(threads);
}

}  // namespace fusedrnn
