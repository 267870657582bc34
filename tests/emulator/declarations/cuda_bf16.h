// See narrow_float.h.
#pragma once
#include "narrow_float.h"
using __nv_bfloat16 = NarrowFloat<8>;
