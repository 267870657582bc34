#include "cpu/isa.h"

#include <cstdlib>

#include "core/error.h"

// FUSEDRNN_ISAS(X) is the table of CMakeLists.txt: X(namespace, "name"), slowest first.
#include "isa_table.h"

namespace fusedrnn {

#define FUSEDRNN_DECLARE(space, name)       \
  namespace space {                         \
  extern const Kernels<float> kernels_f32;  \
  extern const Kernels<double> kernels_f64; \
  }
FUSEDRNN_ISAS(FUSEDRNN_DECLARE)

namespace {

namespace probe {
#if defined(__x86_64__)
bool x86_64_v2() { return __builtin_cpu_supports("sse4.2"); }
bool avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool avx512() {
  return avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
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

}  // namespace fusedrnn
