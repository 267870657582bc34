"""The gradients of a layer or model as training looks at them and clips them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..arrays.checks import Array, positive
from ..arrays.namespace import all_finite, square_sum
from ..layers.base import Layer


def clip_grad_norm(layer: Layer, max_norm: float) -> float:
    """Scale the gradients in place so that their global 2-norm is at most ``max_norm``.

    All gradients are scaled by min(1, max_norm / (norm + 1e-6)), as ``torch.nn.utils.clip_grad_norm_`` does (Pascanu
    et al. 2013). The norm is summed in float64, so that exploding float32 gradients do not overflow.

    Returns
    -------
    float
        The norm before; NaN or infinity if a gradient is not finite, and then no gradient has changed.

    Raises
    ------
    ValueError
        If ``max_norm`` is not positive.
    TypeError
        If it is not a number.
    """
    return Gradients(layer).clip_norm(positive("clip_grad_norm", "max_norm", max_norm))


def clip_grad_value(layer: Layer, limit: float) -> None:
    """Clip every gradient element to [-limit, limit] in place; ValueError unless ``limit`` is positive."""
    Gradients(layer).clip_value(positive("clip_grad_value", "limit", limit))


class Gradients:
    """The gradients of a layer that are not frozen, each once, as they are now: of a sparse one the rows that count.

    Parameters
    ----------
    layer : Layer
        Nobody else changes its gradients meanwhile.
    """

    def __init__(self, layer: Layer) -> None:
        self._xp = layer.xp
        self._arrays: dict[str, Array] = {}
        self._sparse: list[tuple[str, Array, Array]] = []  # whole arrays and their rows, of which _arrays has a copy
        self._squares: float | None = None
        seen = set()
        for prefix, each in layer._occurrences():
            rows = each._own_gradient_rows()
            for key, grad in each._grads.items():
                if id(grad) in seen:
                    continue
                seen.add(id(grad))
                if not each.trainable:
                    continue
                name = prefix + key
                if key in rows:
                    self._sparse.append((name, grad, rows[key]))
                    grad = grad[rows[key]]
                self._arrays[name] = grad

    @property
    def square_sum(self) -> float:
        """The sum of all squares, in float64."""
        if self._squares is None:
            self._squares = float(sum([square_sum(self._xp, grad) for grad in self._arrays.values()]))
        return self._squares

    def wrong(self) -> str:
        """Return the name of a gradient that is not finite, or nothing."""
        if math.isfinite(self.square_sum):
            return ""
        return next((name for name, grad in self._arrays.items() if not all_finite(self._xp, grad)), "")

    def clip_norm(self, max_norm: float) -> float:
        """See ``clip_grad_norm``."""
        norm = math.sqrt(self.square_sum)
        scale = max_norm / (norm + 1e-6)
        if scale < 1 and math.isfinite(norm):
            for grad in self._arrays.values():
                grad *= scale
            self._changed()
        return norm

    def clip_value(self, limit: float) -> None:
        """See ``clip_grad_value``."""
        for grad in self._arrays.values():
            self._xp.clip(grad, -limit, limit, out=grad)
        self._changed()

    def _changed(self) -> None:
        self._squares = None
        for name, whole, rows in self._sparse:
            whole[rows] = self._arrays[name]


def unique_arrays(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays without those that an earlier name has, too: a layer that occurs twice in a model."""
    names: dict[int, str] = {}
    return {name: array for name, array in arrays.items() if names.setdefault(id(array), name) == name}
