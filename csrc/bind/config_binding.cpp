#include <pybind11/stl.h>

#include <chrono>

#include "bind/gil.h"
#include "bind/register.h"
#include "core/error.h"
#include "cpu/isa.h"
#include "cpu/threads/openmp.h"
#include "cpu/threads/thread_pool.h"
#include "system/system.h"

namespace py = pybind11;

namespace fusedrnn {
namespace {

// GFLOP/s of one thread that does nothing but fused multiply-adds in registers: the roof of this core right now.
double fma_peak(int64_t (*multiply_add)(int64_t), double seconds) {
  using clock = std::chrono::steady_clock;
  double best = 0;
  const auto start = clock::now();
  do {
    const auto begin = clock::now();
    const double operations = static_cast<double>(multiply_add(160'000));
    const double elapsed = std::chrono::duration<double>(clock::now() - begin).count();
    best = std::max(best, operations / elapsed * 1e-9);
  } while (std::chrono::duration<double>(clock::now() - start).count() < seconds);
  return best;
}

}  // namespace

// The number of threads without Python, by the names by which threadpoolctl finds it (python/fusedrnn/threadpools.py).
extern "C" {
PYBIND11_EXPORT int fusedrnn_get_num_threads();
PYBIND11_EXPORT void fusedrnn_set_num_threads(int n);
int fusedrnn_get_num_threads() { return num_threads(); }
void fusedrnn_set_num_threads(int n) { set_num_threads(n < 1 ? 1 : n > 1023 ? 1023 : n); }
}

void register_config(py::module_& m) {
  m.def("isa", [] { return std::string(isa().name); });
  m.def("available_isas", &available_isas, py::arg("extensions") = false);
  m.def("int8", [] { return std::string(int8_kernels().name); });
  m.def("bfloat16", [] {
    if (!bfloat16_kernels().cell) return "none";
    return bfloat16_kernels().in_hardware ? "hardware" : "emulated";
  });
  m.def("available_threads", &available_threads);
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("set_thread_source", [](bool openmp) {
    if (openmp && !openmp_is_loaded()) return false;
    set_thread_source(openmp ? ThreadSource::openmp : ThreadSource::own);
    return true;
  });
  m.def("thread_source", [] { return thread_source() == ThreadSource::openmp ? "openmp" : "own"; });
  m.def("wait_for_workers", &wait_for_workers, py::arg("always"));
  m.def(
      "fma_peak",
      [](const std::string& dtype, double seconds) {
        if (dtype != "float32" && dtype != "float64" && dtype != "int8")
          throw TypeMismatch("fma_peak: dtype is " + dtype + "; expected float32, float64 or int8");
        const auto multiply_add = dtype == "float32"   ? kernels<float>().multiply_add
                                  : dtype == "float64" ? kernels<double>().multiply_add
                                                       : int8_kernels().multiply_add;
        double peak = 0;
        without_gil([&] { peak = fma_peak(multiply_add, seconds); });
        return peak;
      },
      py::arg("dtype"), py::arg("seconds"));
}

}  // namespace fusedrnn
