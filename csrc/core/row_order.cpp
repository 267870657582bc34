#include "core/row_order.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"

namespace fusedrnn {

RowOrder::RowOrder(const Problem& problem, const std::vector<int64_t>* given) : time_(problem.T) {
  const int64_t B = problem.B, count = given ? static_cast<int64_t>(given->size()) : B;
  if (count != B) fail(problem.op, "lengths", "has shape " + to_string({count}), "(batch,) = " + to_string({B}));
  const int64_t* lengths = given ? given->data() : nullptr;
  sample_.resize(B);
  length_.resize(B);
  std::iota(sample_.begin(), sample_.end(), int64_t(0));
  if (lengths) {
    for (int64_t b = 0; b < B; ++b)
      if (lengths[b] < 0 || lengths[b] > problem.T)
        fail(problem.op, "lengths[" + std::to_string(b) + "]", "is " + std::to_string(lengths[b]),
             "0 <= length <= time = " + std::to_string(problem.T));
    std::stable_sort(sample_.begin(), sample_.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  }
  for (int64_t j = 0; j < B; ++j) length_[j] = lengths ? lengths[sample_[j]] : problem.T;
  const int64_t steps = B ? length_[0] : 0;
  first_.resize(steps + 1);
  int64_t active = B, row = 0;
  for (int64_t s = 0; s < steps; ++s) {
    while (active > 0 && length_[active - 1] <= s) --active;
    first_[s] = row;
    row += active;
  }
  first_[steps] = row;
  ragged_ = {steps, B, first_.data(), sample_.data(), length_.data()};
}

}  // namespace fusedrnn
