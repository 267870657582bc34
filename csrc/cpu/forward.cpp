#include "cpu/run_plan.h"
#include "system/system.h"

namespace fusedrnn {
namespace {

// All layers, this thread's being every plan.threads-th. A layer projects its input as soon as the one below has it.
template <class T, class Kernel>
void follow_layers(Layers<T>& layers, int64_t units, std::vector<Progress>& progress, Thread& thread, Kernel kernel) {
  constexpr int64_t all = INT64_MAX;
  for (size_t l = static_cast<size_t>(thread.rank); l < layers.size(); l += static_cast<size_t>(thread.size)) {
    const Sequence<T>& seq = layers[l][0];
    Share share = thread.share(1, seq.ragged->batch, units);
    share.rank = 0;
    thread.input = l > 0 ? &progress[l - 1] : nullptr;
    thread.output = &progress[l];
    if (l > 0) share.await_input = Thread::await_input;
    if (l + 1 < layers.size()) share.publish_output = Thread::publish_output;
    kernel(seq, share);
    progress[l].advance_to(all);  // stopped or not: nobody waits for a thread that has left
  }
}

}  // namespace

template <class T> Plan plan_for(const ForwardCall<T>& call, Pass pass) {
  return make_plan(call.problem, call.rows->rows(), kernels<T>().lanes, sizeof(T),
                   {num_threads(), private_cache_bytes()}, pass);
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
  run_plan(plan, plan.threads, interrupt, [&](Thread& thread, const Plan& actual) {
    if (!call.rows->full())
      for (size_t l = 0; l < layers.size(); ++l)
        clear_padding(ragged, p, call.y[l], p.num_directions * p.hidden_size, thread.rank, actual.threads);
    if (actual.scheme == Scheme::by_layer)
      return follow_layers(layers, units, progress, thread, cell_kernels<T>(p).forward);
    for (size_t l = 0; l < layers.size(); ++l) {
      if (!run_layer(actual, layers[l], units, thread, cell_kernels<T>(p).forward)) return;
      // By sample, the next layer reads only what this thread has written itself.
      if (actual.scheme != Scheme::by_sample && l + 1 < layers.size() && !thread.region->meet_all(thread.rank)) return;
    }
  });
}

#define FUSEDRNN_INSTANTIATE(T)                        \
  template Plan plan_for(const ForwardCall<T>&, Pass); \
  template void keep_for_backward(ForwardCall<T>&);    \
  template void run_forward(ForwardCall<T>&, const Interrupt&);
FUSEDRNN_INSTANTIATE(float)
FUSEDRNN_INSTANTIATE(double)

}  // namespace fusedrnn
