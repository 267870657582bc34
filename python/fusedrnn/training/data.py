"""Samples for ``fit``: arrays, or ragged sequences padded to the right, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers.arrays import Array, as_integer
from .losses import sequence_mask


@dataclass(frozen=True)
class Batch:
    """Some samples: x, y, and lengths (B,) or None."""

    x: Array
    y: Array
    lengths: NDArray[np.int64] | None

    def mask(self, pred: Array) -> NDArray[np.bool_] | None:
        """Return the mask (B, T) of a prediction (B, T, ...) for each time step; None for one a sample, (B, F)."""
        if self.lengths is None or pred.ndim < 3:
            return None
        return sequence_mask(self.lengths, pred.shape[1])


@dataclass(frozen=True)
class Samples:
    """All samples of a data set.

    Attributes
    ----------
    x, y : ndarray
        Samples on the first axis.
    lengths : ndarray of int64 (N,) or None
        Valid time steps of each sample.
    x_ragged, y_ragged : bool
        Whether the array was padded here, and so may be cut to the longest sample of a batch.
    """

    x: Array
    y: Array
    lengths: NDArray[np.int64] | None
    x_ragged: bool
    y_ragged: bool

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int, order: NDArray[np.intp] | None = None) -> Iterator[Batch]:
        """Yield batches of ``size`` samples, the last one smaller, in the given order."""
        for start in range(0, len(self), size):
            chosen = slice(start, start + size) if order is None else order[start : start + size]
            x, y = self.x[chosen], self.y[chosen]
            lengths = None if self.lengths is None else self.lengths[chosen]
            if lengths is not None:
                x = _without_padding(x[:, : lengths.max()] if self.x_ragged else x, lengths)
                y = y[:, : lengths.max()] if self.y_ragged else y
            yield Batch(x, y, lengths)


def make_samples(x: Any, y: Any, lengths: Any = None) -> Samples:
    """Check and pad the data of ``fit``.

    Raises
    ------
    ValueError
        If there are no samples, their numbers differ, or the lengths do not fit.
    TypeError
        If a dtype is not real.
    """
    x_array, x_lengths = _padded("x", x)
    y_array, y_lengths = _padded("y", y)
    if len(x_array) != len(y_array) or len(x_array) == 0:
        raise ValueError(
            f"fit: x has {len(x_array)} and y has {len(y_array)} samples; expected as many, and at least one"
        )
    found = x_lengths if x_lengths is not None else y_lengths
    if x_lengths is not None and y_lengths is not None and not np.array_equal(x_lengths, y_lengths):
        at = int(np.argmax(x_lengths != y_lengths))
        raise ValueError(f"fit: y[{at}] has {y_lengths[at]} time steps; expected {x_lengths[at]}, as x[{at}]")
    if found is not None and lengths is not None:
        raise ValueError("fit: got lengths together with ragged sequences, which have their own; expected one of them")
    if lengths is not None:
        found = as_integer("fit", "lengths", lengths).astype(np.int64)
        if found.shape != x_array.shape[:1]:
            raise ValueError(f"fit: lengths has shape {found.shape}; expected (samples,) = ({len(x_array)},)")
    return Samples(x_array, y_array, found, x_lengths is not None, y_lengths is not None)


def _padded(name: str, values: Any) -> tuple[Array, NDArray[np.int64] | None]:
    """Return an array with samples on its first axis, and the lengths if those were unequal."""
    lengths = None
    if isinstance(values, (list, tuple)) and len({np.shape(value) for value in values}) > 1:
        items = [np.asarray(value) for value in values]
        if any(item.ndim == 0 or item.shape[1:] != items[0].shape[1:] for item in items):
            raise ValueError(f"fit: {name} has samples of unlike shapes; expected (time, ...), alike but for time")
        lengths = np.array([len(item) for item in items], np.int64)
        array = np.zeros((len(items), int(lengths.max()), *items[0].shape[1:]), np.result_type(*items))
        for row, item in zip(array, items, strict=True):
            row[: len(item)] = item
    else:
        array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"fit: {name} has dtype {array.dtype}; expected a real dtype")
    if array.ndim == 0:
        raise ValueError(f"fit: {name} has shape (); expected (samples, ...)")
    return array, lengths


def _without_padding(x: Array, lengths: NDArray[np.int64]) -> Array:
    """Return x (B, T, I) with 0 past each sample's end, so that what is there cannot reach a per-step layer.

    Tokens (B, T) and vectors (B, I) come back as they are; wrong lengths are the model's to report.
    """
    if x.ndim < 3 or lengths.max(initial=0) > x.shape[1]:
        return x
    valid = sequence_mask(lengths, x.shape[1])
    return np.where(valid.reshape(valid.shape + (1,) * (x.ndim - 2)), x, x.dtype.type(0))
