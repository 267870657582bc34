// Random calls of the engines on the emulated device, compared with those of the host twin to the bit:
// cases CASES [SEED] [SIZE]. A larger SIZE (1 by default, at most 3) takes longer sequences and more units.
// CASES_DTYPE and CASES_PATH (0 stepwise, 1 fused, 2 resident) keep to one of either.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>

#include "cuda/engine/check.h"
#include "cuda/stack.h"
#include "cuda/status.h"
#include "emulator.h"

using namespace fusedrnn;
using namespace fusedrnn::cuda;

namespace {

std::mt19937_64 dice;
int64_t between(int64_t low, int64_t high) { return low + static_cast<int64_t>(dice() % uint64_t(high - low + 1)); }
bool chance(int percent) { return between(1, 100) <= percent; }
template <class X> X one_of(std::initializer_list<X> list) {
  return list.begin()[between(0, static_cast<int64_t>(list.size()) - 1)];
}

// Elements of some dtype.
struct Array {
  std::string name;
  std::vector<char> bytes;
  void* at(int64_t byte = 0) { return bytes.data() + byte; }
};

struct Kind {
  std::string dtype;
  int64_t item;

  Array array(const char* name, int64_t n) const {
    return {name, std::vector<char>(static_cast<size_t>(n * item), char(0xFF))};
  }
  Array random(const char* name, int64_t n, float scale) const {
    Array result = array(name, n);
    std::normal_distribution<float> normal(0, scale);
    for (int64_t i = 0; i < n; ++i) put(result, i, normal(dice));
    return result;
  }

 private:
  template <class E> static void store(Array& to, int64_t i, float value) {
    const E element = static_cast<E>(value);
    std::memcpy(to.at(i * int64_t(sizeof(E))), &element, sizeof element);
  }
  void put(Array& to, int64_t i, float value) const {
    if (dtype == "float64") return store<double>(to, i, value);
    if (dtype == "float32") return store<float>(to, i, value);
    if (dtype == "float16") return store<__half>(to, i, value);
    store<__nv_bfloat16>(to, i, value);
  }
};

// All that a call writes. It has to live until the device is done, even if the call fails.
using Outputs = std::deque<Array>;

// What a call reads.
struct Inputs {
  Array x;
  int64_t x_row;  // elements from row to row
  std::vector<Array> states, cotangents, gradients;
  bool has_dy, wants_dx, twice;
};

struct Case {
  Problem p;
  Kind kind;
  std::vector<Array> weights;
  std::shared_ptr<const RowOrder> rows;
  bool training;
  int64_t chunk_bytes;
  Path most;

  explicit Case(int size);
  Inputs inputs() const;
  void run(const Engine& engine, Inputs& in, void* forward_stream, void* backward_stream, Outputs& out);

 private:
  int64_t state_size() const { return p.slabs() * p.B * p.hidden_size; }
  int64_t width() const { return p.num_directions * p.hidden_size; }
  template <class P> TimeMajorView<P> sequence(Array& a, int64_t row) const {
    return p.batch_first ? TimeMajorView<P>{a.at(), row, p.T * row} : TimeMajorView<P>{a.at(), p.B * row, row};
  }
  template <class P> std::vector<StateView<P>> states(Array* a) const {
    std::vector<StateView<P>> views;
    for (int64_t slab = 0; slab < p.slabs(); ++slab)
      views.push_back({a ? a->at(slab * p.B * p.hidden_size * kind.item) : nullptr, p.hidden_size});
    return views;
  }
  template <class F> void each_weight(F f) const {
    const int64_t rows_of = p.layout.gates * p.hidden_size;
    for (int64_t slab = 0; slab < p.slabs(); ++slab) {
      const int64_t I = p.layer_input(slab / p.num_directions);
      f("W_ih", rows_of * I, 0.5f / std::sqrt(static_cast<float>(I)));
      f("W_hh", rows_of * p.hidden_size, 0.5f / std::sqrt(static_cast<float>(p.hidden_size)));
      if (!p.bias) continue;
      f("b_ih", rows_of, 0.3f);
      f("b_hh", rows_of, 0.3f);
    }
  }
  template <class Pointers, class Arrays> std::vector<Pointers> by_slab(Arrays& arrays, size_t first = 0) const {
    std::vector<Pointers> pointers;
    for (size_t i = first; i < arrays.size(); i += p.bias ? 4 : 2)
      pointers.push_back({arrays[i].at(), arrays[i + 1].at(), p.bias ? arrays[i + 2].at() : nullptr,
                          p.bias ? arrays[i + 3].at() : nullptr});
    return pointers;
  }
};

Case::Case(int size) {
  const char* dtype = std::getenv("CASES_DTYPE");
  const char* path = std::getenv("CASES_PATH");
  kind.dtype = dtype ? dtype : one_of({"float32", "float64", "bfloat16", "float16"});
  kind.item = kind.dtype == "float64" ? 8 : kind.dtype == "float32" ? 4 : 2;
  const std::string cell = one_of({"lstm", "gru", "rnn_tanh", "rnn_relu"});
  const int64_t H = size == 1   ? one_of({1, 3, 4, 7, 12, 20, 33})
                    : size == 2 ? one_of({40, 64, 65, 70, 100, 128, 130})
                                : between(90, 370);
  const int64_t layers = between(1, size == 3 ? 2 : 3), directions = between(1, 2);
  const bool reverse = directions == 1 && chance(50);
  p = problem_of(cell, between(1, 9), H, layers, directions, reverse, chance(80));
  p.batch_first = chance(50);
  const int64_t T = chance(5) ? 0
                              : between(1, size == 1   ? 40
                                           : size == 2 ? 12
                                                       : 5),
                B = chance(5) ? 0 : between(1, size == 1 ? 9 : 19);
  p.set_extent(T, B);
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < B; ++b) lengths.push_back(between(0, T));
  rows = std::make_shared<RowOrder>(p, chance(50) ? &lengths : nullptr);
  training = chance(75);
  // The default, or a few steps.
  chunk_bytes = chance(50) ? 0 : B * p.layout.gates * H * std::max<int64_t>(kind.item, 4) * between(1, 7);
  most = path ? static_cast<Path>(std::atoi(path)) : one_of({Path::stepwise, Path::fused, Path::resident});
  each_weight([&](const char* name, int64_t n, float scale) { weights.push_back(kind.random(name, n, scale)); });
}

