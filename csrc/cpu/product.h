// Products of matrices: of linear layers, attention and their gradients.
#pragma once
#include "core/product.h"
#include "cpu/threads/region.h"

namespace fusedrnn {

// Sizes, factors and y are the caller's; the workspace is taken here.
template <class T> void run_product(Product<T> product, const Interrupt& interrupt);

}  // namespace fusedrnn
