// Whether the weights are still those that were packed (cpu/pack.h): a hash of their bits, at the speed of memory.
#pragma once
#include <stdint.h>

#include "cpu/kernels/vec.h"

namespace fusedrnn::FUSEDRNN_ISA {

// 32 lanes of 64 bits. Each step is a bijection of a lane's state and of its input, so no single change can hide.
// The shift carries the high bits, sign and exponent, back down: the product alone moves bits only up.
FUSEDRNN_INLINE uint64_t mix(uint64_t x) {
  x *= 0x9E3779B97F4A7C15u;
  return x ^ (x >> 29);
}

static inline void fingerprint(const void* data, int64_t n, uint64_t* state) {
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

}  // namespace fusedrnn::FUSEDRNN_ISA
