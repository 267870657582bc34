// Problem: what a call computes, in the caller's terms. The only judge of shapes and lengths.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/sequence.h"

namespace fusedrnn {

using Shape = std::vector<int64_t>;
std::string to_string(const Shape& shape);

struct Problem {
  std::string op;  // the name in error messages: LSTM, GRU, RNN
  CellKind cell;
  CellLayout layout;
  int64_t input_size, hidden_size, num_layers, num_directions;
  bool reverse;  // one direction only: it runs backwards
  bool bias, batch_first;
  bool bfloat16 = false;  // float only: the products multiply bfloat16; sums, gates and states stay float
  int64_t T = 0, B = 0;

  int64_t slabs() const { return num_layers * num_directions; }  // (layer, direction) pairs, as torch counts states
  int64_t layer_input(int64_t layer) const { return layer == 0 ? input_size : num_directions * hidden_size; }
  int64_t widest_input() const { return num_layers > 1 ? std::max(layer_input(0), layer_input(1)) : input_size; }
  int weights_per_slab() const { return bias ? 4 : 2; }

  void check_sizes() const;                      // constructor arguments
  void set_input(const Shape& x);                // fixes T and B; rejects what could not be addressed
  void set_extent(int64_t time, int64_t batch);  // the same without an x
  void check_state(const char* name, const Shape& shape) const;
  void check_output_gradient(const Shape& shape) const;
  Shape weight_shape(int64_t layer, int which) const;  // which: weight_ih, weight_hh, bias_ih, bias_hh
  std::string weight_name(int64_t slab, int which) const;
  void check_weight(int64_t slab, int which, const Shape& shape) const;

  Shape input_shape() const;
  Shape output_shape(int64_t features) const;
  Shape state_shape() const { return {slabs(), B, hidden_size}; }
  std::string describe() const;
};

// A problem of the cell of this name, batch-major, without layout and sizes.
Problem problem_of(const std::string& cell);

// The rows of a batch in the order of core/sequence.h, with the storage that Ragged points into.
class RowOrder {
 public:
  // lengths may be null: every sample has T steps.
  RowOrder(const Problem& problem, const std::vector<int64_t>* lengths);
  const Ragged& ragged() const { return ragged_; }
  int64_t rows() const { return ragged_.first[ragged_.steps]; }
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
