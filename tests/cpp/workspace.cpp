// The memory of a time loop (cpu/kernels/workspace.h): its parts are apart, aligned, and inside.
#include "cpu/kernels/workspace.h"

#include <algorithm>
#include <vector>

#include "check.h"

namespace fusedrnn::baseline {
namespace {

struct Span {
  const char *begin, *end;
};
template <class P> Span span(P* begin, int64_t n) {
  return {reinterpret_cast<const char*>(begin), reinterpret_cast<const char*>(begin + n)};
}

using LstmShape = CellShape<4, 4, 0, 0, true, false>;
using GruShape = CellShape<3, 4, 1, 0, false, false>;

template <class Shape, class T, class E> void parts_are_apart(int64_t H, int64_t B, int64_t I, int threads,
                                                              bool training) {
  constexpr int64_t L = Vec<T>::lanes, values = Operand<E>::values;
  const Ragged ragged{3, B, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  Sequence<T> seq{};
  seq.I = I, seq.H = seq.P = H, seq.widest_input = I, seq.ragged = &ragged;
  T here{};
  if (training) seq.gates = &here;
  std::vector<T> memory(static_cast<size_t>(Workspace<Shape, T, E>(seq, threads).total));
  seq.workspace = memory.data();
  const Workspace<Shape, T, E> space(seq, threads);
  const int64_t U = ceil_div(H, L), chunk = space.chunk_rows;

  CHECK(space.row >= U * L && space.row % L == 0 && space.row * int64_t(sizeof(T)) % 4096 != 0);
  CHECK(chunk >= B);
  std::vector<Span> parts = {span(space.h(0), B * space.row), span(space.h(1), B * space.row),
                             span(space.c(), B * space.row)};
  CHECK(space.h(2) == space.h(0) && space.operand(3) == space.operand(1));
  if constexpr (is_quantized<E>) {
    for (int rank = 0; rank < threads; ++rank) {
      parts.push_back(span(space.h_scales(rank), B));
      parts.push_back(span(space.quantized_h(rank), B * space.row / values));
      parts.push_back(span(space.x_scales(rank), chunk));
    }
  } else if (values == 1) {
    CHECK(static_cast<const void*>(space.operand(1)) == space.h(1));
  } else {
    parts.push_back(span(space.operand(0), B * space.row / values));
    parts.push_back(span(space.operand(1), B * space.row / values));
  }
  for (int rank = 0; rank < threads; ++rank) {
    if (!training) parts.push_back(span(space.z(rank), chunk * U * Shape::slots * L));
    if (values > 1) parts.push_back(span(space.rounded_x(rank), chunk * ceil_div(I, values)));
    parts.push_back(span(space.x_rows(rank), chunk));
    parts.push_back(span(space.z_rows(rank), chunk));
    parts.push_back(span(space.y_rows(rank), chunk));
    CHECK(reinterpret_cast<uintptr_t>(space.x_rows(rank)) % alignof(void*) == 0);
  }
  std::sort(parts.begin(), parts.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  const Span all = span(memory.data(), space.total);
  CHECK(parts.front().begin >= all.begin && parts.back().end <= all.end);
  for (size_t i = 0; i + 1 < parts.size(); ++i) CHECK(parts[i].end <= parts[i + 1].begin);
}

UNIT_TEST(parts_do_not_overlap) {
  for (int64_t H : {1, 3, 16, 17, 1024, 2048})
    for (int64_t B : {1, 5, 600})
      for (int threads : {1, 3})
        for (bool training : {false, true}) {
          parts_are_apart<LstmShape, float, float>(H, B, 7, threads, training);
          parts_are_apart<GruShape, double, double>(H, B, 7, threads, training);
          parts_are_apart<LstmShape, float, Pair>(H, B, 7, threads, training);
          if (!training) parts_are_apart<LstmShape, float, Quad>(H, B, 7, threads, training);
        }
}

}  // namespace
}  // namespace fusedrnn::baseline
