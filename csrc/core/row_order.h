// The rows of a batch in the order of core/ragged.h, with the storage that Ragged points into.
#pragma once
#include <vector>

#include "core/problem.h"

namespace fusedrnn {

class RowOrder {
 public:
  // lengths may be null: every sample has T steps.
  RowOrder(const Problem& problem, const std::vector<int64_t>* lengths);
  const Ragged& ragged() const { return ragged_; }
  int64_t rows() const { return ragged_.rows(); }
  bool full() const { return rows() == ragged_.batch * time_; }
  bool is_full_of(const Problem& p) const { return full() && ragged_.batch == p.B && time_ == p.T; }
  RowOrder(const RowOrder&) = delete;
  RowOrder& operator=(const RowOrder&) = delete;

 private:
  std::vector<int64_t> first_, sample_, length_;
  Ragged ragged_{};
  int64_t time_;
};

}  // namespace fusedrnn
