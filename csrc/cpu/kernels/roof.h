// The roof of a core: what the benchmark holds the kernels' speed against.
#pragma once
#include "cpu/kernels/tile.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Does so many rounds of multiply-adds and returns the operations. Chains that never leave their registers: two
// operations a cycle, each ready after four, so 8 are needed; 16 registers hold 10.
template <class E> int64_t multiply_add(int64_t rounds) {
  using T = typename Operand<E>::Sum;
  using V = Vec<T>;
  constexpr int chains = 10;
  V acc[chains];
  each<chains>([&](auto i) FUSEDRNN_BODY { acc[i] = V(T(int(i))); });
  if constexpr (is_quantized<E>) {
    const Vec<E> a(E{0x81828384u}), b = opaque(Vec<E>(E{0x01FF02FEu}));
    for (int64_t round = 0; round < rounds; ++round)
      each<chains>([&](auto i) FUSEDRNN_BODY { acc[i] = opaque(fma(a, b, acc[i])); });
  } else {
    const V a(T(0.999999)), b(T(1e-6));
    for (int64_t round = 0; round < rounds; ++round)
      each<chains>([&](auto i) FUSEDRNN_BODY { acc[i] = opaque(fma(acc[i], a, b)); });
  }
  each<chains>([&](auto i) FUSEDRNN_BODY { acc[0] = acc[0] + acc[i]; });
  asm volatile("" : : "m"(acc[0]));
  return rounds * chains * V::lanes * Operand<E>::values * 2;
}

}  // namespace fusedrnn::FUSEDRNN_ISA
