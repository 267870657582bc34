// Problem: what a call computes, in the caller's terms. No kernel runs before it has judged every shape, and RowOrder
// (core/row_order.h) the lengths. Python judges earlier where sizes come from the arrays themselves, as in
// functional.py.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/cell.h"
#include "core/cell_options.h"
#include "core/ragged.h"

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
  int64_t proj_size = 0;          // P of an LSTM whose h = W_hr (o tanh c); 0: h is that itself
  CellOptions<double> options{};  // of a varied cell
  bool bfloat16 = false;          // float only: the products multiply bfloat16; sums, gates and states stay float
  int int8_planes = 0;  // float only: the products multiply weights in 8 bits with x in 8 or 16; 0: they do not
  int64_t T = 0, B = 0;

  int64_t slabs() const { return num_layers * num_directions; }  // (layer, direction) pairs, as torch counts states
  int64_t output_size() const { return proj_size ? proj_size : hidden_size; }  // of h
  int64_t layer_input(int64_t layer) const { return layer == 0 ? input_size : num_directions * output_size(); }
  int64_t widest_input() const { return num_layers > 1 ? std::max(layer_input(0), layer_input(1)) : input_size; }
  // Bytes of a value of x in a layer with weights in 8 bits. The input of a layer above the first is an h.
  int input_planes(int64_t layer) const { return layer == 0 ? int8_planes : 1; }
  int values_per_operand() const { return int8_planes ? 4 : bfloat16 ? 2 : 1; }
  int weights_per_slab() const {
    const int norms = options.layer_norm ? 2 + (layout.has_cell_state ? 1 + bias : 0) : 0;
    return 2 + 2 * bias + options.peephole + 2 * (int8_planes > 0) + (proj_size > 0) + norms;
  }
  bool is_reverse(int64_t direction) const { return reverse || direction == 1; }

  void check_sizes() const;
  void set_input(const Shape& x);                // fixes T and B; rejects what could not be addressed
  void set_extent(int64_t time, int64_t batch);  // the same without an x
  void check_state(const char* name, const Shape& shape, bool is_c = false) const;
  void check_output_gradient(const Shape& shape) const;
  // The arrays of a slab, in this order; those that the problem does not have are left out.
  enum Weight {
    weight_ih,
    weight_hh,
    bias_ih,
    bias_hh,
    weight_peephole,
    scale_ih,
    scale_hh,
    weight_hr,
    weight_ln_ih,
    weight_ln_hh,
    weight_ln_c,
    bias_ln_c
  };
  static constexpr int weight_kinds = 12;
  Weight weight_kind(int which) const {
    const int kind = which < 2 || bias ? which : which + 2;
    if (int8_planes && kind >= weight_peephole) return static_cast<Weight>(kind + 1);
    if (options.layer_norm && kind >= weight_peephole)
      return static_cast<Weight>(kind + weight_ln_ih - weight_peephole);
    return kind >= weight_peephole && !options.peephole ? weight_hr : static_cast<Weight>(kind);
  }
  bool in_8_bits(int which) const { return int8_planes && which < 2; }
  Shape weight_shape(int64_t layer, int which) const;
  std::string weight_name(int64_t slab, int which) const;
  void check_weight(int64_t slab, int which, const Shape& shape) const;
  void check_array_count(const char* list, size_t count) const;  // of weights, or of their gradients
  void check_cell_state(const char* name, bool given) const;     // refuses a c for a cell that has none

  Shape input_shape() const;
  Shape output_shape(int64_t features) const;
  Shape state_shape(bool is_c = false) const { return {slabs(), B, is_c ? hidden_size : output_size()}; }
  std::string describe() const;
};

// The problem of the cell of this name and these sizes, which are checked; batch-major, as yet without T and B.
Problem problem_of(const std::string& cell, int64_t input_size, int64_t hidden_size, int64_t num_layers,
                   int64_t num_directions, bool reverse, bool bias);

}  // namespace fusedrnn
