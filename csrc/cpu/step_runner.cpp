#include "cpu/step_runner.h"

#include <algorithm>

#include "core/error.h"
#include "core/share.h"
#include "cpu/layers.h"
#include "cpu/threads/flush_subnormals.h"

namespace fusedrnn {

template <class T>
StepRunner<T>::StepRunner(const Problem& problem, std::vector<std::shared_ptr<const PackedWeights<T>>> weights)
    : problem_(problem),
      options_(cell_options<T>(problem)),
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
    seq.options = is_varied(p.cell) ? &options_ : nullptr;
    seq.ragged = &rows_.ragged();
    if (l > 0) seq.x = {hidden_[static_cast<size_t>(l - 1)].get(), 0, p.hidden_size};
    seq.y = {hidden_.back().get(), 0, p.hidden_size};
    seq.hn = {h_.get() + l * state, p.hidden_size};
    seq.cn = {c_.get() + l * state, p.hidden_size};
    seq.h0 = {seq.hn.data, p.hidden_size};
    seq.c0 = {seq.cn.data, p.hidden_size};
    set_weights(seq, *weights_[static_cast<size_t>(l)]);
    seq.input_planes = p.input_planes(l);
    layers_.push_back(seq);
    space = std::max(space, cell_kernels<T>(p).workspace(seq, 1));
  }
  workspace_ = Buffer<T>(space);
  for (Sequence<T>& seq : layers_) seq.workspace = workspace_.get();
}

template <class T> void StepRunner<T>::step(StateView<const T> x, StateView<T> out) {
  run(x, out, [](void*) { return true; }, nullptr);
}

template <class T>
void StepRunner<T>::long_step(StateView<const T> x, StateView<T> out, const Interrupt& interrupt) {
  struct Question {
    Inquiry inquiry;
    bool stop = false;
  } question{Inquiry(interrupt)};
  const int64_t size = problem_.num_layers * problem_.B * problem_.hidden_size;
  const Buffer<T> h_before(size), c_before(size);
  std::copy_n(h(), size, h_before.get());
  std::copy_n(c(), size, c_before.get());
  const auto poll = [](void* context) {
    Question& asked = *static_cast<Question*>(context);
    return !(asked.stop = asked.stop || asked.inquiry.stop());
  };
  if (run(x, out, poll, &question)) return;
  std::copy_n(h_before.get(), size, h());
  std::copy_n(c_before.get(), size, c());
  throw Interrupted();
}

template <class T>
bool StepRunner<T>::run(StateView<const T> x, StateView<T> out, bool (*poll)(void*), void* context) {
  const FlushSubnormals flush;
  const auto forward = cell_kernels<T>(problem_).forward;
  Share alone{};
  alone.size = 1;
  alone.sample_end = problem_.B;
  alone.unit_end = unit_blocks<T>(problem_);
  alone.context = context;
  alone.barrier = alone.poll = poll;
  layers_.front().x = {x.data, 0, x.stride};
  layers_.back().y = {out.data, 0, out.stride};
  for (const Sequence<T>& seq : layers_)
    if (!forward(seq, alone)) return false;
  return true;
}

template class StepRunner<float>;
template class StepRunner<double>;

}  // namespace fusedrnn
