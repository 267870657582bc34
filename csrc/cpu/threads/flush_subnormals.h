#pragma once
#include <cstdint>

namespace fusedrnn {

// Sets flush-to-zero and denormals-are-zero for its lifetime: subnormal numbers would slow the kernels 20-fold.
class FlushSubnormals {
 public:
  FlushSubnormals();
  ~FlushSubnormals();
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  uint64_t saved_;
};

}  // namespace fusedrnn
