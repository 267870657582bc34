"""Samples for ``fit``, checked at the start, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array, check_plain
from ..arrays.lengths import without_padding
from ..arrays.namespace import from_host, namespace_of, on_gpu
from ..layers.base import Layer
from .agreement import by_output, check_names, checked_weights, given_lengths, half_padded, in_step
from .columns import Column, make_column
from .losses import IGNORE_INDEX, sequence_mask

StepRank: TypeAlias = int | Mapping[str, int]


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
        Valid time steps of the prediction.
    weight : ndarray (B,) or (B, T), or None
        How much each sample, or each time step, counts.
    rows : ndarray of int (B,) or None
        Which row of the batch before each row goes on with; -1 for one that begins, None for all.
    parts : mapping of str to Batch
        Of a model with several outputs, the target of each, without an input; y is then the first one's.

    Lengths and weights are NumPy arrays always; ``for_layer`` puts x and y where a model computes.
    """

    x: Any
    y: Array
    lengths: Any
    y_lengths: NDArray[np.int64] | None
    weight: Array | None = None
    rows: NDArray[np.intp] | None = None
    parts: Mapping[str, Batch] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[Array, ...]:
        """The inputs, of which there may be one."""
        return self.x if isinstance(self.x, tuple) else (self.x,)

    def __len__(self) -> int:
        return len(self.y)

    def mask(self, pred: Array) -> NDArray[np.bool_] | None:
        """Return the mask (B, T) of a prediction (B, T, ...) for each time step; None for one per sample, (B, F)."""
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
        parts = {name: part.for_layer(layer) for name, part in self.parts.items()}
        return replace(self, x=x, y=_on_device(self.y, layer.xp), parts=parts)


@dataclass(frozen=True)
class Samples:
    """All samples of a data set: one input or, for models with several, a tuple of them, the target, and weights.

    Of a model with several outputs ``parts`` are the samples with the target of each; ``target`` is the first one's.
    """

    inputs: tuple[Column, ...]
    target: Column
    several: bool
    weight: Column | None = None
    parts: Mapping[str, Samples] = field(default_factory=dict)

    @property
    def x(self) -> Any:
        """The padded input, or a tuple of them."""
        arrays = tuple(column.take(slice(None))[0] for column in self.inputs)
        return arrays if self.several else arrays[0]

    @property
    def y(self) -> Array:
        """The padded target."""
        return self.target.take(slice(None))[0]

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

    def __len__(self) -> int:
        return len(self.target)

    def chosen(self, which: Any) -> Samples:
        """Return some of the samples: a slice, or indices."""
        weight = None if self.weight is None else self.weight.chosen(which)
        return Samples(
            tuple(column.chosen(which) for column in self.inputs),
            self.target.chosen(which),
            self.several,
            weight,
            {name: part.chosen(which) for name, part in self.parts.items()},
        )

    def batch(self, chosen: Any) -> Batch:
        """Return the chosen samples, a slice or indices, as a batch."""
        taken = [column.take(chosen) for column in self.inputs]
        x = tuple(_clean(values, lengths) for values, lengths in taken)
        lengths = tuple(lengths for _, lengths in taken)
        answers = self._answers(chosen)
        parts = {name: Batch((), each[0], None, *each[1:]) for name, each in self._answers_of_parts(chosen)}
        if not self.several:
            return Batch(x[0], answers[0], lengths[0], *answers[1:], parts=parts)
        known = lengths if any(each is not None for each in lengths) else None
        return Batch(x, answers[0], known, *answers[1:], parts=parts)

    def _answers(self, chosen: Any) -> tuple[Array, NDArray[np.int64] | None, Array | None]:
        """Return the targets of the chosen samples, the valid steps of their predictions, and their weights."""
        y, y_lengths = self.target.take(chosen)
        if self.target.fill:  # such a target has a time of its own, and the prediction has the input's
            known = self.inputs[-1].lengths
            y_lengths = None if known is None else known[chosen]
        return y, y_lengths, None if self.weight is None else self.weight.take(chosen)[0]

    def _answers_of_parts(self, chosen: Any) -> Iterator[tuple[str, Any]]:
        for name, part in self.parts.items():
            yield name, part._answers(chosen)

    def batches(self, size: int, order: NDArray[np.intp] | list[NDArray[np.intp]] | None = None) -> Iterator[Batch]:
        """Yield batches of ``size`` samples, the last one smaller, in the given order; or those of a list."""
        for chosen in order if isinstance(order, list) else cut(order, len(self), size):
            yield self.batch(chosen)

    def labels(self, by_step: bool) -> Iterator[tuple[Array, Array | None]]:
        """Yield pieces of the target without padding, and how much each of its elements' leading axes count."""
        for chosen, values in self.target.pieces(by_step):
            yield values, None if self.weight is None else self._weights(chosen, by_step)

    def _weights(self, chosen: slice, by_step: bool) -> Array:
        """Return the weights of what ``target.pieces`` yields for the chosen samples."""
        assert self.weight is not None
        values: Any = self.weight.values[chosen]
        lengths = self.target.lengths
        if self.weight.ragged:
            return np.concatenate(values)
        if lengths is None or not (by_step or self.target.ragged):
            weights: Array = values
        elif self.weight.ndim == 1:
            weights = np.repeat(values, lengths[chosen])
        else:
            weights = values[sequence_mask(lengths[chosen], values.shape[1])]
        return weights


