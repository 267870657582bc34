"""One input, target or weight of all samples: an array, or sequences that are padded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array, as_array, check_plain
from ..arrays.lengths import common_dtype, side_by_side
from ..arrays.namespace import device_array, from_host, namespace_of, on_gpu
from .losses import sequence_mask

_TOGETHER = 4096  # samples that are looked at together where all have to be


@dataclass(frozen=True)
class Column:
    """An input or the target of all samples.

    Attributes
    ----------
    values : ndarray, or list of ndarray
        Samples on the first axis, of any device; or sequences of unequal length as they came, which are never padded
        all at once.
    lengths : ndarray of int64 (N,) or None
        Valid time steps of each sample.
    dtype : dtype
        Type of a batch.
    fill : int
        What sequences are padded with.
    """

    values: Any
    lengths: NDArray[np.int64] | None
    dtype: np.dtype[Any]
    fill: int = 0

    @property
    def ragged(self) -> bool:
        """Whether these are sequences of unequal length."""
        return isinstance(self.values, list)

    @property
    def ndim(self) -> int:
        """Number of axes of a batch."""
        return self.values[0].ndim + 1 if self.ragged else int(self.values.ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all samples, as one array."""
        if not self.ragged:
            return tuple(self.values.shape)
        assert self.lengths is not None
        return len(self.values), int(self.lengths.max()), *self.values[0].shape[1:]

    def __len__(self) -> int:
        return len(self.values)

    def chosen(self, which: Any) -> Column:
        """Return some of the samples: a slice, or indices."""
        values: Any
        if not self.ragged:
            values = self.values[which if isinstance(which, slice) else from_host(namespace_of(self.values), which)]
        else:
            values = self.values[which] if isinstance(which, slice) else [self.values[i] for i in which]
        return Column(values, None if self.lengths is None else self.lengths[which], self.dtype, self.fill)

    def take(self, chosen: Any) -> tuple[Array, NDArray[np.int64] | None]:
        """Return the chosen samples and their lengths, padded to the longest of them."""
        picked = self.chosen(chosen)
        lengths = picked.lengths
        if not self.ragged:
            return picked.values, lengths
        array = side_by_side(picked.values, self.dtype)
        if self.fill and lengths is not None:
            array[~sequence_mask(lengths, array.shape[1])] = self.fill
        return array, lengths

    def pieces(self, by_step: bool) -> Iterator[tuple[slice, Array]]:
        """Yield which samples, and their values: of each valid time step in a row, or one a sample."""
        for start in range(0, len(self), _TOGETHER):
            chosen = slice(start, start + _TOGETHER)
            if self.ragged:
                yield chosen, np.concatenate(self.values[chosen])
            elif by_step and self.lengths is not None:
                values, lengths = self.take(chosen)
                mask = sequence_mask(lengths, values.shape[1])
                yield chosen, values[from_host(namespace_of(values), mask)]
            else:
                yield chosen, self.values[chosen]


def make_column(op: str, name: str, values: Any, *, labels: bool = False, fill: int = 0) -> Column:
    """Return what a user gave as the column of this name; ``labels`` may be boolean.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        If it is no real array with samples on its first axis, no list of sequences, or a list on a GPU.
    """
    check_plain(op, name, values)
    values = _without_objects(op, name, values)
    if isinstance(values, (list, tuple)) and any(map(on_gpu, values)):
        raise RuntimeError(
            f"{op}: {name} is a {type(values).__name__} of arrays on cuda; expected one array, or NumPy's"
        )
    if on_gpu(values):
        xp = namespace_of(values)
        array = device_array(op, name, values, xp)
    elif isinstance(values, (list, tuple)) and len(values) and not np.isscalar(values[0]):
        items = [_real(as_array(op, f"{name}[{index}]", value), labels) for index, value in enumerate(values)]
        if len({item.shape for item in items}) > 1:
            dtype = common_dtype(op, name, items)
            return Column(items, np.array([len(item) for item in items], np.int64), dtype, fill)
        array = as_array(op, name, items)
    else:
        array = as_array(op, name, values)
    array = _real(array, labels)
    if array.dtype.kind not in "iuf":
        hint = ": fusedrnn.data.Labels turns labels into numbers" if labels and array.dtype.kind in "US" else ""
        raise TypeError(f"{op}: {name} has dtype {array.dtype}; expected a real dtype{hint}")
    if array.ndim == 0:
        raise ValueError(f"{op}: {name} has shape (); expected (samples, ...)")
    return Column(array, None, array.dtype)


def _without_objects(op: str, name: str, values: Any) -> Any:
    """Return an array of objects, as a table or a ragged nest gives them, as a list."""
    if getattr(getattr(values, "dtype", None), "kind", "") != "O" or on_gpu(values):
        return values
    array = np.asarray(values)
    if array.ndim != 1:
        raise TypeError(
            f"{op}: {name} is an array of objects of shape {array.shape}; expected numbers ({name}.astype(float)), or "
            "a list of sequences"
        )
    items: Sequence[Any] = list(array)
    return items


def _real(array: Any, labels: bool) -> Any:
    """Return booleans that are labels as integers; other arrays as they are."""
    return array.astype(np.int8) if labels and array.dtype == np.bool_ else array
