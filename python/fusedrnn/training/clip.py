"""Gradient clipping, over all parameters of a layer or model."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..arrays.checks import Array, positive
from ..arrays.namespace import square_sum
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
    max_norm = positive("clip_grad_norm", "max_norm", max_norm)
    grads, xp = gradients_to_change(layer), layer.xp
    norm = math.sqrt(sum([square_sum(xp, grad) for grad in grads.values()]))
    scale = max_norm / (norm + 1e-6)
    if scale < 1 and math.isfinite(norm):
        for grad in grads.values():
            grad *= scale
        put_back(layer, grads)
    return norm


def clip_grad_value(layer: Layer, limit: float) -> None:
    """Clip every gradient element to [-limit, limit] in place; ValueError unless ``limit`` is positive."""
    limit = positive("clip_grad_value", "limit", limit)
    grads, clip = gradients_to_change(layer), layer.xp.clip
    for grad in grads.values():
        clip(grad, -limit, limit, out=grad)
    put_back(layer, grads)


def unique_arrays(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays without those that an earlier name has, too: a layer that occurs twice in a model."""
    names: dict[int, str] = {}
    return {name: array for name, array in arrays.items() if names.setdefault(id(array), name) == name}


def trainable_arrays(layer: Layer, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the parameters or gradients of a layer that are not frozen, each once."""
    frozen = layer.frozen_names()
    return unique_arrays({name: array for name, array in arrays.items() if name not in frozen} if frozen else arrays)


def gradients_to_change(layer: Layer) -> dict[str, Array]:
    """Return the gradients of a layer that are not frozen, each once: of a sparse one a copy of the rows that count."""
    grads, rows = trainable_arrays(layer, layer.grads), layer.gradient_rows()
    return {name: grad[rows[name]] if name in rows else grad for name, grad in grads.items()}


def put_back(layer: Layer, grads: Mapping[str, Array]) -> None:
    """Copy the rows of sparse gradients, which ``gradients_to_change`` has returned, to where they come from."""
    whole = layer.grads
    for name, rows in layer.gradient_rows().items():
        if name in grads:
            whole[name][rows] = grads[name]
