// What device code computes with: an element type E of arrays and weights, and Sum<E>, in which sums, states and gate
// functions are computed and kept. Compiled for the device by nvcc and for the host twin by the C++ compiler.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "core/cell.h"
#include "core/sequence.h"

// What belongs to a phase is one piece with the kernel, so that a thread's state stays in registers, and a plain
// function in the host twin.
#if defined(__CUDACC__)
#define FUSEDRNN_BOTH __host__ __device__
#define FUSEDRNN_PHASE FUSEDRNN_INLINE
#else
#define FUSEDRNN_BOTH
#define FUSEDRNN_PHASE
#endif
#if defined(__CUDA_ARCH__)
#define FUSEDRNN_UNROLL _Pragma("unroll")
#define FUSEDRNN_DO_NOT_UNROLL _Pragma("unroll 1")
#else
#define FUSEDRNN_UNROLL
#define FUSEDRNN_DO_NOT_UNROLL
#endif

namespace fusedrnn::cuda {

template <class E> struct SumOf {
  using Type = float;
};
template <> struct SumOf<double> {
  using Type = double;
};
template <class E> using Sum = typename SumOf<E>::Type;

template <class E> inline constexpr const char* name_of = "float32";
template <> inline constexpr const char* name_of<double> = "float64";
template <> inline constexpr const char* name_of<__nv_bfloat16> = "bfloat16";
template <> inline constexpr const char* name_of<__half> = "float16";

// Read and written as a whole: in one access, if that is possible.
template <class X, int n> struct alignas(n * sizeof(X) % 16 == 0 ? 16 : n % 2 ? sizeof(X) : n * sizeof(X)) Run {
  X value[n];
};

// What cells/*.h need of a value.
FUSEDRNN_INLINE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
FUSEDRNN_INLINE double fma(double a, double b, double c) { return ::fma(a, b, c); }
FUSEDRNN_INLINE float fnma(float a, float b, float c) { return ::fmaf(-a, b, c); }
FUSEDRNN_INLINE double fnma(double a, double b, double c) { return ::fma(-a, b, c); }
FUSEDRNN_INLINE float tanh(float x) { return ::tanhf(x); }
FUSEDRNN_INLINE double tanh(double x) { return ::tanh(x); }
// Of x >= 1, to a unit in the last place: one instruction, where an exact division takes a dozen that wait for each
// other.
FUSEDRNN_INLINE float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}
FUSEDRNN_INLINE float sigmoid(float x) { return reciprocal(1.0f + ::expf(-x)); }
FUSEDRNN_INLINE double sigmoid(double x) { return 1.0 / (1.0 + ::exp(-x)); }
template <class A> FUSEDRNN_INLINE A positive_part(A x) { return x < A(0) ? A(0) : x; }  // NaN stays NaN
template <class A> FUSEDRNN_INLINE A where_positive(A gate, A x) { return gate > A(0) ? x : A(0); }

#define FUSEDRNN_FORMULAS
#include "cells/list.h"

// Device code cannot name a member of a static class object.
template <class C> inline constexpr int slots_of = C::layout.slots;

// A saved row holds `slots` runs of H values. Those that face W_hh come first, in the order of its blocks, so that the
// products with W_hh read one matrix; the others follow.
FUSEDRNN_BOTH constexpr int position_of_slot(const CellLayout& layout, int slot) {
  for (int g = 0; g < layout.gates; ++g)
    if (layout.recurrent_slot + g == slot) return layout.recurrent_order[g];
  const bool below = slot < layout.recurrent_slot;
  return layout.gates + (below ? slot : slot - layout.gates);
}

}  // namespace fusedrnn::cuda
