#include "cpu/isa.h"

#include <cstdlib>

#include "core/error.h"

// From the table of CMakeLists.txt, slowest first: FUSEDRNN_ISAS(X) lists X(namespace, "name");
// FUSEDRNN_BFLOAT16(X) lists X(namespace, namespace of its bfloat16 kernels, in hardware?).
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

namespace {

namespace probe {
#if defined(__x86_64__)
bool x86_64_v2() { return __builtin_cpu_supports("sse4.2"); }
bool avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool avx512() {
  return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
bool avx512_bf16() { return avx512() && __builtin_cpu_supports("avx512bf16"); }
#else
bool neon() { return true; }
#endif
}  // namespace probe

#define FUSEDRNN_ENTRY(space, name) {name, probe::space, &space::kernels_f32, &space::kernels_f64},
const Isa compiled[] = {FUSEDRNN_ISAS(FUSEDRNN_ENTRY)};

const Isa& choose() {
  const char* wanted = std::getenv("FUSEDRNN_ISA");
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
  for (const std::string& name : available_isas()) names += (names.empty() ? "" : ", ") + name;
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

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& candidate : compiled)
    if (candidate.supported()) names.push_back(candidate.name);
  return names;
}

const Isa& isa() {
  static const Isa& chosen = choose();
  return chosen;
}

const Bfloat16Kernels& bfloat16_kernels() {
  static const Bfloat16Kernels chosen = choose_bfloat16();
  return chosen;
}

}  // namespace fusedrnn
