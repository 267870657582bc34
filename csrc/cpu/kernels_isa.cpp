// Compiled once per ISA and kind of operands (CMakeLists.txt holds the table) with FUSEDRNN_ISA, FUSEDRNN_VECTOR_BYTES
// and one of FUSEDRNN_OPERAND_float, _double, _bfloat16 set.
#include "cpu/cell_step.h"
#include "cpu/kernels.h"
#include "cpu/row_products.h"
#include "cpu/transpose.h"

namespace fusedrnn::FUSEDRNN_ISA {

#include "cells/activation.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"

namespace {

#if defined(FUSEDRNN_OPERAND_double)
using Real = double;
using Element = double;
#elif defined(FUSEDRNN_OPERAND_bfloat16)
using Real = float;
using Element = Pair;
#else
using Real = float;
using Element = float;
#endif

template <class Shape, class T, class E> int64_t workspace(const Sequence<T>& q, int team_size) {
  const int64_t time_loop = Workspace<Shape, T, E>(q, team_size).total;
  const int64_t weights = team_size * WeightGradient<Shape, T, E>::buffer_size(q);
  return time_loop > weights ? time_loop : weights;
}

template <class C, class T, class E> constexpr CellKernels<T> cell_kernels() {
  using Shape = ShapeOf<C>;
  return {C::layout,
          workspace<Shape, T, E>,
          ForwardCell<C, T, E>::run,
          BackwardCell<C, T, E>::run,
          InputGradient<Shape, T, E>::run,
          WeightGradient<Shape, T, E>::run};
}

#define FUSEDRNN_CELL_KERNELS(kind, cell, name) cell_kernels<cell, Real, Element>(),

#if !defined(FUSEDRNN_OPERAND_bfloat16)
// Chains that never leave their registers: two operations a cycle, each ready after four, so 8 are needed; 16 registers
// hold 10.
int64_t multiply_add(int64_t rounds) {
  using V = Vec<Real>;
  constexpr int chains = 10;
  V acc[chains];
  const V a(Real(0.999999)), b(Real(1e-6));
  each<chains>([&](auto i) FUSEDRNN_BODY { acc[i] = V(Real(int(i))); });
  for (int64_t round = 0; round < rounds; ++round)
    each<chains>([&](auto i) FUSEDRNN_BODY { acc[i] = opaque(fma(acc[i], a, b)); });
  each<chains>([&](auto i) FUSEDRNN_BODY { acc[0] = acc[0] + acc[i]; });
  asm volatile("" : : "m"(acc[0]));
  return rounds * chains * V::lanes * 2;
}

// 32 lanes of 64 bits. Each step is a bijection of a lane's state and of its input, so no single change can hide.
// The shift carries the high bits, sign and exponent, back down: the product alone moves bits only up.
FUSEDRNN_INLINE uint64_t mix(uint64_t x) {
  x *= 0x9E3779B97F4A7C15u;
  return x ^ (x >> 29);
}

void fingerprint(const void* data, int64_t n, uint64_t* state) {
  const char* p = static_cast<const char*>(data);
  constexpr int lanes = 32;
  uint64_t s[lanes];
  for (int i = 0; i < lanes; ++i) s[i] = state[i];
  for (; n >= lanes * 8; n -= lanes * 8, p += lanes * 8)
    for (int i = 0; i < lanes; ++i) {
      uint64_t word;
      __builtin_memcpy(&word, p + i * 8, 8);
      s[i] = mix(s[i] ^ word);
    }
  for (int i = 0; n > 0; n -= 4, p += 4, ++i) {
    uint32_t word;
    __builtin_memcpy(&word, p, 4);
    s[i % lanes] = mix(s[i % lanes] ^ word);
  }
  for (int i = 0; i < lanes; ++i) state[i] = s[i];
}

#endif

}  // namespace

#if defined(FUSEDRNN_OPERAND_bfloat16)
extern const CellKernels<float> cells_bf16[cell_count];
const CellKernels<float> cells_bf16[cell_count] = {FUSEDRNN_CELLS(FUSEDRNN_CELL_KERNELS)};
#else
#if defined(FUSEDRNN_OPERAND_double)
#define FUSEDRNN_TABLE kernels_f64
#else
#define FUSEDRNN_TABLE kernels_f32
#endif
extern const Kernels<Real> FUSEDRNN_TABLE;
const Kernels<Real> FUSEDRNN_TABLE = {Vec<Real>::lanes,
                                      {FUSEDRNN_CELLS(FUSEDRNN_CELL_KERNELS)},
                                      RowProducts<Real>::run,
                                      multiply_add,
                                      Transpose<Real>::copy,
                                      Transpose<Real>::add,
                                      fingerprint};
#endif

}  // namespace fusedrnn::FUSEDRNN_ISA
