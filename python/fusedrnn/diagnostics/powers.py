"""Powers of a recurrent matrix: what a gradient meets on its way back through time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays.answering import answering
from ..arrays.checks import Array, as_real, integer

NORMS = {"spectral": 2, "frobenius": "fro"}


def matrix_norms(op: str, matrices: Array, norm: str) -> Array:
    """Return the norm of each matrix on the last two axes; ValueError for an unknown norm."""
    if norm not in NORMS:
        raise ValueError(f"{op}: norm is {norm!r}; expected one of {', '.join(map(repr, NORMS))}")

    def norms(scaled: Array) -> Array:  # one by one, so that Ctrl-C need not wait for all
        one_by_one = scaled.reshape(-1, *scaled.shape[-2:])
        each = [answering(np.linalg.norm, matrix, NORMS[norm]) for matrix in one_by_one]
        return np.array(each, np.float64).reshape(scaled.shape[:-2])

    return _scaled_norms(matrices, (-2, -1), norms)


def vector_norms(vectors: Array) -> Array:
    """Return the 2-norm of each vector on the last axis; infinite where an element is not finite."""
    return _scaled_norms(vectors, (-1,), lambda scaled: np.linalg.norm(scaled, axis=-1))


def _scaled_norms(arrays: Array, axes: tuple[int, ...], norms: Callable[[Array], Array]) -> Array:
    """Return the norms over ``axes``, of arrays with 1 as the largest element: squares keep within float64.

    So a norm may be as small or large as an element. Those of arrays with an element that is not finite are infinite.
    """
    largest = np.abs(arrays).max(axis=axes, initial=0.0, keepdims=True)
    finite = np.isfinite(largest)
    with np.errstate(invalid="ignore"):
        scaled = np.where(finite, arrays / np.where(finite & (largest > 0), largest, 1.0), 0.0)
    size = largest.reshape(largest.shape[: -len(axes)])
    with np.errstate(over="ignore"):  # the norm itself may be beyond
        return np.where(np.isfinite(size), size * norms(scaled), np.inf)


def spectral_radius(weight: Any) -> float:
    """Return the largest absolute eigenvalue of a square matrix: (W^T)^t grows or falls like its t-th power."""
    matrix = _square("spectral_radius", weight)
    return float(np.abs(answering(np.linalg.eigvals, matrix)).max(initial=0.0))


def spectral_norm(weight: Any) -> float:
    """Return the largest singular value of a matrix: no vector grows by more in one step."""
    return float(
        matrix_norms("spectral_norm", as_real("spectral_norm", "weight", weight, np.dtype(np.float64)), "spectral")
    )


def power_norms(weight: Any, steps: int, *, norm: str = "spectral") -> Array:
    r"""Return the norms of (W^T)^t for t = 0 .. ``steps``.

    Without its non-linearity a recurrent network has :math:`\partial h(t) / \partial h(0) = (W^T)^t`, which vanishes or
    explodes with the spectral radius of W (Bengio et al. 1994; Pascanu et al. 2013).

    Parameters
    ----------
    weight : array_like (H, H)
        W; for a layer with gates, one gate's block.
    steps : int
        The highest power, >= 0.
    norm : {"spectral", "frobenius"}
        The largest singular value, or the root of the sum of their squares.

    Returns
    -------
    ndarray (steps + 1,) of float64
        Infinite where the norm is above the largest float64; all NaN if ``weight`` has a NaN.

    Raises
    ------
    ValueError
        If ``weight`` is not square, ``steps`` negative or ``norm`` unknown.
    """
    matrix = _square("power_norms", weight).T
    if integer("power_norms", "steps", steps) < 0:
        raise ValueError(f"power_norms: steps is {steps}; expected a number >= 0")
    if np.isnan(matrix).any():
        return np.full(steps + 1, np.nan)
    logs = np.empty(steps + 1)
    power, log = np.eye(len(matrix)), 0.0
    for t in range(steps + 1):
        size = float(matrix_norms("power_norms", power, norm))
        # The power is kept at norm 1, so that neither it nor a sum inside it leaves the range of float64.
        log = log + np.log(size) if size > 0 else -np.inf
        logs[t] = log
        power = answering(np.matmul, power / size, matrix) if size > 0 else power
    with np.errstate(over="ignore"):
        return np.exp(logs)


def _square(op: str, weight: Any) -> Array:
    matrix = as_real(op, "weight", weight, np.dtype(np.float64))
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{op}: weight has shape {matrix.shape}; expected (H, H)")
    return matrix
