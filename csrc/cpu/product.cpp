#include "cpu/product.h"

#include <algorithm>

#include "cpu/run_plan.h"

namespace fusedrnn {

template <class T> void run_product(Product<T> product, const Interrupt& interrupt) {
  const double work = double(product.items) * double(product.rows) * double(product.columns) * double(product.K);
  const int64_t multiply_adds = static_cast<int64_t>(std::min(work, 1e18));  // of broadcast views it may be more
  const int threads = worthwhile_threads(multiply_adds, num_threads());
  const Buffer<T> workspace(threads * kernels<T>().product_workspace(product));
  product.workspace = workspace.get();
  run_plan({Scheme::by_sample, threads, threads, patience_for(multiply_adds)}, threads, interrupt,
           [&](Thread& thread, const Plan&) { kernels<T>().product(product, thread.share(thread.size, 0, 0)); });
}

template void run_product(Product<float>, const Interrupt&);
template void run_product(Product<double>, const Interrupt&);

}  // namespace fusedrnn
