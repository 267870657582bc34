#include "cpu/step_runner.h"

#include "core/share.h"
#include "cpu/layers.h"
#include "cpu/threads/flush_subnormals.h"

namespace fusedrnn {

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
    Sequence<T> seq{};
    seq.I = p.layer_input(l);
    seq.widest_input = p.widest_input();
    seq.H = p.hidden_size;
    seq.ragged = &rows_.ragged();
    if (l > 0) seq.x = {hidden_[static_cast<size_t>(l - 1)].get(), 0, p.hidden_size};
    seq.y = {hidden_.back().get(), 0, p.hidden_size};
    seq.hn = {h_.get() + l * state, p.hidden_size};
    seq.cn = {c_.get() + l * state, p.hidden_size};
    seq.h0 = {seq.hn.data, p.hidden_size};
    seq.c0 = {seq.cn.data, p.hidden_size};
    set_weights(seq, *weights_[static_cast<size_t>(l)]);
    layers_.push_back(seq);
    space = std::max(space, cell_kernels<T>(p).workspace(seq, 1));
  }
  workspace_ = Buffer<T>(space);
  for (Sequence<T>& seq : layers_) seq.workspace = workspace_.get();
}

template <class T> void StepRunner<T>::step(StateView<const T> x, StateView<T> out) {
  const FlushSubnormals flush;
  const auto forward = cell_kernels<T>(problem_).forward;
  const auto go_on = [](void*) { return true; };
  Share alone{};
  alone.size = 1;
  alone.sample_end = problem_.B;
  alone.unit_end = unit_blocks<T>(problem_);
  alone.barrier = alone.poll = go_on;
  layers_.front().x = {x.data, 0, x.stride};
  layers_.back().y = {out.data, 0, out.stride};
  for (const Sequence<T>& seq : layers_) forward(seq, alone);
}

template class StepRunner<float>;
template class StepRunner<double>;

}  // namespace fusedrnn
