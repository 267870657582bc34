"""One vector from a sequence: the last state, the mean or the maximum over the valid steps, each with its backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays.checks import Array
from ..arrays.lengths import valid_steps
from ..arrays.namespace import from_host, namespace_of
from ..layers import Layer
from ..layers.protocol import Shape

POOLINGS = ("last", "mean", "max")


def pooled(op: str, how: str, layer: Layer, h: Array, final: Any, lengths: Any) -> tuple[Array, Any]:
    """Return one vector (B, F) from the y (B, T, H) and final state of a layer, and what its backward needs."""
    if how == "mean":
        return mean_steps(op, h, lengths), None
    if how == "max":
        return max_steps(op, h, lengths)
    return layer.final_output(h, final, lengths), None


def unpooled(op: str, how: str, layer: Layer, d: Array, tape: Any, shape: Any, lengths: Any) -> tuple[Any, Any]:
    """Return the gradients of the layer's y and final state from that of the pooled vector; None stands for 0."""
    if how == "mean":
        return mean_steps_backward(op, d, shape, lengths), None
    if how == "max":
        return max_steps_backward(d, tape, shape), None
    return layer.final_output_backward(d, shape, lengths)


def pooled_features(how: str, layer: Layer, y: Shape) -> Any:
    """Return the size of that vector, for a y of this shape."""
    features = layer.final_features() if how == "last" else y[-1]
    return "?" if features is None else features


def mean_steps(op: str, y: Array, lengths: Any) -> Array:
    """Return the mean of y (B, T, F) over the valid steps; 0 without one."""
    xp = namespace_of(y)
    valid, count = _counted(op, y.shape, lengths, xp)
    values = xp.ascontiguousarray(xp.where(valid, y, y.dtype.type(0)))
    # NumPy adds several features in the order of time, but a single one in pairs whose choice depends on the padding.
    single = xp is np and y.shape[2] == 1 and y.shape[1] > 0
    total = np.add.accumulate(values, axis=1)[:, -1] if single else values.sum(axis=1)
    mean: Array = total / count.astype(y.dtype)
    return mean


def mean_steps_backward(op: str, d: Array, y_shape: tuple[int, ...], lengths: Any) -> Array:
    """Return dy for the gradient d (B, F) of ``mean_steps``."""
    xp = namespace_of(d)
    valid, count = _counted(op, y_shape, lengths, xp)
    dy: Array = xp.where(valid, (d / count.astype(d.dtype))[:, None], d.dtype.type(0))
    return dy


def max_steps(op: str, y: Array, lengths: Any) -> tuple[Array, tuple[Array, Array]]:
    """Return the maximum of y (B, T, F) over the valid steps, and its step (B, F) and whether there is one (B, 1)."""
    xp = namespace_of(y)
    valid, _ = _counted(op, y.shape, lengths, xp)
    some: Any = valid.any(axis=1)
    if y.size == 0:
        shape = (len(y), y.shape[2])
        return xp.zeros(shape, dtype=y.dtype), (xp.zeros(shape, dtype=np.intp), some)
    at = xp.where(valid, y, y.dtype.type(-np.inf)).argmax(axis=1)
    return xp.where(some, y[_elements(xp, at)], y.dtype.type(0)), (at, some)


def max_steps_backward(d: Array, found: tuple[Array, Array], y_shape: tuple[int, ...]) -> Array:
    """Return dy for the gradient d (B, F) of ``max_steps``: it goes to the (first) largest element."""
    at, some = found
    xp = namespace_of(d)
    dy: Array = xp.zeros(y_shape, dtype=d.dtype)
    if y_shape[1]:
        dy[_elements(xp, at)] = xp.where(some, d, d.dtype.type(0))
    return dy


def _elements(xp: Any, at: Array) -> tuple[Array, Array, Array]:
    """Return the index of one element (B, F) of (B, T, F) for each sample and feature, at these steps."""
    batch, features = at.shape
    return xp.arange(batch)[:, None], at, xp.arange(features)


def _counted(op: str, shape: tuple[int, ...], lengths: Any, xp: Any) -> tuple[Array, Array]:
    """Return the mask (B, T, 1) and the numbers (B, 1) of valid steps, at least 1."""
    valid = np.ones(shape[:2], bool) if lengths is None else valid_steps(op, lengths, *shape[:2])
    count = np.maximum(valid.sum(axis=1, keepdims=True), 1)
    return from_host(xp, valid)[..., None], from_host(xp, count)
