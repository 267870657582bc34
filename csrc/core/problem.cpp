#include "core/problem.h"

#include <algorithm>

#include "core/error.h"

namespace fusedrnn {
namespace {

constexpr int64_t address_limit = int64_t(1) << 47;  // bytes; beyond any x86-64 or aarch64 user address space

// The product of sizes, or an error before anything of that size is allocated.
void check_addressable(const Problem& p, const char* what, std::initializer_list<int64_t> sizes) {
  int64_t product = 8;
  for (int64_t size : sizes)
    if (__builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product) || product > address_limit)
      fail(p.op, what, "would need more memory than can be addressed", "smaller sizes (" + p.describe() + ")");
}

void check_shape(const Problem& p, const std::string& name, const Shape& got, const char* axes, const Shape& expected) {
  if (got != expected) fail(p.op, name, "has shape " + to_string(got), std::string(axes) + " = " + to_string(expected));
}

}  // namespace

Problem problem_of(const std::string& cell, int64_t input_size, int64_t hidden_size, int64_t num_layers,
                   int64_t num_directions, bool reverse, bool bias) {
  Problem p{};
#define FUSEDRNN_FIND(kind, formula, name) \
  if (cell == #kind) {                     \
    p.cell = CellKind::kind;               \
    p.op = name;                           \
  }
  FUSEDRNN_CELLS(FUSEDRNN_FIND)
  FUSEDRNN_VARIED_CELLS(FUSEDRNN_FIND)
  if (p.op.empty()) fail("Stack", "cell", "is '" + cell + "'", "the name of a cell in cells/list.h");
  p.layout = layout_of(p.cell);
  p.input_size = input_size;
  p.hidden_size = hidden_size;
  p.num_layers = num_layers;
  p.num_directions = num_directions;
  p.reverse = reverse;
  p.bias = bias;
  p.batch_first = true;
  p.check_sizes();
  return p;
}

std::string to_string(const Shape& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() == 1 ? ",)" : ")");
}

void Problem::check_sizes() const {
  const auto positive = [&](const char* name, int64_t value) {
    if (value <= 0) fail(op, name, "is " + std::to_string(value), "a positive integer");
  };
  positive("input_size", input_size);
  positive("hidden_size", hidden_size);
  positive("num_layers", num_layers);
  check_addressable(*this, "weights", {slabs(), layout.gates, hidden_size, input_size});
  check_addressable(*this, "weights", {slabs(), layout.gates, hidden_size, num_directions, hidden_size});
  if (proj_size < 0 || (proj_size && proj_size >= hidden_size))
    fail(op, "proj_size", "is " + std::to_string(proj_size),
         "0, or less than hidden_size = " + std::to_string(hidden_size));
}

void Problem::set_input(const Shape& x) {
  const char* axes = batch_first ? "(batch, time, input_size)" : "(time, batch, input_size)";
  if (x.size() != 3 || x[2] != input_size)
    fail(op, "x", "has shape " + to_string(x), std::string(axes) + " with input_size = " + std::to_string(input_size));
  B = batch_first ? x[0] : x[1];
  T = batch_first ? x[1] : x[0];
  constexpr int64_t widest_vector = 16;
  check_addressable(*this, "x", {T, B, slabs(), layout.slots + 1, hidden_size + widest_vector});
  check_addressable(*this, "x", {T, B, std::max(input_size, num_directions * hidden_size)});
}

void Problem::set_extent(int64_t time, int64_t batch) {
  const auto countable = [&](const char* name, int64_t value) {
    if (value < 0) fail(op, name, "is " + std::to_string(value), "0 or more");
  };
  countable("time", time);
  countable("batch", batch);
  batch_first = false;
  set_input({time, batch, input_size});
}

void Problem::check_state(const char* name, const Shape& shape, bool is_c) const {
  const char* axes = proj_size && !is_c ? "(num_layers*num_directions, batch, proj_size)"
                                        : "(num_layers*num_directions, batch, hidden)";
  check_shape(*this, name, shape, axes, state_shape(is_c));
}

void Problem::check_output_gradient(const Shape& shape) const {
  check_shape(*this, "dy", shape, "the shape of y", output_shape(num_directions * output_size()));
}

Shape Problem::weight_shape(int64_t layer, int which) const {
  const int64_t rows = layout.gates * hidden_size;
  switch (weight_kind(which)) {
    case weight_ih:
      return {rows, layer_input(layer)};
    case weight_hh:
      return {rows, output_size()};
    case weight_peephole:
      return {3 * hidden_size};
    case weight_hr:
      return {proj_size, hidden_size};
    case weight_ln_c:
    case bias_ln_c:
      return {hidden_size};
    default:
      return {rows};
  }
}

std::string Problem::weight_name(int64_t slab, int which) const {
  static const char* const names[] = {"weight_ih",       "weight_hh",    "bias_ih",     "bias_hh",
                                      "weight_peephole", "scale_ih",     "scale_hh",    "weight_hr",
                                      "weight_ln_ih",    "weight_ln_hh", "weight_ln_c", "bias_ln_c"};
  return names[weight_kind(which)] + ("_l" + std::to_string(slab / num_directions)) +
         (slab % num_directions ? "_reverse" : "");
}

void Problem::check_weight(int64_t slab, int which, const Shape& shape) const {
  static const char* const axes[] = {
      "(gates*hidden, input)", "(gates*hidden, hidden)", "(gates*hidden,)", "(gates*hidden,)",
      "(3*hidden,)",           "(gates*hidden,)",        "(gates*hidden,)", "(proj_size, hidden)",
      "(gates*hidden,)",       "(gates*hidden,)",        "(hidden,)",       "(hidden,)"};
  check_shape(*this, weight_name(slab, which), shape, axes[weight_kind(which)],
              weight_shape(slab / num_directions, which));
}

void Problem::check_array_count(const char* list, size_t count) const {
  const int64_t expected = slabs() * weights_per_slab();
  if (static_cast<int64_t>(count) != expected)
    throw ShapeError(op + ": " + list + " has " + std::to_string(count) + " arrays; expected " +
                     std::to_string(expected));
}

void Problem::check_cell_state(const char* name, bool given) const {
  if (given && !layout.has_cell_state) throw TypeMismatch(op + ": " + name + " is given; this cell has no c");
}

Shape Problem::input_shape() const { return output_shape(input_size); }

Shape Problem::output_shape(int64_t features) const {
  return batch_first ? Shape{B, T, features} : Shape{T, B, features};
}

std::string Problem::describe() const {
  return op + " T=" + std::to_string(T) + " B=" + std::to_string(B) + " I=" + std::to_string(input_size) +
         " H=" + std::to_string(hidden_size) + " layers=" + std::to_string(num_layers) +
         " directions=" + std::to_string(num_directions);
}

}  // namespace fusedrnn
