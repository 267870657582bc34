// The layers of a call as the kernels see them: every Sequence with its pointers, and the memory that they work in.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "cpu/isa.h"
#include "cpu/stack.h"

namespace fusedrnn {

template <class T> const CellKernels<T>& cell_kernels(const Problem& p) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (p.bfloat16) return bfloat16_kernels().cell[static_cast<int>(p.cell)];
    if (p.int8_planes) return int8_kernels().cell[static_cast<int>(p.cell)];
  }
  return kernels<T>().cell[static_cast<int>(p.cell)];
}

// U: blocks of hidden units, a vector each.
template <class T> int64_t unit_blocks(const Problem& p) {
  return (p.hidden_size + kernels<T>().lanes - 1) / kernels<T>().lanes;
}

template <class T> void set_weights(Sequence<T>& seq, const PackedWeights<T>& w) {
  seq.input_weights = w.input.get();
  seq.recurrent_weights = w.recurrent.get();
  seq.input_bias = w.input_bias.get();
  seq.recurrent_bias = w.recurrent_bias.get();
  seq.input_weights_t = w.input_t.get();
  seq.recurrent_weights_t = w.recurrent_t.get();
  seq.peephole = w.peephole.get();
  seq.input_scales = w.input_scales.get();
  seq.recurrent_scales = w.recurrent_scales.get();
  seq.input_excess = w.input_excess.get();
  seq.recurrent_excess = w.recurrent_excess.get();
  seq.projection = w.projection.get();
  seq.projection_t = w.projection_t.get();
  seq.norm = w.norm.get();
}

template <class T> Sequence<T> sequence_of(const ForwardCall<T>& call, int64_t layer, int64_t direction) {
  const Problem& p = call.problem;
  const size_t l = static_cast<size_t>(layer);
  const auto& slab = call.slabs[static_cast<size_t>(layer * p.num_directions + direction)];
  Sequence<T> seq{};
  seq.I = p.layer_input(layer);
  seq.widest_input = p.widest_input();
  seq.H = p.hidden_size;
  seq.P = p.output_size();
  seq.options = is_varied(p.cell) ? &call.options : nullptr;
  seq.reverse = p.is_reverse(direction);
  seq.ragged = &call.rows->ragged();
  seq.x = layer == 0 ? call.x : TimeMajorView<const T>{call.y[l - 1].data, call.y[l - 1].step, call.y[l - 1].batch};
  seq.y = {call.y[l].data + direction * p.output_size(), call.y[l].step, call.y[l].batch};
  seq.h0 = slab.h0;
  seq.hn = slab.hn;
  seq.c0 = slab.c0;
  seq.cn = slab.cn;
  seq.noise = slab.noise;
  set_weights(seq, *slab.weights);
  seq.input_planes = p.input_planes(layer);
  seq.gates = slab.gates.get();
  seq.cells = slab.cells.get();
  seq.normalised = slab.normalised.get();
  return seq;
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

// One workspace per direction, used by layer after layer; one per layer where they run at the same time.
template <class T>
std::vector<Buffer<T>> attach_workspace(int threads, bool layers_overlap, Layers<T>& layers, const Problem& p) {
  int64_t size = 0;
  for (const Sequence<T>& seq : layers.slabs()) size = std::max(size, cell_kernels<T>(p).workspace(seq, threads));
  std::vector<Buffer<T>> spaces;
  const size_t count = layers_overlap ? layers.slabs().size() : layers[0].size();
  spaces.reserve(count);
  for (size_t i = 0; i < count; ++i) spaces.emplace_back(size);
  for (size_t slab = 0; slab < layers.slabs().size(); ++slab)
    layers.slabs()[slab].workspace = spaces[slab % count].get();
  return spaces;
}

// Zeros past each sample's end; samples are dealt out to the threads. poll(): false to stop.
template <class T, class Poll>
void clear_padding(const RowOrder& order, const Problem& p, TimeMajorView<T> y, int64_t features, int rank, int size,
                   const Poll& poll) {
  for (int64_t b = rank; b < p.B && poll(); b += size)
    for (int64_t t = order.end(b); t < p.T; ++t) std::fill_n(y.data + t * y.step + b * y.batch, features, T(0));
}

}  // namespace fusedrnn
