#include "cpu/rows.h"

#include <algorithm>
#include <cmath>

namespace fusedrnn {

namespace {

constexpr int chains = 16;  // independent of each other: the compiler makes vectors of them

template <class T> T largest(const T* x, int64_t n) {
  T most[chains];
  std::fill_n(most, chains, x[0]);
  int64_t i = 0;
  for (; i + chains <= n; i += chains)
    for (int c = 0; c < chains; ++c) most[c] = x[i + c] > most[c] ? x[i + c] : most[c];
  for (; i < n; ++i) most[0] = x[i] > most[0] ? x[i] : most[0];
  return *std::max_element(most, most + chains);
}

// In pieces whose sums are added in double precision.
template <class T> double sum_of(const T* x, int64_t n) {
  constexpr int64_t piece = 512;
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += piece) {
    const int64_t end = std::min(n, begin + piece);
    T part[chains] = {};
    int64_t i = begin;
    for (; i + chains <= end; i += chains)
      for (int c = 0; c < chains; ++c) part[c] += x[i + c];
    for (int c = 0; i + c < end; ++c) part[c] += x[i + c];
    for (const T each : part) sum += double(each);
  }
  return sum;
}

}  // namespace

template <class T>
void add_rows(T* table, int64_t width, const int64_t* rows, int64_t count, const T* values) noexcept {
  for (int64_t row = 0; row < count; ++row) {
    T* __restrict const to = table + rows[row] * width;
    const T* __restrict const from = values + row * width;
    for (int64_t i = 0; i < width; ++i) to[i] += from[i];
  }
}

template <class T> void begin_softmax(const SoftmaxRows<T>& rows, const T* x) noexcept {
  for (int64_t row = 0; row < rows.count; ++row) {
    const T* const from = x + row * rows.size;
    T* const to = rows.shifted + row * rows.size;
    const T most = largest(from, rows.size);
    for (int64_t i = 0; i < rows.size; ++i) to[i] = from[i] - most;
    rows.losses[row] = -to[rows.chosen[row]];
  }
}

template <class T> void end_softmax(const SoftmaxRows<T>& rows, const T* factors, T scale) noexcept {
  for (int64_t row = 0; row < rows.count; ++row) {
    T* const e = rows.shifted + row * rows.size;
    const double sum = sum_of(e, rows.size);
    const T weight = factors ? factors[row] * scale : scale, share = T(double(weight) / sum);
    rows.losses[row] += T(std::log(sum));
    for (int64_t i = 0; i < rows.size; ++i) e[i] *= share;
    e[rows.chosen[row]] -= weight;
  }
}

#define FUSEDRNN_ROWS(T)                                                           \
  template void add_rows(T*, int64_t, const int64_t*, int64_t, const T*) noexcept; \
  template void begin_softmax(const SoftmaxRows<T>&, const T*) noexcept;           \
  template void end_softmax(const SoftmaxRows<T>&, const T*, T) noexcept;
FUSEDRNN_ROWS(float)
FUSEDRNN_ROWS(double)

}  // namespace fusedrnn
