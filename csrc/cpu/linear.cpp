#include "cpu/linear.h"

#include "cpu/run_plan.h"

namespace fusedrnn {

template <class T> void run_linear(const LinearCall<T>& call, const Interrupt& interrupt) {
  const Buffer<T> packed = pack_panels(call.weight, call.row, call.column, call.O, call.I, interrupt);
  const LinearProduct<T> product{call.rows, call.I, call.O, call.x, packed.get(), call.y};
  const int64_t multiply_adds = call.rows * call.I * call.O;
  const int threads = worthwhile_threads(multiply_adds, num_threads());
  run_plan({Scheme::by_sample, threads, threads, patience_for(multiply_adds)}, threads, interrupt,
           [&](Thread& thread, const Plan&) { kernels<T>().linear(product, thread.share(thread.size, 0, 0)); });
}

template void run_linear(const LinearCall<float>&, const Interrupt&);
template void run_linear(const LinearCall<double>&, const Interrupt&);

}  // namespace fusedrnn
