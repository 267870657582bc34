#include "cpu/isa.h"

#include <cstdlib>

#include "core/error.h"
#include "system/system.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

// From the table of CMakeLists.txt, slowest first: FUSEDRNN_ISAS(X) lists X(namespace, "name");
// FUSEDRNN_BFLOAT16(X) lists X(namespace, namespace of its bfloat16 kernels, in hardware?), FUSEDRNN_INT8(X) likewise
// X(namespace, namespace of its int8 kernels, "name").
#include "isa_table.h"

namespace fusedrnn {

#define FUSEDRNN_DECLARE(space, name)       \
  namespace space {                         \
  extern const Kernels<float> kernels_f32;  \
  extern const Kernels<double> kernels_f64; \
  }
FUSEDRNN_ISAS(FUSEDRNN_DECLARE)
#define FUSEDRNN_DECLARE_BFLOAT16(space, kernels, hardware)     \
  namespace kernels {                                           \
  extern const CellKernels<float> cells_bf16[fixed_cell_count]; \
  }
FUSEDRNN_BFLOAT16(FUSEDRNN_DECLARE_BFLOAT16)
#define FUSEDRNN_DECLARE_INT8(space, kernels, name)             \
  namespace kernels {                                           \
  extern const CellKernels<float> cells_int8[fixed_cell_count]; \
  int64_t multiply_int8(int64_t rounds);                        \
  }
FUSEDRNN_INT8(FUSEDRNN_DECLARE_INT8)

namespace {

namespace probe {
#if defined(__x86_64__)
bool x86_64_v2() { return __builtin_cpu_supports("sse4.2"); }
bool avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
[[maybe_unused]] bool x86_64_v2_int8() { return x86_64_v2(); }
[[maybe_unused]] bool avx2_int8() { return avx2(); }
// Older compilers know no name for it: leaf 7, subleaf 1 of cpuid.
[[maybe_unused]] bool avx2_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
bool avx512() {
  return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
[[maybe_unused]] bool avx512_bf16() { return avx512() && __builtin_cpu_supports("avx512bf16"); }
[[maybe_unused]] bool avx512_int8() { return avx512(); }
[[maybe_unused]] bool avx512_vnni() { return avx512() && __builtin_cpu_supports("avx512vnni"); }
#else
bool neon() { return true; }
bool neon_int8() { return true; }
bool neon_dotprod() { return processor_has_dot_product(); }
#endif
}  // namespace probe

#define FUSEDRNN_ENTRY(space, name) {name, probe::space, &space::kernels_f32, &space::kernels_f64},
const Isa compiled[] = {FUSEDRNN_ISAS(FUSEDRNN_ENTRY)};

struct Int8Isa {
  Int8Kernels kernels;
  bool (*supported)();
  const Kernels<float>* f32;  // of the instruction set that it belongs to
};
#define FUSEDRNN_INT8_ENTRY(space, kernels, name) \
  {{name, kernels::cells_int8, kernels::multiply_int8}, probe::kernels, &space::kernels_f32},
const Int8Isa compiled_int8[] = {FUSEDRNN_INT8(FUSEDRNN_INT8_ENTRY)};

// The one that FUSEDRNN_ISA names and the processor has; null: none.
const Int8Isa* wanted_int8() {
  const char* wanted = std::getenv("FUSEDRNN_ISA");
  if (!wanted || !*wanted) return nullptr;
  for (const Int8Isa& candidate : compiled_int8)
    if (wanted == std::string(candidate.kernels.name) && candidate.supported()) return &candidate;
  return nullptr;
}

const Isa& choose() {
  const char* wanted = std::getenv("FUSEDRNN_ISA");
  if (const Int8Isa* extension = wanted_int8())
    for (const Isa& candidate : compiled)
      if (candidate.f32 == extension->f32) return candidate;
  const Isa* best = nullptr;
  for (const Isa& candidate : compiled) {
    const bool supported = candidate.supported();
    if (wanted && *wanted) {
      if (wanted == std::string(candidate.name) && supported) return candidate;
    } else if (supported) {
      best = &candidate;
    }
  }
  if (best) return *best;
  std::string names;
  for (const std::string& name : available_isas(true)) names += (names.empty() ? "" : ", ") + name;
  fail("fusedrnn", "FUSEDRNN_ISA", "is '" + std::string(wanted ? wanted : "") + "'",
       "one that this processor supports: " + names);
}

Bfloat16Kernels choose_bfloat16() {
  Bfloat16Kernels best{nullptr, false};
#define FUSEDRNN_TRY(space, kernels, hardware) \
  if (isa().f32 == &space::kernels_f32 && probe::kernels()) best = {kernels::cells_bf16, hardware};
  FUSEDRNN_BFLOAT16(FUSEDRNN_TRY)
  return best;
}

}  // namespace

std::vector<std::string> available_isas(bool extensions) {
  std::vector<std::string> names;
  for (const Isa& candidate : compiled) {
    if (!candidate.supported()) continue;
    names.push_back(candidate.name);
    for (const Int8Isa& int8 : compiled_int8)
      if (extensions && int8.f32 == candidate.f32 && int8.kernels.name != names.back() && int8.supported())
        names.push_back(int8.kernels.name);
  }
  return names;
}

const Isa& isa() {
  static const Isa& chosen = choose();
  return chosen;
}

const Int8Kernels& int8_kernels() {
  static const Int8Kernels chosen = [] {
    if (const Int8Isa* named = wanted_int8()) return named->kernels;
    Int8Kernels best{};
    for (const Int8Isa& candidate : compiled_int8)
      if (candidate.f32 == isa().f32 && candidate.supported()) best = candidate.kernels;
    return best;
  }();
  return chosen;
}

const Bfloat16Kernels& bfloat16_kernels() {
  static const Bfloat16Kernels chosen = choose_bfloat16();
  return chosen;
}

}  // namespace fusedrnn
