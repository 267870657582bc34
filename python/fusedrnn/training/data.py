"""Samples for ``fit``: arrays, or ragged sequences padded to the right, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array, as_array, as_integer, check_plain
from ..arrays.lengths import padded, without_padding
from ..arrays.namespace import device_array, from_host, namespace_of, on_gpu, take_host, to_host
from ..layers.base import Layer
from .losses import sequence_mask


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes
    ----------
    x : ndarray, or tuple of ndarray
        The input, or the inputs of a model with several.
    y : ndarray
        The target.
    lengths : ndarray (B,) or None, or tuple of them
        Valid time steps of the input, or of each input; None instead of a tuple without any.
    y_lengths : ndarray (B,) or None
        Valid time steps of the target.

    Lengths are NumPy arrays always; ``for_layer`` puts x and y where a model computes.
    """

    x: Any
    y: Array
    lengths: Any
    y_lengths: NDArray[np.int64] | None

    @property
    def inputs(self) -> tuple[Array, ...]:
        """The inputs, of which there may be one."""
        return self.x if isinstance(self.x, tuple) else (self.x,)

    def __len__(self) -> int:
        return len(self.y)

    def mask(self, pred: Array) -> NDArray[np.bool_] | None:
        """Return the mask (B, T) of a prediction (B, T, ...) for each time step; None for one a sample, (B, F)."""
        if self.y_lengths is None or pred.ndim < 3:
            return None
        mask: NDArray[np.bool_] = from_host(namespace_of(pred), sequence_mask(self.y_lengths, pred.shape[1]))
        return mask

    def for_layer(self, layer: Layer) -> Batch:
        """Return the batch with NumPy arrays moved to the device of a layer that is on cuda."""
        if layer.device == "cpu":
            return self
        inputs = tuple(_on_device(x, layer.xp) for x in self.inputs)
        x = inputs if isinstance(self.x, tuple) else inputs[0]
        return replace(self, x=x, y=_on_device(self.y, layer.xp))


@dataclass(frozen=True)
class Column:
    """An input or the target of all samples.

    Attributes
    ----------
    values : ndarray
        Samples on the first axis; of any device.
    lengths : ndarray of int64 (N,) or None
        Valid time steps of each sample.
    ragged : bool
        Whether the array was padded here, and so may be cut to the longest sample of a batch.
    """

    values: Array
    lengths: NDArray[np.int64] | None
    ragged: bool

    def take(self, chosen: Any) -> tuple[Array, NDArray[np.int64] | None]:
        """Return the chosen samples and their lengths, without needless padding."""
        values = self.values[chosen if isinstance(chosen, slice) else from_host(namespace_of(self.values), chosen)]
        if self.lengths is None:
            return values, None
        lengths = self.lengths[chosen]
        return (values[:, : lengths.max()] if self.ragged else values), lengths


@dataclass(frozen=True)
class Samples:
    """All samples of a data set: one input or, for models with several, a tuple of them, and the target."""

    inputs: tuple[Column, ...]
    target: Column
    several: bool

    @property
    def x(self) -> Any:
        """The padded input, or a tuple of them."""
        arrays = tuple(column.values for column in self.inputs)
        return arrays if self.several else arrays[0]

    @property
    def y(self) -> Array:
        """The padded target."""
        return self.target.values

    @property
    def lengths(self) -> Any:
        """Valid time steps (N,) of the input, or a tuple of them, each may be None."""
        lengths = tuple(column.lengths for column in self.inputs)
        return lengths if self.several else lengths[0]

    @property
    def time_steps(self) -> NDArray[np.int64] | None:
        """Valid time steps (N,) of each sample, those of all its inputs together; None if no lengths are known."""
        known = [column.lengths for column in self.inputs if column.lengths is not None]
        return np.sum(known, axis=0, dtype=np.int64) if known else None

    @property
    def valid_y(self) -> Array:
        """The target without padding, its time steps in a row."""
        lengths, y = self.target.lengths, to_host(self.y)
        return y if lengths is None or y.ndim < 2 else y[sequence_mask(lengths, y.shape[1])]

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int, order: NDArray[np.intp] | list[NDArray[np.intp]] | None = None) -> Iterator[Batch]:
        """Yield batches of ``size`` samples, the last one smaller, in the given order; or those of a list."""
        for chosen in order if isinstance(order, list) else _cut(order, len(self), size):
            taken = [column.take(chosen) for column in self.inputs]
            x = tuple(_clean(values, lengths) for values, lengths in taken)
            lengths = tuple(lengths for _, lengths in taken)
            y, y_lengths = self.target.take(chosen)
            if not self.several:
                yield Batch(x[0], y, lengths[0], y_lengths)
            else:
                known = any(each is not None for each in lengths)
                yield Batch(x, y, lengths if known else None, y_lengths)


