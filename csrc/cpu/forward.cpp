#include "cpu/run_plan.h"
#include "cpu/segments.h"
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

// Elements of what a slab keeps for backward.
template <class T> struct SavedSizes {
  int64_t gates, cells, normalised;
  explicit SavedSizes(const ForwardCall<T>& call) {
    const Problem& p = call.problem;
    const int64_t vectors = unit_blocks<T>(p) * call.rows->rows(), lanes = kernels<T>().lanes;
    gates = vectors * p.layout.slots * lanes;
    cells = p.layout.has_cell_state ? vectors * lanes : 0;
    normalised = p.options.layer_norm ? call.rows->rows() * norm_row_size(unit_blocks<T>(p), p.layout.gates, lanes) : 0;
  }
};

}  // namespace

template <class T> CellOptions<T> cell_options(const Problem& p) {
  const T clip = static_cast<T>(p.options.clip);
  const auto at = [&](const GateFunction<double>& of) {
    GateFunction<T> f{of.kind, static_cast<T>(of.alpha), static_cast<T>(of.beta), T(0), T(0)};
    f.low = kernels<T>().value_at(f, -clip);
    f.high = kernels<T>().value_at(f, clip);
    return f;
  };
  return {at(p.options.gate),
          at(p.options.candidate),
          at(p.options.output),
          clip,
          p.options.coupled,
          p.options.peephole,
          static_cast<T>(p.options.h_zoneout),
          static_cast<T>(p.options.c_zoneout),
          p.options.layer_norm};
}

template <class T> Plan plan_for(const ForwardCall<T>& call, Pass pass) {
  const Machine machine{call.threads ? call.threads : num_threads(), private_cache_bytes()};
  const auto plan = [&](const Problem& p) {
    const int item = p.int8_planes ? 1 : static_cast<int>(sizeof(T));
    return make_plan(p, call.rows->rows(), kernels<T>().lanes, item, machine, pass);
  };
  if (!call.rows->segmented()) return plan(call.problem);
  Problem segments = call.problem;
  segments.B = call.rows->ragged().batch;
  segments.T = call.rows->ragged().steps;
  return plan(segments);
}

template <class T> void keep_for_backward(ForwardCall<T>& call) {
  const SavedSizes<T> size(call);
  for (auto& slab : call.slabs) {
    slab.gates = Buffer<T>(size.gates);
    if (size.cells) slab.cells = Buffer<T>(size.cells);
    if (size.normalised) slab.normalised = Buffer<T>(size.normalised);
  }
}

template <class T> void keep_for_backward(ForwardCall<T>& call, T* memory) {
  const SavedSizes<T> size(call);
  for (auto& slab : call.slabs) {
    slab.gates = Buffer<T>::borrowed(memory);
    if (size.cells) slab.cells = Buffer<T>::borrowed(memory + size.gates);
    memory += size.gates + size.cells;
  }
}

template <class T> int64_t saved_size(const ForwardCall<T>& call) {
  const SavedSizes<T> size(call);
  return call.problem.slabs() * (size.gates + size.cells);
}

template <class T> void run_forward(ForwardCall<T>& call, const Interrupt& interrupt) {
  const Problem& p = call.problem;
  const Plan plan = plan_for(call);
  Layers<T> layers(call);
  SegmentStates<T> segments(call);
  segments.attach(call, layers.slabs());
  const bool layers_overlap = plan.scheme == Scheme::by_layer;
  const auto spaces = attach_workspace(plan.threads, layers_overlap, layers, p);
  std::vector<Progress> progress(layers_overlap ? layers.size() : 0);
  const int64_t units = unit_blocks<T>(p);
  run_plan(plan, plan.threads, interrupt, [&](Thread& thread, const Plan& actual) {
    if (!call.rows->full())
      for (size_t l = 0; l < layers.size(); ++l)
        clear_padding(*call.rows, p, call.y[l], p.num_directions * p.output_size(), thread.rank, actual.threads,
                      [&] { return thread.region->poll(thread.rank); });
    if (actual.scheme == Scheme::by_layer)
      return follow_layers(layers, units, progress, thread, cell_kernels<T>(p).forward);
    for (size_t l = 0; l < layers.size(); ++l) {
      if (!run_layer(actual, layers[l], units, thread, cell_kernels<T>(p).forward)) return;
      // By sample, the next layer reads only what this thread has written itself.
      if (actual.scheme != Scheme::by_sample && l + 1 < layers.size() && !thread.region->meet_all(thread.rank)) return;
    }
  });
  segments.store_final(call, layers.slabs());
}

#define FUSEDRNN_INSTANTIATE(T)                         \
  template CellOptions<T> cell_options(const Problem&); \
  template Plan plan_for(const ForwardCall<T>&, Pass);  \
  template void keep_for_backward(ForwardCall<T>&);     \
  template void keep_for_backward(ForwardCall<T>&, T*); \
  template int64_t saved_size(const ForwardCall<T>&);   \
  template void run_forward(ForwardCall<T>&, const Interrupt&);
FUSEDRNN_INSTANTIATE(float)
FUSEDRNN_INSTANTIATE(double)

}  // namespace fusedrnn
