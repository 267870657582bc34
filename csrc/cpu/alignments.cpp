#include "cpu/alignments.h"

#include <algorithm>
#include <cmath>

namespace fusedrnn {

namespace {

// Divides columns by their sums, and keeps the logarithms of these; a column of zeros stays.
void rescale(double* x, int64_t states, int64_t columns, double* logarithms) {
  for (int64_t column = 0; column < columns; ++column) {
    double sum = 0;
    for (int64_t state = 0; state < states; ++state) sum += x[state * columns + column];
    if (sum == 0) sum = 1;
    for (int64_t state = 0; state < states; ++state) x[state * columns + column] /= sum;
    logarithms[column] = std::log(sum);
  }
}

}  // namespace

void align(const Alignments& a) noexcept {
  const int64_t size = a.states * a.columns, two = 2 * a.columns;
  std::fill_n(a.scales, a.steps * a.columns, 0.0);
  for (int64_t step = 0; step < a.steps; ++step) {
    double* const before = a.before + step * size;
    double* const bordered = a.after + step * (size + two);
    if (step == 0) {
      std::fill_n(before, size, 0.0);
      std::fill_n(before, std::min(size, two), 1.0);
    } else {
      const double* const past = bordered - (size + two);
      for (int64_t i = 0; i < size; ++i) before[i] = past[i] * a.allowed[i] + past[i + a.columns] + past[i + two];
    }
    std::fill_n(bordered, two, 0.0);
    const double* const emission = a.emissions + step * size;
    for (int64_t i = 0; i < size; ++i) bordered[two + i] = before[i] * emission[i];
    if (step % a.rescaled == 0) rescale(bordered + two, a.states, a.columns, a.scales + step * a.columns);
  }
}

}  // namespace fusedrnn
