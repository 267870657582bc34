"""What to say when a loss is not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.namespace import all_finite, on_gpu, to_host
from ..layers.base import Layer
from .criterion import Criterion
from .data import Batch, Samples
from .losses import steps_needed

if TYPE_CHECKING:
    from .joint import AnyCriterion


def not_finite(
    what: str, model: Layer, batch: Batch, samples: Samples | None, criterion: AnyCriterion
) -> FloatingPointError:
    """Return the error of a loss or gradient that is NaN or infinite, which names what it comes from.

    Parameters
    ----------
    what : str
        What was seen, and where.
    model, batch : Layer, Batch
        What was computed.
    samples : Samples or None
        The data set that the batch is from, in which a sample is found by its number; None for a source.
    criterion : Criterion
        The loss, and whether NaN in the target is no fault.
    """
    cause = _cause(model, batch, samples, criterion)
    return FloatingPointError(f"fit: {what}: {cause}; check_finite=False goes on all the same")


def _cause(model: Layer, batch: Batch, samples: Samples | None, criterion: AnyCriterion) -> str:
    for name, param in model.params.items():
        if not all_finite(model.xp, param):
            return f"{name} is not finite, so an earlier step was too large; lower the learning rate or set clip_norm"
    names = [f"x[{index}]" for index in range(len(batch.inputs))] if isinstance(batch.x, tuple) else ["x"]
    parts: list[tuple[str, Any]] = list(zip(names, batch.inputs, strict=True))
    if not criterion.ignore_nan:
        parts += [(f"y[{name!r}]", part.y) for name, part in batch.parts.items()] or [("y", batch.y)]
    for index, (name, array) in enumerate(parts):
        if array.dtype.kind == "f" and not all_finite(model.xp, array):
            hint = ", or ignore_nan=True for a target that is not known" if name[0] == "y" else ""
            return f"{name} of {_place(index, samples, array)} has NaN or infinity; clean the data{hint}"
        largest = max((np.finfo(param.dtype).max for param in model.params.values()), default=np.inf)
        if array.dtype.kind == "f" and bool((abs(array) > largest).any()):
            return f"{name} has values beyond {largest:.3g}, the range of the model's dtype; scale the data"
    if (
        isinstance(criterion, Criterion)
        and criterion.by_sample
        and (short := _too_short(batch, criterion.ignore_index))
    ):
        return short
    return (
        "the data and the weights are finite, so the prediction or its loss overflows; scale the data or lower the "
        "learning rate"
    )


def _too_short(batch: Batch, ignore: int) -> str:
    """Return what is wrong with the first sample that has fewer time steps than its labels need."""
    labels, lengths = to_host(batch.y), batch.y_lengths
    steps = np.full(len(labels), batch.inputs[-1].shape[1]) if lengths is None else lengths
    needed = steps_needed(labels, ignore)
    rows = np.flatnonzero(needed > steps)
    if not len(rows):
        return ""
    row = rows[0]
    return (
        f"the labels {labels[row][labels[row] != ignore].tolist()} need {needed[row]} time steps, one each and a blank "
        f"between repeated ones, but their sample has {steps[row]}; leave it out, or set zero_infinity=True of ctc"
    )


def _place(index: int, samples: Samples | None, array: Any) -> str:
    """Return which sample is meant: by its number in the data set if that is known."""
    if samples is not None:
        targets = [part.target for part in samples.parts.values()] or [samples.target]
        column = (*samples.inputs, *targets)[index]
        for at, values in enumerate(column.values):
            end = None if column.lengths is None or values.ndim == 0 else int(column.lengths[at])
            if not on_gpu(values) and not np.isfinite(values[:end] if values.ndim > 1 else values).all():
                return f"sample {at}"
    rows = [at for at in range(len(array)) if not array_is_finite(array[at])]
    return f"sample {rows[0]} of the batch"


def array_is_finite(array: Any) -> bool:
    """Return whether all elements are finite, wherever the array is."""
    return bool((array - array == 0).all())