def make_samples(
    x: Any, y: Any, lengths: Any = None, sample_weight: Any = None, *, op: str = "fit", step_rank: StepRank = 3
) -> Samples:
    """Check the data of ``fit``; see there.

    Parameters
    ----------
    step_rank : int, or dict of str to int
        How many axes the target has at least if its time steps are those of the (last) input. 0 is for a target with a
        time of its own, which is padded with ``IGNORE_INDEX``. A dictionary by the names of a model's outputs, as y
        then is.

    Raises
    ------
    ValueError
        If there are no samples, their numbers differ, or the lengths do not fit.
    TypeError
        If a dtype is not real.
    """
    check_plain(op, "x", x)  # a PackedSequence is a tuple
    if isinstance(x, Mapping):
        raise TypeError(f"{op}: x is a {type(x).__name__}; expected an array, or a tuple of the model's inputs")
    several = isinstance(x, tuple)
    names = [f"x[{index}]" for index in range(len(x))] if several else ["x"]
    if not names:
        raise ValueError(f"{op}: x is an empty tuple; expected at least one input")
    columns = [make_column(op, name, values) for name, values in zip(names, x if several else [x], strict=True)]
    if not isinstance(step_rank, Mapping):
        return _with_target(op, names, columns, several, "y", y, lengths, sample_weight, step_rank)
    y = by_output(y, step_rank)
    check_names(op, "y", y, step_rank)
    sample_weight = by_output(sample_weight, step_rank, (tuple,))
    by_name = sample_weight if isinstance(sample_weight, Mapping) else dict.fromkeys(step_rank, sample_weight)
    if unknown := by_name.keys() - step_rank.keys():
        raise ValueError(f"{op}: sample_weight has {min(unknown)!r}; expected some of {', '.join(step_rank)}")
    parts = {
        name: _with_target(op, names, columns, several, f"y[{name!r}]", y[name], lengths, by_name.get(name), rank)
        for name, rank in step_rank.items()
    }
    known = next((part for part in parts.values() if part.inputs[-1].lengths is not None), next(iter(parts.values())))
    return replace(next(iter(parts.values())), inputs=known.inputs, parts=parts)


def _with_target(
    op: str,
    names: list[str],
    columns: list[Column],
    several: bool,
    y_name: str,
    y: Any,
    lengths: Any,
    sample_weight: Any,
    step_rank: int,
) -> Samples:
    """Return the samples with one target."""
    if isinstance(y, Mapping):
        raise TypeError(f"{op}: {y_name} is a dict, but the model has one output; expected an array")
    target = make_column(op, y_name, y, labels=True, fill=0 if step_rank else IGNORE_INDEX)
    count = len(columns[0])
    for name, column in zip([*names, y_name], [*columns, target], strict=True):
        if len(column) != count:
            raise ValueError(f"{op}: {names[0]} has {count} and {name} has {len(column)} samples; expected as many")
    if count == 0:
        raise ValueError(f"{op}: {names[0]} has 0 samples; expected at least one")
    given = given_lengths(op, lengths, several, count, columns, target if step_rank else None)
    columns = [
        column if known is None else replace(column, lengths=known)
        for column, known in zip(columns, given, strict=True)
    ]
    if step_rank:
        columns[-1], target = in_step(op, names[-1], columns[-1], target, step_rank)
    elif not target.ragged:
        target = replace(target, fill=IGNORE_INDEX)
    weight = None if sample_weight is None else checked_weights(op, sample_weight, target)
    return Samples(tuple(columns), target, several, weight)


def make_inputs(x: Any, lengths: Any, *, op: str) -> Samples:
    """Check inputs that have no target: the one of the samples is of no use."""
    first = x[0] if isinstance(x, tuple) and x else x
    count = len(first) if hasattr(first, "__len__") else 1
    return make_samples(x, np.zeros(count), lengths, op=op)


def check_steps(op: str, samples: Samples, pred: Any) -> None:
    """Raise ValueError if predictions have time steps, and the target came padded but the input did not."""
    for name, part in samples.parts.items():
        check_steps(op, part, pred[name])
    if samples.parts:
        return
    by_step = pred.ndim >= 3
    last, target = samples.inputs[-1], samples.target
    if by_step and target.ndim == 1 and target.lengths is not None:
        raise ValueError(f"{op}: y has shape {target.shape}; expected a target for each time step, as predictions have")
    if by_step and last.ragged and not target.ragged and target.ndim >= 2 and not target.fill:
        name = f"x[{len(samples.inputs) - 1}]" if samples.several else "x"
        raise half_padded(op, name, "y", target)


def cut(order: NDArray[np.intp] | None, count: int, size: int) -> Iterator[Any]:
    """Yield what chooses the samples of each batch: slices, or pieces of the order."""
    for start in range(0, count, size):
        yield slice(start, start + size) if order is None else order[start : start + size]


def _clean(x: Array, lengths: NDArray[np.int64] | None) -> Array:
    """Return x (B, T, I) with 0 past each sample's end, so that what is there cannot reach a per-step layer.

    Tokens (B, T) and vectors (B, I) come back as they are; wrong lengths are the model's to report.
    """
    if lengths is None or x.ndim < 3 or lengths.max(initial=0) > x.shape[1]:
        return x
    return without_padding("fit", x, lengths)


def _on_device(array: Array, xp: Any) -> Any:
    return array if on_gpu(array) else from_host(xp, array)
