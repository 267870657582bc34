"""Constraints on weights that hold throughout training."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

import numpy as np

from ..arrays.answering import answering
from ..arrays.checks import Array
from ..arrays.namespace import assign, to_host
from ..layers.base import Layer
from .callbacks import Callback, Training
from .gradients import unique_arrays


class SpectralNormLimit(Callback):
    """Keep the largest singular value of recurrent weights at or below a limit.

    Before training and after every step, singular values above the limit are lowered to it: the nearest matrix that
    meets the constraint. With a limit of 1 gradients of an RNN cannot explode (Pascanu et al. 2013).

    Parameters
    ----------
    limit : float
        Upper bound, positive.
    pattern : str
        Which parameters, as a shell pattern of their names. A weight (G*H, H) counts as G blocks (H, H), one per gate.

    Raises
    ------
    ValueError
        If ``limit`` is not positive; when training begins, if no parameter fits ``pattern`` or one is not a matrix.
    """

    def __init__(self, limit: float = 1.0, pattern: str = "*weight_hh*") -> None:
        if not 0 < limit < math.inf:
            raise ValueError(f"SpectralNormLimit: limit is {limit}; expected a positive number")
        self.limit = limit
        self.pattern = pattern
        self._constraint = lambda: None

    def on_train_begin(self, training: Training) -> None:
        """Apply the constraint, and have the optimizer do so after each of its steps."""

        def constraint() -> None:
            self.apply(training.model)

        constraint()
        self._constraint = constraint
        training.optimizer.constraints.append(constraint)

    def on_train_end(self, training: Training) -> None:
        """Leave the optimizer as it was."""
        if self._constraint in training.optimizer.constraints:
            training.optimizer.constraints.remove(self._constraint)

    def apply(self, layer: Layer) -> None:
        """Lower the singular values of the layer's parameters now, in place."""
        chosen = {name: p for name, p in unique_arrays(layer.params).items() if fnmatchcase(name, self.pattern)}
        if not chosen:
            raise ValueError(f"SpectralNormLimit: pattern is {self.pattern!r}, which fits no parameter of {layer.op}")
        for name, param in chosen.items():
            if param.ndim != 2:
                raise ValueError(f"SpectralNormLimit: {name} has shape {param.shape}; expected a matrix")
            rows, columns = param.shape
            blocks = rows // columns if rows % columns == 0 else 1
            host = to_host(param)  # of a parameter on the cpu: itself
            lowered = [_lower_singular_values(block, self.limit) for block in np.split(host, blocks)]
            if host is not param and any(lowered):
                assign(param, host)


def _lower_singular_values(weight: Array, limit: float) -> bool:
    """Replace ``weight`` by U min(S, limit) V^T, if a singular value is above the limit; say whether one was."""
    # The norm is at most the root of (largest row sum) (largest column sum): often enough to spare the decomposition.
    sums = np.abs(weight).sum(axis=0).max(initial=0) * np.abs(weight).sum(axis=1).max(initial=0)
    if sums <= limit * limit or not np.isfinite(weight).all():
        return False
    lowered = answering(_lowered, weight.astype(np.float64), limit)
    if lowered is None:
        return False
    np.copyto(weight, lowered, casting="same_kind")
    return True


def _lowered(weight: Array, limit: float) -> Array | None:
    u, singular, vt = np.linalg.svd(weight, full_matrices=False)
    return None if singular[0] <= limit else (u * np.minimum(singular, limit)) @ vt
