// From lengths to the order of rows (core/row_order.h), and back to times.
#include <algorithm>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "core/row_order.h"

namespace fusedrnn {
namespace {

Problem problem(int64_t time, int64_t batch) {
  Problem p = problem_of("lstm", 3, 5, 1, 1, false, true);
  p.set_extent(time, batch);
  return p;
}

UNIT_TEST(each_step_of_each_sample_has_one_row) {
  const std::vector<int64_t> lengths = {2, 5, 0, 5, 1};
  const RowOrder order(problem(6, 5), &lengths);
  const Ragged& r = order.ragged();
  CHECK(r.steps == 5 && r.batch == 5 && r.rows() == 13 && order.rows() == 13 && !order.full());
  std::vector<int64_t> steps(5, 0);
  for (int64_t s = 0; s < r.steps; ++s)
    for (int64_t j = 0; j < r.count(s); ++j) {
      CHECK(r.length[j] > s);
      ++steps[static_cast<size_t>(r.sample[j])];
    }
  CHECK(steps == lengths);
  CHECK(r.sample[0] == 1 && r.sample[1] == 3);  // samples of one length keep their order
  CHECK(std::is_sorted(r.length, r.length + 5, std::greater<>()));
}

UNIT_TEST(without_lengths_all_rows_are_there) {
  const RowOrder order(problem(4, 3), nullptr);
  CHECK(order.full() && order.rows() == 12 && order.is_full_of(problem(4, 3)) && !order.is_full_of(problem(3, 4)));
  for (int64_t s = 0; s < 4; ++s) CHECK(order.ragged().first[s] == 3 * s);
  const std::vector<int64_t> same = {4, 4, 4};
  CHECK(RowOrder(problem(4, 3), &same).full());
}

UNIT_TEST(nothing_to_do) {
  for (auto [time, batch] : {std::pair{0, 3}, std::pair{3, 0}, std::pair{0, 0}}) {
    const RowOrder order(problem(time, batch), nullptr);
    CHECK(order.rows() == 0 && order.full());
  }
  const std::vector<int64_t> zeros = {0, 0};
  CHECK(RowOrder(problem(3, 2), &zeros).ragged().steps == 0);
}

UNIT_TEST(lengths_are_judged) {
  for (std::vector<int64_t> bad : {std::vector<int64_t>{1, 2, 3}, {1, 5}, {-1, 1}})
    CHECK_THROWS(ShapeError, RowOrder(problem(4, 2), &bad));
}

UNIT_TEST(a_reversed_direction_begins_at_the_end_of_the_sample) {
  for (int64_t length : {1, 4})
    for (int64_t s = 0; s < length; ++s) {
      CHECK(time_of(s, length, false) == s);
      CHECK(time_of(s, length, true) == length - 1 - s);
    }
}

UNIT_TEST(cells_are_known_by_name) {
  CHECK(problem_of("gru", 1, 1, 1, 1, false, true).layout.gates == 3);
  CHECK(problem_of("rnn_relu", 1, 1, 1, 1, false, true).op == "RNN");
  CHECK(layout_of(CellKind::lstm).has_cell_state && !layout_of(CellKind::gru).has_cell_state);
  CHECK_THROWS(ShapeError, problem_of("gru2", 1, 1, 1, 1, false, true));
  CHECK_THROWS(ShapeError, problem_of("gru", 1, 0, 1, 1, false, true));
  for (int kind = 0; kind < cell_count; ++kind) {
    const CellLayout layout = layout_of(static_cast<CellKind>(kind));
    CHECK(layout.slots >= layout.gates && layout.gates <= 4);
    CHECK(layout.input_slot + layout.gates <= layout.slots && layout.recurrent_slot + layout.gates <= layout.slots);
    int inputs = 0, recurrent = 0;
    for (int g = 0; g < layout.gates; ++g)
      inputs |= 1 << layout.input_order[g], recurrent |= 1 << layout.recurrent_order[g];
    CHECK(inputs == (1 << layout.gates) - 1 && recurrent == inputs);  // each block of the matrices once
  }
}

}  // namespace
}  // namespace fusedrnn
