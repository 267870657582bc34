"""One vector from a sequence: the last state, or the mean or maximum over the valid steps; each with its backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays.checks import Array, as_lengths
from ..arrays.lengths import valid_steps
from ..arrays.namespace import from_host, namespace_of
from ..layers import Bidirectional, Layer, Recurrent
from .model import output_features

POOLINGS = ("last", "mean", "max")


def final_features(op: str, layer: Layer) -> int:
    """Return the size of what ``final_output`` returns."""
    return 2 * layer.hidden_size if isinstance(layer, Bidirectional) else output_features(op, "layer", layer)


def final_output(layer: Layer, y: Array, state: Any, lengths: Any) -> Array:
    """Return the last layer's final h of each direction, side by side (B, features), from the outputs of a layer.

    Of a layer that is neither RNN, LSTM, GRU nor Bidirectional: y at each sample's last valid step, 0 without one.
    """
    if isinstance(layer, Bidirectional):
        parts = [_last_hidden(layer._children["forward"], part) for part in state]
        joined: Array = layer.xp.concatenate(parts, axis=1)
        return joined
    if isinstance(layer, Recurrent):
        return _last_hidden(layer, state)
    rows, last = _last_steps(layer, y.shape, lengths)
    result: Array = layer.xp.zeros((len(y), y.shape[2]), dtype=y.dtype)
    result[rows] = y[rows, last]
    return result


def final_output_backward(layer: Layer, d: Array, y_shape: tuple[int, ...], lengths: Any) -> tuple[Array | None, Any]:
    """Return (dy, dstate) for the gradient d (B, features) of ``final_output``; one of them is None."""
    if isinstance(layer, Bidirectional):
        forward = layer._children["forward"]
        half = d.shape[1] // 2
        return None, tuple(_last_hidden_backward(forward, part) for part in (d[:, :half], d[:, half:]))
    if isinstance(layer, Recurrent):
        return None, _last_hidden_backward(layer, d)
    rows, last = _last_steps(layer, y_shape, lengths)
    dy = layer.xp.zeros(y_shape, dtype=d.dtype)
    dy[rows, last] = d[rows]
    return dy, None


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


def _last_hidden(layer: Any, state: Any) -> Array:
    h: Array = (state[0] if layer._has_cell_state else state)[-layer.num_directions :]
    flat: Array = h.transpose(1, 0, 2).reshape(h.shape[1], h.shape[0] * h.shape[2])
    return flat


def _last_hidden_backward(layer: Any, d: Array) -> Any:
    directions = layer.num_directions
    dh = layer.xp.zeros((layer.num_layers * directions, len(d), layer.hidden_size), dtype=d.dtype)
    dh[-directions:] = d.reshape(len(d), directions, layer.hidden_size).transpose(1, 0, 2)
    return (dh, None) if layer._has_cell_state else dh


def _elements(xp: Any, at: Array) -> tuple[Array, Array, Array]:
    """Return the index of one element (B, F) of (B, T, F) for each sample and feature, at these steps."""
    batch, features = at.shape
    return xp.arange(batch)[:, None], at, xp.arange(features)


def _last_steps(layer: Layer, shape: tuple[int, ...], lengths: Any) -> tuple[Array, Array]:
    """Return the numbers of the samples that have a valid step, and their last one, both (n,)."""
    batch, steps = shape[:2]
    ends = np.full(batch, steps) if lengths is None else as_lengths(layer.op, lengths, batch, steps)
    rows = np.flatnonzero(ends)
    return from_host(layer.xp, rows), from_host(layer.xp, ends[rows] - 1)


def _counted(op: str, shape: tuple[int, ...], lengths: Any, xp: Any) -> tuple[Array, Array]:
    """Return the mask (B, T, 1) and the numbers (B, 1) of valid steps, at least 1."""
    valid = np.ones(shape[:2], bool) if lengths is None else valid_steps(op, lengths, *shape[:2])
    count = np.maximum(valid.sum(axis=1, keepdims=True), 1)
    return from_host(xp, valid)[..., None], from_host(xp, count)
