"""How far a result may be from the truth: one table per dtype, each number with its reason."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Tolerance(NamedTuple):
    """Bounds for one dtype.

    forward : absolute error of every output element, in units of the largest output where that is over 1: an LSTM's c
        and the h of a relu are not bounded, and the roundings of a sum are as large as its terms.
    gradient : 2-norm of the error over the 2-norm of the truth, tensor by tensor.
    """

    forward: float
    gradient: float


TOLERANCE = {
    # The promise of the package for T <= 1000. One rounding is 6e-8; the sums are single chains of up to 2050 products
    # whose roundings grow like the square root of their number, and are damped by the gate functions (slope <= 1).
    "float32": Tolerance(forward=1e-6, gradient=1e-5),
    # The same argument with a rounding of 1.1e-16. Far inside the goal of a gradcheck with atol 1e-7, rtol 1e-5: the
    # complex step of the reference is exact to rounding, so only the kernel's own rounding is left to allow for.
    "float64": Tolerance(forward=1e-14, gradient=1e-13),
}

# Of the CUDA kernels on a GPU: cuBLAS sums in another order than the reference, and in shorter chains; tanh and exp are
# within 2 ulp.
ON_DEVICE = {
    "float32": Tolerance(forward=1e-5, gradient=2e-5),
    "float64": Tolerance(forward=1e-13, gradient=1e-12),
}

# Half of the spacing of numbers at 1; TF32 rounds the inputs of products to 10 bits.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
TF32_ROUNDING = 2.0**-11

# A gradient against a central difference in float64, in units of the derivative where that is over 1. A difference is
# off by about the step squared times the third derivative, and by a rounding over the step: 1e-10 here.
DIFFERENCE_STEP = 1e-5
DIFFERENCE = 2e-8

# Curves of losses against torch's, from the same numbers: after 51 steps only roundings may have made a difference.
CURVES = {"float64": 1e-9, "float32": 1e-4}

# Elements of a gradient tensor differ in size, but their errors come from the same sums: an element may be off by what
# the norm-wise bound grants an average element, times this.
ELEMENT = 3.0


def assert_forward(actual: Array, truth: Array, what: object = "") -> None:
    """Hold every element to the tolerance of the dtype of ``actual``; NaN equals NaN, and an infinity itself."""
    assert actual.shape == truth.shape, f"{what}: shape {actual.shape}, truth has {truth.shape}"
    same = (actual == truth) | (np.isnan(actual) & np.isnan(truth))
    scale = np.max(np.abs(truth), where=np.isfinite(truth), initial=1)
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0, np.abs(actual.astype(np.float64) - truth))
    worst = np.max(error, initial=0) / scale
    assert worst <= TOLERANCE[actual.dtype.name].forward, f"{what}: forward error {worst:.2e}"


def assert_gradient(actual: Array, truth: Array, what: object = "") -> None:
    """Hold the tensor to the tolerance of the dtype of ``actual``, norm-wise and element by element."""
    assert actual.shape == truth.shape, f"{what}: shape {actual.shape}, truth has {truth.shape}"
    tolerance = TOLERANCE[actual.dtype.name].gradient
    error = np.abs(actual.astype(np.float64) - truth)
    size = np.linalg.norm(truth)
    assert np.linalg.norm(error) <= tolerance * size, f"{what}: gradient error {np.linalg.norm(error) / size:.2e}"
    allowed = tolerance * (np.abs(truth) + ELEMENT * size / np.sqrt(max(1, truth.size)))
    worst = np.max(error - allowed, initial=0)
    assert worst <= 0, f"{what}: an element of the gradient is off by {worst:.2e} more than allowed"


def assert_slope(gradient: Array, along: Array, truth: float, what: object = "") -> None:
    """Hold ``gradient``, projected on the random direction ``along``, to the derivative of the reference along it."""
    error = abs(float(np.sum(gradient.astype(np.float64) * along)) - truth)
    allowed = ELEMENT * TOLERANCE[gradient.dtype.name].gradient * np.linalg.norm(gradient.astype(np.float64))
    assert error <= allowed, f"{what}: slope is off by {error:.2e}, allowed {allowed:.2e}"


def assert_same_bits(actual: Array, expected: Array, what: object = "") -> None:
    """Demand the same shape, dtype and bits; -0 is not 0."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype}, expected {expected.dtype}"
    bits = f"u{actual.dtype.itemsize}"
    different = np.ascontiguousarray(actual).view(bits) != np.ascontiguousarray(expected).view(bits)
    count = int(np.count_nonzero(different))
    assert count == 0, (
        f"{what}: {count} of {actual.size} elements differ, first at {np.argwhere(different)[0].tolist()}"
    )
