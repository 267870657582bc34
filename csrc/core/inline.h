// FUSEDRNN_INLINE: for functions that one source gives to several processors, CPUs of different ISAs and GPUs. They are
// inlined everywhere, or the linker might keep a copy that another processor cannot run.
#pragma once

#if defined(__CUDACC__)
#define FUSEDRNN_INLINE __host__ __device__ __forceinline__
#else
#define FUSEDRNN_INLINE inline __attribute__((always_inline))
#endif
