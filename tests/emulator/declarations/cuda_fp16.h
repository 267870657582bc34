// See narrow_float.h.
#pragma once
#include "narrow_float.h"
using __half = NarrowFloat<5>;
