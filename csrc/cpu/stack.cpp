#include "cpu/stack.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <span>

#include "core/error.h"
#include "cpu/thread_pool.h"

namespace fusedrnn {
namespace {

int64_t private_cache() {
#if defined(_SC_LEVEL2_CACHE_SIZE)
  static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return bytes;
#endif
  return 1 << 20;
}

template <class T> const CellKernels<T>& cell_kernels(const Problem& p) {
  if constexpr (sizeof(T) == sizeof(float))
    if (p.bfloat16) return bfloat16_kernels().cell[static_cast<int>(p.cell)];
  return kernels<T>().cell[static_cast<int>(p.cell)];
}

// U: blocks of hidden units, a vector each.
template <class T> int64_t unit_blocks(const Problem& p) {
  return (p.hidden_size + kernels<T>().lanes - 1) / kernels<T>().lanes;
}

template <class T> void set_weights(Sequence<T>& q, const PackedWeights<T>& w) {
  q.input_weights = w.input.get();
  q.recurrent_weights = w.recurrent.get();
  q.input_bias = w.input_bias.get();
  q.recurrent_bias = w.recurrent_bias.get();
  q.input_weights_t = w.input_t.get();
  q.recurrent_weights_t = w.recurrent_t.get();
}

template <class T> Sequence<T> sequence_of(const ForwardCall<T>& call, int64_t layer, int64_t direction) {
  const Problem& p = call.problem;
  const size_t l = static_cast<size_t>(layer);
  const auto& slab = call.slabs[static_cast<size_t>(layer * p.num_directions + direction)];
  Sequence<T> q{};
  q.I = p.layer_input(layer);
  q.widest_input = p.widest_input();
  q.H = p.hidden_size;
  q.reverse = p.reverse || direction == 1;
  q.ragged = &call.rows->ragged();
  q.x = layer == 0 ? call.x : TimeMajorView<const T>{call.y[l - 1].data, call.y[l - 1].step, call.y[l - 1].batch};
  q.y = {call.y[l].data + direction * p.hidden_size, call.y[l].step, call.y[l].batch};
  q.h0 = slab.h0;
  q.hn = slab.hn;
  q.c0 = slab.c0;
  q.cn = slab.cn;
  set_weights(q, *slab.weights);
  q.gates = slab.gates.get();
  q.cells = slab.cells.get();
  return q;
}

// One thread's view of a parallel region, and of the threads that run the layers below and above.
struct Seat {
  Region* region;
  int rank, size;
  Progress *input = nullptr, *output = nullptr;
  static bool await_input(void* seat, int64_t steps) {
    const Seat* s = static_cast<Seat*>(seat);
    s->input->await(steps);
    return !s->region->stopped();
  }
  static void publish_output(void* seat, int64_t steps) { static_cast<Seat*>(seat)->output->advance_to(steps); }
  static bool barrier(void* seat) {
    const Seat* s = static_cast<Seat*>(seat);
    return s->region->meet_walkers(s->rank);
  }
  static bool poll(void* seat) {
    const Seat* s = static_cast<Seat*>(seat);
    return s->region->poll(s->rank);
  }