Inputs Case::inputs() const {
  Inputs in{};
  in.x_row = p.input_size + (chance(30) ? between(1, 3) : 0);
  in.x = kind.random("x", p.T * p.B * in.x_row, 1);
  const bool given = chance(75);
  for (const char* name : {"h0", "c0"}) in.states.push_back(kind.random(name, given ? state_size() : 0, 0.5f));
  in.has_dy = chance(80);
  in.cotangents.push_back(kind.random("dy", p.T * p.B * width(), 1));
  const bool of_states = chance(75);
  for (const char* name : {"dh", "dc"}) in.cotangents.push_back(kind.random(name, of_states ? state_size() : 0, 1));
  each_weight([&](const char* name, int64_t n, float) { in.gradients.push_back(kind.random(name, n, 0.1f)); });
  in.wants_dx = chance(75);
  in.twice = chance(25);
  return in;
}

void Case::run(const Engine& engine, Inputs& in, void* forward_stream, void* backward_stream, Outputs& out) {
  const auto given = [](Array& a) { return a.bytes.empty() ? nullptr : &a; };
  const auto make = [&](const char* name, int64_t n) -> Array& { return out.emplace_back(kind.array(name, n)); };
  const auto make_states = [&](const char* name, bool wanted) {
    return states<void>(wanted ? &make(name, state_size()) : nullptr);
  };
  const bool has_c = p.layout.has_cell_state;
  ForwardCall call{};
  call.problem = p;
  call.rows = rows;
  call.weights = by_slab<Weights>(weights);
  call.x = sequence<const void>(in.x, in.x_row);
  call.y = sequence<void>(make("y", p.T * p.B * width()), width());
  call.h0 = states<const void>(given(in.states[0]));
  call.c0 = states<const void>(given(in.states[1]));
  call.hn = make_states("h", true);
  call.cn = make_states("c", has_c);
  Place place{0, forward_stream, false, chunk_bytes, most};
  const auto tape = engine.forward(call, place, training);
  place.stream = backward_stream;
  for (int round = 0; training && round < (in.twice ? 2 : 1); ++round) {
    BackwardCall back{};
    if (in.has_dy) back.dy = sequence<const void>(in.cotangents[0], width());
    back.dhn = states<const void>(given(in.cotangents[1]));
    back.dcn = states<const void>(given(in.cotangents[2]));
    if (in.wants_dx) back.dx = sequence<void>(make("dx", p.T * p.B * p.input_size), p.input_size);
    back.dh0 = make_states("dh0", true);
    back.dc0 = make_states("dc0", has_c);
    const size_t first = out.size();
    out.insert(out.end(), in.gradients.begin(), in.gradients.end());
    back.gradients = by_slab<WeightGradients>(out, first);
    engine.backward(*tape, back, place);
  }
}

std::string described(const Case& c) {
  const Problem& p = c.p;
  char text[300];
  std::snprintf(text, sizeof text, "%s %s T %ld B %ld I %ld H %ld layers %ld directions %ld%s%s%s%s", p.op.c_str(),
                c.kind.dtype.c_str(), long(p.T), long(p.B), long(p.input_size), long(p.hidden_size), long(p.num_layers),
                long(p.num_directions), p.reverse ? " reverse" : "", p.batch_first ? " batch_first" : "",
                c.rows->full() ? "" : " ragged", c.training ? " training" : "");
  return text;
}

