#include "cpu/update.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "cpu/run_plan.h"

namespace fusedrnn {

namespace {

// Reading and writing an element takes as long as so many multiply-adds.
constexpr int64_t multiply_adds_each = 40;

// Each step is a bijection, so that no single change can hide (cpu/kernels/fingerprint.h).
uint64_t joined(uint64_t sum, uint64_t word) {
  sum = (sum ^ word) * 0x9E3779B97F4A7C15u;
  return sum ^ (sum >> 29);
}

// Calls body(begin, end) on parts of [0, n), which begin at multiples of `piece`, by as many threads as it is worth.
void share_out(int64_t n, int64_t piece, const std::function<void(int64_t begin, int64_t end)>& body) {
  const int64_t work = n * multiply_adds_each, pieces = (n + piece - 1) / piece;
  const int threads = worthwhile_threads(work, num_threads());
  run_plan({Scheme::by_sample, threads, threads, patience_for(work)}, threads, {}, [&](Thread& thread, const Plan&) {
    const auto [begin, end] = thread.share(thread.size, 0, 0).part_of(pieces);
    body(begin * piece, std::min(end * piece, n));
  });
}

}  // namespace

template <class T> void run_update(Rule rule, const Rates& rates, std::span<const Update<T>> updates) {
  constexpr int64_t cache_line = 64 / sizeof(T);
  const auto step = kernels<T>().update[static_cast<int>(rule)];
  int64_t elements = 0;
  for (const Update<T>& u : updates) elements += u.rows * u.width;
  const auto change = [&](const Update<T>& u, int64_t at, int64_t n) {
    T* const state[] = {u.state[0] ? u.state[0] + at : nullptr, u.state[1] ? u.state[1] + at : nullptr};
    step(u.param + at, u.grad + at, state[0], state[1], n, rates);
  };
  share_out(elements, cache_line, [&](int64_t begin, int64_t end) {
    int64_t before = 0;
    for (const Update<T>& u : updates) {
      const int64_t size = u.rows * u.width, last = std::min(end - before, size);
      int64_t at = std::max<int64_t>(begin - before, 0);
      before += size;
      if (!u.chosen && at < last) change(u, at, last - at);
      for (int64_t next; u.chosen && at < last; at = next) {
        const int64_t row = at / u.width;
        next = std::min(last, (row + 1) * u.width);
        change(u, u.chosen[row] * u.width + at % u.width, next - at);
      }
    }
  });
}

template <class T> double square_sum(const T* x, int64_t n) {
  constexpr int64_t piece = 1 << 13;
  std::vector<double> sums(static_cast<size_t>((n + piece - 1) / piece));
  share_out(n, piece, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += piece)
      sums[static_cast<size_t>(at / piece)] = kernels<T>().square_sum(x + at, std::min(piece, end - at));
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

uint64_t fingerprint(std::span<const Bytes> parts) {
  constexpr int64_t piece = 1 << 16, lanes = 32;
  uint64_t whole = 0;
  for (const Bytes& part : parts) {
    std::vector<uint64_t> sums(static_cast<size_t>((part.size + piece - 1) / piece));
    share_out(part.size / 4, piece / 4, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin * 4; at < end * 4; at += piece) {
        uint64_t state[lanes] = {}, sum = 0;
        kernels<float>().fingerprint(static_cast<const char*>(part.data) + at, std::min(piece, end * 4 - at), state);
        for (const uint64_t lane : state) sum = joined(sum, lane);
        sums[static_cast<size_t>(at / piece)] = sum;
      }
    });
    for (const uint64_t sum : sums) whole = joined(whole, sum);
  }
  return whole;
}

template void run_update(Rule, const Rates&, std::span<const Update<float>>);
template void run_update(Rule, const Rates&, std::span<const Update<double>>);
template double square_sum(const float*, int64_t);
template double square_sum(const double*, int64_t);

}  // namespace fusedrnn