  // This seat's part among `threads`, of all samples and units; the scheme narrows it.
  Team team(int threads, int64_t samples, int64_t units) {
    Team team{};
    team.rank = rank;
    team.size = threads;
    team.sample_end = samples;
    team.unit_end = units;
    team.context = this;
    team.barrier = barrier;
    team.poll = poll;
    return team;
  }
};

// Splits the sorted samples so that every thread gets about the same number of steps.
int64_t first_sample(const Ragged& ragged, int rank, int size) {
  const int64_t goal = ragged.first[ragged.steps] * rank / size;
  int64_t j = 0;
  for (int64_t sum = 0; j < ragged.batch && sum + ragged.length[j] / 2 < goal; ++j) sum += ragged.length[j];
  return rank == size ? ragged.batch : j;
}

// All sequences of a call; an element is a layer, with its directions.
template <class T> class Layers {
 public:
  explicit Layers(const ForwardCall<T>& call) : directions_(static_cast<size_t>(call.problem.num_directions)) {
    sequences_.reserve(call.slabs.size());
    for (int64_t l = 0; l < call.problem.num_layers; ++l)
      for (int64_t d = 0; d < call.problem.num_directions; ++d) sequences_.push_back(sequence_of(call, l, d));
  }
  size_t size() const { return sequences_.size() / directions_; }
  std::span<Sequence<T>> operator[](size_t l) { return {&sequences_[l * directions_], directions_}; }
  std::span<Sequence<T>> slabs() { return sequences_; }

 private:
  size_t directions_;
  std::vector<Sequence<T>> sequences_;
};

// The time loops of one layer, as this seat's share of the plan.
template <class T, class Kernel>
bool run_layer(const Plan& plan, std::span<Sequence<T>> directions, int64_t units, Seat& seat, Kernel kernel) {
  if (seat.rank >= plan.threads) return true;
  const Ragged& ragged = *directions[0].ragged;
  Team team = seat.team(plan.threads, ragged.batch, units);
  if (plan.scheme == Scheme::by_sample) {
    team.sample_begin = first_sample(ragged, seat.rank, plan.threads);
    team.sample_end = first_sample(ragged, seat.rank + 1, plan.threads);
  } else if (plan.scheme == Scheme::by_unit) {
    team.unit_begin = units * seat.rank / plan.threads;
    team.unit_end = units * (seat.rank + 1) / plan.threads;
    team.shares_steps = true;
  } else if (plan.scheme == Scheme::by_direction) {
    team.rank = 0;
    team.size = 1;
    return kernel(directions[static_cast<size_t>(seat.rank)], team);
  }
  for (const Sequence<T>& direction : directions)
    if (!kernel(direction, team)) return false;
  return true;
}

// All layers, this seat's being every plan.threads-th. A layer projects its input as soon as the one below has it.
template <class T, class Kernel>
void follow_layers(Layers<T>& layers, int64_t units, std::vector<Progress>& progress, Seat& seat, Kernel kernel) {
  constexpr int64_t all = INT64_MAX;
  for (size_t l = static_cast<size_t>(seat.rank); l < layers.size(); l += static_cast<size_t>(seat.size)) {
    const Sequence<T>& q = layers[l][0];
    Team team = seat.team(1, q.ragged->batch, units);
    team.rank = 0;
    seat.input = l > 0 ? &progress[l - 1] : nullptr;
    seat.output = &progress[l];
    if (l > 0) team.await_input = Seat::await_input;
    if (l + 1 < layers.size()) team.publish_output = Seat::publish_output;
    kernel(q, team);
    progress[l].advance_to(all);  // stopped or not: nobody waits for a thread that has left
  }
}

// Zeros past each sample's end; samples are dealt out to the threads.
template <class T> void clear_padding(const Ragged& ragged, const Problem& p, TimeMajorView<T> y, int64_t features,
                                      int rank, int size) {
  for (int64_t j = rank; j < ragged.batch; j += size)
    for (int64_t t = ragged.length[j]; t < p.T; ++t)
      std::fill_n(y.data + t * y.step + ragged.sample[j] * y.batch, features, T(0));
}

// Runs body(seat, plan) on `size` threads, or on this one alone if those are not to be had.
template <class Body> void run_plan(Plan plan, int size, const Interrupt& interrupt, Body body) {
  const auto attempt = [&] {
    Region region(size, plan.threads, interrupt);
    const bool ran = run_parallel(size, plan.patience_ns, [&](int rank) {
      Seat seat{&region, rank, size};
      body(seat, plan);
    });
    if (ran && region.stopped()) throw Interrupted();
    return ran;
  };
  const FlushSubnormals flush;
  if (!attempt()) {
    plan = {};
    size = 1;
    attempt();
  }
}

// One workspace per direction, used by layer after layer; one per layer where they run at the same time.
template <class T>
std::vector<Buffer<T>> attach_workspace(int threads, bool layers_overlap, Layers<T>& layers, const Problem& p) {
  int64_t size = 0;
  for (const Sequence<T>& q : layers.slabs()) size = std::max(size, cell_kernels<T>(p).workspace(q, threads));
  std::vector<Buffer<T>> spaces;
  const size_t count = layers_overlap ? layers.slabs().size() : layers[0].size();
  spaces.reserve(count);
  for (size_t i = 0; i < count; ++i) spaces.emplace_back(size);
  for (size_t slab = 0; slab < layers.slabs().size(); ++slab)
    layers.slabs()[slab].workspace = spaces[slab % count].get();
  return spaces;
}

// Held while a backward adds to the caller's gradients: two threads may use one layer, and gradients are added up. A
// forked child gets a new one, for nobody would unlock the old one there.
std::mutex& adding_to_gradients() {
  static std::atomic<std::mutex*> current = [] {
    pthread_atfork(nullptr, nullptr, [] { current = new std::mutex; });
    return new std::mutex;
  }();
  return *current;
}

}  // namespace

template <class T> Plan plan_for(const ForwardCall<T>& call, Pass pass) {
  return make_plan(call.problem, call.rows->rows(), kernels<T>().lanes, sizeof(T), {num_threads(), private_cache()},
                   pass);
}

template <class T> void keep_for_backward(ForwardCall<T>& call) {
  const Problem& p = call.problem;
  const int64_t vectors = unit_blocks<T>(p) * call.rows->rows(), lanes = kernels<T>().lanes;
  for (auto& slab : call.slabs) {
    slab.gates = Buffer<T>(vectors * p.layout.slots * lanes);
    if (p.layout.has_cell_state) slab.cells = Buffer<T>(vectors * lanes);
  }
}

template <class T> void run_forward(ForwardCall<T>& call, const Interrupt& interrupt) {
  const Problem& p = call.problem;
  const Ragged& ragged = call.rows->ragged();
  const Plan plan = plan_for(call);
  Layers<T> layers(call);
  const bool layers_overlap = plan.scheme == Scheme::by_layer;
  const auto spaces = attach_workspace(plan.threads, layers_overlap, layers, p);
  std::vector<Progress> progress(layers_overlap ? layers.size() : 0);
  const int64_t units = unit_blocks<T>(p);
  run_plan(plan, plan.threads, interrupt, [&](Seat& seat, const Plan& actual) {
    if (!call.rows->full())
      for (size_t l = 0; l < layers.size(); ++l)
        clear_padding(ragged, p, call.y[l], p.num_directions * p.hidden_size, seat.rank, actual.threads);
    if (actual.scheme == Scheme::by_layer)
      return follow_layers(layers, units, progress, seat, cell_kernels<T>(p).forward);
    for (size_t l = 0; l < layers.size(); ++l) {
      if (!run_layer(actual, layers[l], units, seat, cell_kernels<T>(p).forward)) return;
      // By sample, the next layer reads only what this thread has written itself.
      if (actual.scheme != Scheme::by_sample && l + 1 < layers.size() && !seat.region->meet_all(seat.rank)) return;
    }
  });
}

template <class T>
void run_backward(ForwardCall<T>& call, const BackwardCall<T>& grad, const Interrupt& interrupt) {
  const Problem& p = call.problem;
  const Ragged& ragged = call.rows->ragged();
  const Plan plan = plan_for(call, Pass::backward);
  const CellKernels<T>& cell = cell_kernels<T>(p);
  const int64_t units = unit_blocks<T>(p), lanes = kernels<T>().lanes, D = p.num_directions, G = p.layout.gates;
  Layers<T> layers(call);
  const auto spaces = attach_workspace(plan.gradient_threads, false, layers, p);

  std::vector<Buffer<T>> storage;
  const auto allocate = [&](int64_t size) {
    storage.emplace_back(size);
    return storage.back().get();
  };
  TimeMajorView<const T> dy = grad.dy;
  for (int64_t l = p.num_layers - 1; l >= 0; --l) {
    TimeMajorView<T> dx = grad.dx;
    if (l > 0) dx = {allocate(p.T * p.B * D * p.hidden_size), p.B * D * p.hidden_size, D * p.hidden_size};
    for (int64_t d = 0; d < D; ++d) {
      const size_t slab = static_cast<size_t>(l * D + d);
      Sequence<T>& q = layers.slabs()[slab];
      q.dy = {dy.data ? dy.data + d * p.hidden_size : nullptr, dy.step, dy.batch};
      q.dx = dx;
      q.add_to_dx = d > 0;
      q.dhn = grad.slabs[slab].dhn;
      q.dh0 = grad.slabs[slab].dh0;
      q.dcn = grad.slabs[slab].dcn;
      q.dc0 = grad.slabs[slab].dc0;
      q.dw = allocate(units * (q.I + 1) * G * lanes);
      q.dr = allocate(units * (q.H + 1) * G * lanes);
    }
    dy = {dx.data, dx.step, dx.batch};
  }

  std::unique_lock<std::mutex> adding(adding_to_gradients(), std::defer_lock);
  run_plan(plan, plan.gradient_threads, interrupt, [&](Seat& seat, const Plan& actual) {
    const Team everyone = seat.team(seat.size, 0, 0);
    const auto meet = [&] { return seat.region->meet_all(seat.rank); };
    for (size_t l = layers.size(); l-- > 0;) {
      if (!run_layer(actual, layers[l], units, seat, cell.backward) || !meet()) return;
      for (const Sequence<T>& q : layers[l]) {
        if (!q.dx.data) break;
        if (!q.add_to_dx && !call.rows->full()) clear_padding(ragged, p, q.dx, q.I, seat.rank, seat.size);
        if (!cell.input_gradient(q, everyone) || !meet()) return;
      }
      for (const Sequence<T>& q : layers[l])
        if (!cell.weight_gradient(q, everyone)) return;
      if (l == 0 && seat.rank == 0) adding.lock();  // for all threads of this call
      if (!meet()) return;
    }
    // Last, so that a call that was stopped has added nothing.
    for (size_t slab = 0; slab < grad.slabs.size(); ++slab) {
      const Sequence<T>& q = layers.slabs()[slab];
      const auto& to = grad.slabs[slab];
      const auto inputs = everyone.share(q.I + 1), units_of_h = everyone.share(q.H + 1);
      const Blocks shape(q.H, G, lanes, p.bfloat16 ? 2 : 1);
      add_unpacked(q.dw, p.layout, p.layout.input_order, shape, q.H, q.I, inputs.begin, inputs.end, to.weight_ih,
                   to.bias_ih);
      add_unpacked(q.dr, p.layout, p.layout.recurrent_order, shape, q.H, q.H, units_of_h.begin, units_of_h.end,
                   to.weight_hh, to.bias_hh);
    }
  });
}

template <class T> void run_row_products(const DenseCall<T>& call, const Interrupt& interrupt) {
  const Buffer<T> packed = pack_panels(call.weight, call.row, call.column, call.O, call.I);
  const DenseProduct<T> product{call.rows, call.I, call.O, call.x, packed.get(), call.y};
  const int64_t multiply_adds = call.rows * call.I * call.O;
  const int threads = worthwhile_threads(multiply_adds, num_threads());
  run_plan({Scheme::by_sample, threads, threads, patience_for(multiply_adds)}, threads, interrupt,
           [&](Seat& seat, const Plan&) {
             const Team team = seat.team(seat.size, 0, 0);
             kernels<T>().row_products(product, team);
           });
}

template <class T>
void unpack_saved(const ForwardCall<T>& call, const T* saved, int64_t slab, int64_t slots, T* to) {
  const Problem& p = call.problem;
  const Ragged& ragged = call.rows->ragged();
  const bool reverse = p.reverse || (p.num_directions == 2 && slab % 2 == 1);
  const int64_t L = kernels<T>().lanes, H = p.hidden_size, R = call.rows->rows();
  std::fill_n(to, slots * p.T * p.B * H, T(0));
  for (int64_t s = 0; s < ragged.steps; ++s)
    for (int64_t row = ragged.first[s]; row < ragged.first[s + 1]; ++row) {
      const int64_t j = row - ragged.first[s], t = reverse ? ragged.length[j] - 1 - s : s;
      for (int64_t slot = 0; slot < slots; ++slot)
        for (int64_t h = 0; h < H; ++h)
          to[((slot * p.T + t) * p.B + ragged.sample[j]) * H + h] =
              saved[((h / L * R + row) * slots + slot) * L + h % L];
    }
}

template <class T>
StepRunner<T>::StepRunner(const Problem& problem, std::vector<std::shared_ptr<const PackedWeights<T>>> weights)
    : problem_(problem),
      rows_(problem, nullptr),
      weights_(std::move(weights)),
      h_(problem.num_layers * problem.B * problem.hidden_size),
      c_(problem.num_layers * problem.B * problem.hidden_size) {
  const Problem& p = problem_;
  const int64_t state = p.B * p.hidden_size;
  std::fill_n(h_.get(), p.num_layers * state, T(0));
  std::fill_n(c_.get(), p.num_layers * state, T(0));
  int64_t space = 0;
  for (int64_t l = 0; l < p.num_layers; ++l) {
    hidden_.emplace_back(state);
    Sequence<T> q{};
    q.I = p.layer_input(l);
    q.widest_input = p.widest_input();
    q.H = p.hidden_size;
    q.ragged = &rows_.ragged();
    if (l > 0) q.x = {hidden_[static_cast<size_t>(l - 1)].get(), 0, p.hidden_size};
    q.y = {hidden_.back().get(), 0, p.hidden_size};
    q.hn = {h_.get() + l * state, p.hidden_size};
    q.cn = {c_.get() + l * state, p.hidden_size};
    q.h0 = {q.hn.data, p.hidden_size};
    q.c0 = {q.cn.data, p.hidden_size};
    set_weights(q, *weights_[static_cast<size_t>(l)]);
    layers_.push_back(q);
    space = std::max(space, cell_kernels<T>(p).workspace(q, 1));
  }
  workspace_ = Buffer<T>(space);
  for (Sequence<T>& q : layers_) q.workspace = workspace_.get();
}

template <class T> void StepRunner<T>::step(StateView<const T> x, StateView<T> out) {
  const FlushSubnormals flush;
  const auto forward = cell_kernels<T>(problem_).forward;
  const auto go_on = [](void*) { return true; };
  Team alone{};
  alone.size = 1;
  alone.sample_end = problem_.B;
  alone.unit_end = unit_blocks<T>(problem_);
  alone.barrier = alone.poll = go_on;
  layers_.front().x = {x.data, 0, x.stride};
  layers_.back().y = {out.data, 0, out.stride};
  for (const Sequence<T>& q : layers_) forward(q, alone);
}

#define FUSEDRNN_INSTANTIATE(T)                                                          \
  template Plan plan_for(const ForwardCall<T>&, Pass);                                   \
  template void keep_for_backward(ForwardCall<T>&);                                      \
  template void run_forward(ForwardCall<T>&, const Interrupt&);                          \
  template void unpack_saved(const ForwardCall<T>&, const T*, int64_t, int64_t, T*);     \
  template void run_row_products(const DenseCall<T>&, const Interrupt&);                 \
  template void run_backward(ForwardCall<T>&, const BackwardCall<T>&, const Interrupt&); \
  template class StepRunner<T>;
FUSEDRNN_INSTANTIATE(float)
FUSEDRNN_INSTANTIATE(double)

}  // namespace fusedrnn