// Returns the number of arrays that differ.
int differences(const Case& c, const Outputs& got, const Outputs& expected, int64_t& compared) {
  int bad = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    compared += static_cast<int64_t>(got[i].bytes.size()) / c.kind.item;
    if (got[i].bytes == expected[i].bytes) continue;
    if (!bad++) std::printf("%s differs: %s\n", got[i].name.c_str(), described(c).c_str());
  }
  return bad;
}

// Returns the number of errors after which a message fails to say what is lost, or says so wrongly.
int lost_errors() {
  int bad = 0;
  for (const int status : {214, 220, 226, 700, 719, 810, 911, 1, 2, 101, 600, 900}) {
    emulator_lose(status);
    std::string message;
    try {
      check(cudaErrorInvalidValue, "a call");
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    emulator_lose(0);
    const bool is_lost = (status > 200 && status < 600) || (status >= 700 && status < 900) || status == 911;
    if ((message.find("restart it") != std::string::npos) == is_lost) continue;
    std::printf("%d: %s\n", status, message.c_str());
    ++bad;
  }
  return bad;
}

// Bytes that the device has less than at first, once the kernels have given back what they kept.
int64_t kept_after_release() {
  release_memory();
  size_t unused = 0, total = 0;
  cudaMemGetInfo(&unused, &total);
  return static_cast<int64_t>(total - unused);
}

}  // namespace

int main(int count, char** arguments) {
  const int cases = count > 1 ? std::atoi(arguments[1]) : 20, size = count > 3 ? std::atoi(arguments[3]) : 1;
  const uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 0;
  set_cublas_candidates({std::getenv("FUSEDRNN_CUBLAS") ? std::getenv("FUSEDRNN_CUBLAS") : ""});
  cudaStream_t streams[7] = {};  // more than there are contexts for
  for (int i = 1; i < 7; ++i) cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking);
  const auto any_stream = [&] { return static_cast<void*>(streams[between(0, 6)]); };
  int bad = lost_errors(), refused = 0;
  int64_t compared = 0;
  std::map<std::string, int> paths;
  for (int i = 0; i < cases && bad == 0; ++i) {
    dice.seed(seed * 1000003 + static_cast<uint64_t>(i));
    emulator_seed(seed * 7919 + static_cast<uint64_t>(i));
    Case c(size);
    const Engine &device = *device_engine(c.kind.dtype), &twin = *host_engine(c.kind.dtype);
    const std::string plan = device.plan(c.p, {0, nullptr, false, 0, c.most});
    ++paths[plan.substr(0, plan.find(' ', sizeof "cuda: "))];
    // As it is, recorded, replayed: several calls are on their way at once before their results are looked at. Some are
    // refused memory on the way, and made again; or all go on at once, each on another stream.
    const bool at_once = chance(40);
    constexpr size_t calls = 7;
    std::vector<Inputs> inputs;
    std::vector<Outputs> got(calls), failed, expected(calls);
    for (size_t call = 0; call < calls; ++call) inputs.push_back(c.inputs());
    for (size_t call = 0; call < calls; ++call) {
      void* const stream = at_once ? streams[call] : any_stream();
      void* const back = chance(50) ? stream : any_stream();
      if (!at_once && chance(15)) release_memory();                 // while others are under way
      const bool each_piece = !at_once && call == 0 && chance(50);  // is refused in turn, until the call succeeds
      int64_t granted = each_piece ? 0 : !at_once && chance(20) ? between(0, 60) : -1;
      for (;; granted = each_piece ? granted + 1 : -1) {
        emulator_refuse(granted);
        try {
          c.run(device, inputs[call], stream, back, got[call]);
          break;
        } catch (const OutOfMemory&) {
          ++refused;
          failed.push_back(std::move(got[call]));
          got[call].clear();
        }
      }
      emulator_refuse(-1);
      if (!at_once && chance(10)) cudaStreamSynchronize(static_cast<cudaStream_t>(stream));
    }
    cudaDeviceSynchronize();
    for (size_t call = 0; call < calls; ++call) {
      c.run(twin, inputs[call], nullptr, nullptr, expected[call]);
      bad += differences(c, got[call], expected[call], compared);
    }
    if (chance(10) && kept_after_release() != 0) {
      std::printf("memory is kept after release_memory()\n");
      ++bad;
    }
    if (bad) std::printf("case %d of seed %lu, %s\n", i, static_cast<unsigned long>(seed), plan.c_str());
  }
  for (const auto& [path, n] : paths) std::printf("%s %d, ", path.c_str(), n);
  std::printf("%d calls without memory, %lld elements compared: %s\n", refused, static_cast<long long>(compared),
              bad ? "they differ" : "all alike");
  return bad != 0;
}
