// How hidden units lie in blocks of vectors (cpu/blocks.h).
#include "cpu/blocks.h"

#include <vector>

#include "check.h"

namespace fusedrnn {
namespace {

// Columns of the gates of all units, in the order in which they lie: each once, and none beyond `columns`.
bool covers_every_column_once(const Blocks& blocks, int64_t H, int64_t values) {
  std::vector<int> seen(static_cast<size_t>(blocks.columns + blocks.lanes * blocks.gates), 0);
  int64_t last = -1;
  for (int64_t h = 0; h < H; ++h)
    for (int64_t g = 0; g < blocks.gates; ++g) {
      const int64_t block = h / blocks.lanes;
      const int64_t column = block * blocks.gates * blocks.lanes + g * blocks.distance(block) + h % blocks.lanes;
      if (column >= static_cast<int64_t>(seen.size()) || ++seen[static_cast<size_t>(column)] > 1) return false;
      last = column > last ? column : last;
    }
  return last < blocks.columns && blocks.columns - last <= values;  // the last operand may be half filled
}

UNIT_TEST(every_column_once) {
  for (int64_t lanes : {2, 4, 8, 16})
    for (int64_t gates : {1, 3, 4})
      for (int64_t values : {1, 2})
        for (int64_t H = 1; H <= 3 * lanes + 1; ++H)
          for (int64_t some = 1; some <= gates; ++some)
            CHECK(covers_every_column_once(Blocks(H, gates, lanes, values).part(some), H, values));
}

UNIT_TEST(dense_only_where_it_saves_a_vector) {
  for (int64_t lanes : {4, 8, 16})
    for (int64_t gates : {1, 3, 4})
      for (int64_t H = 1; H <= 4 * lanes; ++H) {
        const Blocks blocks(H, gates, lanes, 1);
        const int64_t rest = H - (blocks.units - 1) * lanes;
        CHECK(blocks.units == (H + lanes - 1) / lanes);
        CHECK((blocks.wide == blocks.units) == (blocks.vectors == 0));
        const bool saves = blocks.units > 1 && gates * rest <= (gates - 1) * lanes;
        CHECK((blocks.vectors > 0) == saves);
        if (saves) CHECK(blocks.vectors < gates && blocks.vectors * lanes >= gates * rest && blocks.slot == rest);
      }
}

UNIT_TEST(gates_of_pairs_begin_at_whole_pairs) {
  const Blocks blocks(19, 4, 16, 2);  // three units are left over
  CHECK(blocks.wide == 1 && blocks.slot == 4 && blocks.vectors == 1);
  CHECK(blocks.distance(0) == 16 && blocks.distance(1) == 4);
}

}  // namespace
}  // namespace fusedrnn
