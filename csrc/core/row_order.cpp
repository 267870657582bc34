#include "core/row_order.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace fusedrnn {

RowOrder::RowOrder(const Problem& problem, const std::vector<int64_t>* lengths, const RestartMarks* restarts)
    : batch_(problem.B), time_(problem.T) {
  const int64_t count = lengths ? static_cast<int64_t>(lengths->size()) : batch_;
  if (count != batch_)
    fail(problem.op, "lengths", "has shape " + to_string({count}), "(batch,) = " + to_string({batch_}));
  if (lengths) {
    for (int64_t b = 0; b < batch_; ++b)
      if ((*lengths)[b] < 0 || (*lengths)[b] > time_)
        fail(problem.op, "lengths[" + std::to_string(b) + "]", "is " + std::to_string((*lengths)[b]),
             "0 <= length <= time = " + std::to_string(time_));
    end_ = *lengths;
  } else {
    end_.assign(static_cast<size_t>(batch_), time_);
  }
  arrange(segments(restarts));
}

RowOrder::RowOrder(const Problem& problem, const Packed& packed) : batch_(problem.B), time_(problem.T) {
  end_.assign(static_cast<size_t>(batch_), 0);
  int64_t row = 0, before = batch_;
  for (int64_t t = 0; t < time_; ++t) {
    const int64_t size = packed.sizes[static_cast<size_t>(t)];
    if (size < 1 || size > before)
      fail(problem.op, "batch_sizes[" + std::to_string(t) + "]", "is " + std::to_string(size),
           "1 <= size <= " + std::to_string(before) + ", the one before");
    packed_.push_back(row);
    row += size;
    before = size;
    for (int64_t b = 0; b < size; ++b) ++end_[static_cast<size_t>(b)];
  }
  arrange(segments(nullptr));
  ragged_.packed = packed_.data();
}

// By sample and time.
std::vector<RowOrder::Segment> RowOrder::segments(const RestartMarks* restarts) {
  std::vector<Segment> made;
  for (int64_t b = 0; b < batch_; ++b) {
    const int64_t end = end_[static_cast<size_t>(b)];
    if (restarts) {
      first_segment_.push_back(static_cast<int64_t>(made.size()));
      restarts_at_once_.push_back(end > 0 && restarts->at(0, b));
    }
    int64_t begin = 0;
    for (int64_t t = 1; restarts && t < end; ++t)
      if (restarts->at(t, b)) {
        made.push_back({b, begin, t - begin});
        begin = t;
      }
    made.push_back({b, begin, end - begin});
  }
  if (restarts) first_segment_.push_back(static_cast<int64_t>(made.size()));
  return made;
}

// Longest first; among those of one length in the order given.
void RowOrder::arrange(const std::vector<Segment>& segments) {
  const size_t count = segments.size();
  state_.resize(count);
  std::iota(state_.begin(), state_.end(), int64_t(0));
  const auto length = [&](int64_t i) { return segments[static_cast<size_t>(i)].length; };
  const auto longer = [&](int64_t a, int64_t b) { return length(a) > length(b); };
  if (!std::is_sorted(state_.begin(), state_.end(), longer)) std::stable_sort(state_.begin(), state_.end(), longer);
  for (int64_t i : state_) {
    const Segment& segment = segments[static_cast<size_t>(i)];
    sample_.push_back(segment.sample);
    length_.push_back(segment.length);
    begin_.push_back(segment.begin);
  }
  const int64_t steps = count ? length_[0] : 0;
  first_.resize(static_cast<size_t>(steps) + 1);
  size_t active = count;
  int64_t row = 0;
  for (int64_t s = 0; s < steps; ++s) {
    while (active > 0 && length_[active - 1] <= s) --active;
    first_[static_cast<size_t>(s)] = row;
    row += static_cast<int64_t>(active);
  }
  first_.back() = row;
  ragged_ = {
      steps,  static_cast<int64_t>(count), first_.data(), sample_.data(), length_.data(), begin_.data(), state_.data(),
      nullptr};
}

}  // namespace fusedrnn
