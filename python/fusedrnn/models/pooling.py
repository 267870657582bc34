"""One vector from a sequence: the last state, or the mean or maximum over the valid steps; each with its backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import Bidirectional, Layer, Recurrent
from ..layers.arrays import Array, as_lengths
from .model import output_features, valid_steps

POOLINGS = ("last", "mean", "max")


def final_features(op: str, layer: Layer) -> int:
    """Return the size of what ``final_output`` returns."""
    return 2 * layer.hidden_size if isinstance(layer, Bidirectional) else output_features(op, "layer", layer)


def final_output(layer: Layer, y: Array, state: Any, lengths: Any) -> Array:
    """Return the last layer's final h of each direction, side by side (B, features), from the outputs of a layer.

    Of a layer that is neither RNN, LSTM, GRU nor Bidirectional: y at each sample's last valid step, 0 without one.
    """
    if isinstance(layer, Bidirectional):
        return np.concatenate([_last_hidden(layer._children["forward"], part) for part in state], axis=1)
    if isinstance(layer, Recurrent):
        return _last_hidden(layer, state)
    rows, last, some = _last_steps(layer.op, y.shape, lengths)
    result = np.zeros((len(y), y.shape[2]), y.dtype)
    result[some] = y[rows[some], last[some]]
    return result


def final_output_backward(layer: Layer, d: Array, y_shape: tuple[int, ...], lengths: Any) -> tuple[Array | None, Any]:
    """Return (dy, dstate) for the gradient d (B, features) of ``final_output``; one of them is None."""
    if isinstance(layer, Bidirectional):
        forward = layer._children["forward"]
        return None, tuple(_last_hidden_backward(forward, part) for part in np.split(d, 2, axis=1))
    if isinstance(layer, Recurrent):
        return None, _last_hidden_backward(layer, d)
    rows, last, some = _last_steps(layer.op, y_shape, lengths)
    dy = np.zeros(y_shape, d.dtype)
    dy[rows[some], last[some]] = d[some]
    return dy, None


def mean_steps(op: str, y: Array, lengths: Any) -> Array:
    """Return the mean of y (B, T, F) over the valid steps; 0 without one."""
    valid, count = _counted(op, y.shape, lengths)
    values = np.ascontiguousarray(np.where(valid, y, y.dtype.type(0)))
    # NumPy adds several features in the order of time, but a single one in pairs whose choice depends on the padding.
    single = y.shape[2] == 1 and y.shape[1] > 0
    total = np.add.accumulate(values, axis=1)[:, -1] if single else values.sum(axis=1)
    mean: Array = total / count.astype(y.dtype)
    return mean


def mean_steps_backward(op: str, d: Array, y_shape: tuple[int, ...], lengths: Any) -> Array:
    """Return dy for the gradient d (B, F) of ``mean_steps``."""
    valid, count = _counted(op, y_shape, lengths)
    dy: Array = np.where(valid, (d / count.astype(d.dtype))[:, np.newaxis], d.dtype.type(0))
    return dy


def max_steps(op: str, y: Array, lengths: Any) -> tuple[Array, tuple[Array, Array]]:
    """Return the maximum of y (B, T, F) over the valid steps, and its step (B, F) and whether there is one (B, 1)."""
    valid, _ = _counted(op, y.shape, lengths)
    some = np.asarray(valid.any(axis=1))
    if y.shape[1] == 0:
        shape = (len(y), y.shape[2])
        return np.zeros(shape, y.dtype), (np.zeros(shape, np.intp), some)
    at = np.where(valid, y, -np.inf).argmax(axis=1)
    highest = np.take_along_axis(y, at[:, np.newaxis], axis=1)[:, 0]
    return np.where(some, highest, y.dtype.type(0)), (at, some)


def max_steps_backward(d: Array, found: tuple[Array, Array], y_shape: tuple[int, ...]) -> Array:
    """Return dy for the gradient d (B, F) of ``max_steps``: it goes to the (first) largest element."""
    at, some = found
    dy = np.zeros(y_shape, d.dtype)
    if y_shape[1]:
        np.put_along_axis(dy, at[:, np.newaxis], np.where(some, d, d.dtype.type(0))[:, np.newaxis], axis=1)
    return dy


def _last_hidden(layer: Any, state: Any) -> Array:
    h: Array = (state[0] if layer._has_cell_state else state)[-layer.num_directions :]
    flat: Array = h.transpose(1, 0, 2).reshape(h.shape[1], h.shape[0] * h.shape[2])
    return flat


def _last_hidden_backward(layer: Any, d: Array) -> Any:
    directions = layer.num_directions
    dh = np.zeros((layer.num_layers * directions, len(d), layer.hidden_size), d.dtype)
    dh[-directions:] = d.reshape(len(d), directions, layer.hidden_size).transpose(1, 0, 2)
    return (dh, None) if layer._has_cell_state else dh


def _last_steps(op: str, shape: tuple[int, ...], lengths: Any) -> tuple[Array, Array, Array]:
    """Return the samples' numbers, their last valid steps, and whether they have one; each (B,)."""
    batch, steps = shape[:2]
    ends = np.full(batch, steps) if lengths is None else as_lengths(op, lengths, batch, steps)
    return np.arange(batch), ends - 1, ends > 0


def _counted(op: str, shape: tuple[int, ...], lengths: Any) -> tuple[Array, Array]:
    """Return the mask (B, T, 1) and the numbers (B, 1) of valid steps, at least 1."""
    valid = np.ones(shape[:2], bool) if lengths is None else valid_steps(op, lengths, *shape[:2])
    return valid[..., np.newaxis], np.maximum(valid.sum(axis=1, keepdims=True), 1)
