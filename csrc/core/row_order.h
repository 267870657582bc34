// The rows of a batch in the order of core/ragged.h, with the storage that Ragged points into.
#pragma once
#include <vector>

#include "core/problem.h"

namespace fusedrnn {

// Whether the state starts again before step t of sample b: data[t*step + b*batch].
struct RestartMarks {
  const uint8_t* data;
  int64_t step, batch;
  bool at(int64_t t, int64_t b) const { return data[t * step + b * batch] != 0; }
};

class RowOrder {
 public:
  // lengths may be null: every sample has T steps. So may restarts: every sample is one segment.
  RowOrder(const Problem& problem, const std::vector<int64_t>* lengths, const RestartMarks* restarts = nullptr);
  // Arrays without padding: sizes[t] samples have a step t, the longest first.
  struct Packed {
    const std::vector<int64_t>& sizes;
  };
  RowOrder(const Problem& problem, const Packed& packed);

  const Ragged& ragged() const { return ragged_; }
  int64_t rows() const { return ragged_.rows(); }
  bool is_packed() const { return ragged_.packed != nullptr; }
  bool full() const { return is_packed() || rows() == batch_ * time_; }  // no padding
  bool is_full_of(const Problem& p) const { return full() && batch_ == p.B && time_ == p.T; }
  int64_t end(int64_t sample) const { return end_[static_cast<size_t>(sample)]; }  // its length

  // The states of sample b's segments are those from first_segment(b) up to first_segment(b + 1), in the order of time.
  bool segmented() const { return !first_segment_.empty(); }
  int64_t first_segment(int64_t sample) const { return first_segment_[static_cast<size_t>(sample)]; }
  bool restarts_at_once(int64_t sample) const { return restarts_at_once_[static_cast<size_t>(sample)]; }

  RowOrder(const RowOrder&) = delete;
  RowOrder& operator=(const RowOrder&) = delete;

 private:
  struct Segment {
    int64_t sample, begin, length;
  };
  std::vector<Segment> segments(const RestartMarks* restarts);
  void arrange(const std::vector<Segment>& segments);

  std::vector<int64_t> first_, sample_, length_, begin_, state_, packed_, end_, first_segment_;
  std::vector<bool> restarts_at_once_;
  Ragged ragged_{};
  int64_t batch_, time_;
};

}  // namespace fusedrnn