def make_samples(x: Any, y: Any, lengths: Any = None, *, op: str = "fit") -> Samples:
    """Check and pad the data of ``fit``; see there.

    Raises
    ------
    ValueError
        If there are no samples, their numbers differ, or the lengths do not fit.
    TypeError
        If a dtype is not real.
    """
    check_plain(op, "x", x)  # a PackedSequence is a tuple
    several = isinstance(x, tuple)
    names = [f"x[{index}]" for index in range(len(x))] if several else ["x"]
    if not names:
        raise ValueError(f"{op}: x is an empty tuple; expected at least one input")
    columns = [_padded(op, name, values) for name, values in zip(names, x if several else [x], strict=True)]
    target = _padded(op, "y", y)
    count = len(columns[0].values)
    for name, column in zip([*names, "y"], [*columns, target], strict=True):
        if len(column.values) != count:
            raise ValueError(
                f"{op}: {names[0]} has {count} and {name} has {len(column.values)} samples; expected as many"
            )
    if count == 0:
        raise ValueError(f"{op}: {names[0]} has 0 samples; expected at least one")
    given = _given_lengths(op, lengths, several, count, columns, target)
    columns = [
        column if known is None else Column(column.values, known, column.ragged)
        for column, known in zip(columns, given, strict=True)
    ]
    # The target goes with the last input: of an encoder-decoder, that is what the decoder reads.
    last = columns[-1]
    if last.lengths is not None and target.lengths is not None and not np.array_equal(last.lengths, target.lengths):
        at = int(np.argmax(last.lengths != target.lengths))
        raise ValueError(
            f"{op}: y[{at}] has {target.lengths[at]} time steps; expected {last.lengths[at]}, as {names[-1]}[{at}]"
        )
    found = last.lengths if target.lengths is None else target.lengths
    columns[-1] = Column(last.values, found, last.ragged)
    return Samples(tuple(columns), Column(target.values, found, target.ragged), several)


def _given_lengths(
    op: str, lengths: Any, several: bool, count: int, columns: list[Column], target: Column
) -> list[NDArray[np.int64] | None]:
    """Return the lengths of each input that were given as an argument."""
    if lengths is None:
        return [None] * len(columns)
    each = lengths if several else [lengths]
    if several and (not isinstance(lengths, (tuple, list)) or len(lengths) != len(columns)):
        raise ValueError(f"{op}: lengths is {lengths!r}; expected one for each of the {len(columns)} inputs, or None")
    checked: list[NDArray[np.int64] | None] = []
    for index, (values, column) in enumerate(zip(each, columns, strict=True)):
        is_last = index + 1 == len(columns)
        if values is not None and (column.ragged or (is_last and target.ragged)):
            raise ValueError(
                f"{op}: got lengths together with ragged sequences, which have their own; expected one of them"
            )
        array = None if values is None else as_integer(op, "lengths", take_host(values)).astype(np.int64)
        if array is not None and array.shape != (count,):
            raise ValueError(f"{op}: lengths has shape {array.shape}; expected (samples,) = ({count},)")
        checked.append(array)
    return checked


def _cut(order: NDArray[np.intp] | None, count: int, size: int) -> Iterator[Any]:
    """Yield what chooses the samples of each batch: slices, or pieces of the order."""
    for start in range(0, count, size):
        yield slice(start, start + size) if order is None else order[start : start + size]


def _padded(op: str, name: str, values: Any) -> Column:
    """Return an array with samples on its first axis, and the lengths if those were unequal."""
    lengths = None
    if isinstance(values, (list, tuple)) and any(map(on_gpu, values)):
        raise RuntimeError(
            f"{op}: {name} is a {type(values).__name__} of arrays on cuda; expected one array, or NumPy's"
        )
    if on_gpu(values):
        xp = namespace_of(values)
        array = device_array(op, name, values, xp)
    elif isinstance(values, (list, tuple)):
        items = [as_array(op, f"{name}[{index}]", value) for index, value in enumerate(values)]
        if len({item.shape for item in items}) > 1:
            array, lengths = padded(op, name, items)
        else:
            array = as_array(op, name, values)
    else:
        array = as_array(op, name, values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{op}: {name} has dtype {array.dtype}; expected a real dtype")
    if array.ndim == 0:
        raise ValueError(f"{op}: {name} has shape (); expected (samples, ...)")
    return Column(array, lengths, lengths is not None)


def _clean(x: Array, lengths: NDArray[np.int64] | None) -> Array:
    """Return x (B, T, I) with 0 past each sample's end, so that what is there cannot reach a per-step layer.

    Tokens (B, T) and vectors (B, I) come back as they are; wrong lengths are the model's to report.
    """
    if lengths is None or x.ndim < 3 or lengths.max(initial=0) > x.shape[1]:
        return x
    return without_padding("fit", x, lengths)


def _on_device(array: Array, xp: Any) -> Any:
    return array if on_gpu(array) else from_host(xp, array)
