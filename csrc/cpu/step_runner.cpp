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
      h_(problem.num_layers * problem.B * problem.output_size()),
      c_(problem.num_layers * problem.B * problem.hidden_size) {
  const Problem& p = problem_;
  const int64_t H = p.hidden_size, P = p.output_size();
  std::fill_n(h_.get(), p.num_layers * p.B * P, T(0));
  std::fill_n(c_.get(), p.num_layers * p.B * H, T(0));
  int64_t space = 0;
  for (int64_t l = 0; l < p.num_layers; ++l) {
    hidden_.emplace_back(p.B * P);
    Sequence<T> seq{};
    seq.I = p.layer_input(l);
    seq.widest_input = p.widest_input();
    seq.H = H;
    seq.P = P;
    seq.options = is_varied(p.cell) ? &options_ : nullptr;
    seq.ragged = &rows_.ragged();
    if (l > 0) seq.x = {hidden_[static_cast<size_t>(l - 1)].get(), 0, P};
    seq.y = {hidden_.back().get(), 0, P};
    seq.hn = {h_.get() + l * p.B * P, P};
    seq.cn = {c_.get() + l * p.B * H, H};
    seq.h0 = {seq.hn.data, P};
    seq.c0 = {seq.cn.data, H};
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
  const int64_t rows = problem_.num_layers * problem_.B, h_size = rows * problem_.output_size(),
                c_size = rows * problem_.hidden_size;
  const Buffer<T> h_before(h_size), c_before(c_size);
  std::copy_n(h(), h_size, h_before.get());
  std::copy_n(c(), c_size, c_before.get());
  const auto poll = [](void* context) {
    Question& asked = *static_cast<Question*>(context);
    return !(asked.stop = asked.stop || asked.inquiry.stop());
  };
  if (run(x, out, poll, &question)) return;
  std::copy_n(h_before.get(), h_size, h());
  std::copy_n(c_before.get(), c_size, c());
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
