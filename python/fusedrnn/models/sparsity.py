"""A penalty that keeps most of a code near 0."""

from __future__ import annotations

import numpy as np

from ..layers.arrays import Array
from ..layers.namespace import namespace_of

_NEAREST = 1e-7  # a mean activation of exactly 0 or 1 would have an infinite divergence


class Sparsity:
    """weight * R(code) with its gradient, a mean over the samples.

    R is the sum of the absolute values, or with a target r the sum over the units of KL(r || m) =
    r log(r/m) + (1-r) log((1-r)/(1-m)), with a unit's mean activation m (Ng 2011, sparse autoencoder).
    """

    def __init__(self, op: str, weight: float, target: float | None, activation: str) -> None:
        if not weight >= 0:
            raise ValueError(f"{op}: sparsity is {weight}; expected a number >= 0")
        if target is not None and not 0 < target < 1:
            raise ValueError(f"{op}: sparsity_target is {target}; expected a number in (0, 1)")
        if target is not None and activation != "sigmoid":
            raise ValueError(f"{op}: code_activation is {activation!r}; expected 'sigmoid' with a sparsity_target")
        self.weight, self.target = float(weight), target

    def value(self, code: Array) -> float:
        """Return the penalty of a code (..., C)."""
        rows = code.reshape(-1, code.shape[-1])
        if self.weight == 0 or len(rows) == 0:
            return 0.0
        xp = namespace_of(rows)
        if self.target is None:
            return self.weight * float(xp.abs(rows).sum(dtype=np.float64)) / len(rows)
        m, r = self._means(rows), self.target
        return self.weight * float((r * xp.log(r / m) + (1 - r) * xp.log((1 - r) / (1 - m))).sum())

    def gradient(self, code: Array) -> Array:
        """Return the penalty's gradient, shaped as the code."""
        rows, xp = code.reshape(-1, code.shape[-1]), namespace_of(code)
        gradient: Array
        if self.weight == 0 or len(rows) == 0:
            gradient = xp.zeros_like(code)
            return gradient
        scale = self.weight / len(rows)
        if self.target is None:
            gradient = xp.sign(code) * code.dtype.type(scale)
            return gradient
        m, r = self._means(rows), self.target
        slope = (scale * ((1 - r) / (1 - m) - r / m)).astype(code.dtype)
        gradient = xp.broadcast_to(slope, code.shape)
        return gradient

    def _means(self, rows: Array) -> Array:
        means: Array = namespace_of(rows).clip(rows.mean(axis=0, dtype=np.float64), _NEAREST, 1 - _NEAREST)
        return means
