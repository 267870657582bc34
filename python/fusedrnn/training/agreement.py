"""Whether inputs, targets, lengths and weights of samples belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import as_integer, as_lengths, described
from ..arrays.namespace import take_host
from .columns import Column, make_column


def by_output(given: Any, names: Iterable[str], kinds: Any = (tuple, list)) -> Any:
    """Return what is given for each output, in order, as a dictionary by their names; anything else as it is."""
    keys = list(names)
    return dict(zip(keys, given, strict=True)) if isinstance(given, kinds) and len(given) == len(keys) else given


def check_names(op: str, what: str, given: Any, names: Iterable[str]) -> None:
    """Raise TypeError unless an argument is a dictionary, ValueError unless it has the names of the model's outputs."""
    expected = ", ".join(map(repr, names))
    if not isinstance(given, Mapping):
        got = f"{described(given)} of {len(given)}" if isinstance(given, (tuple, list)) else described(given)
        raise TypeError(f"{op}: {what} is {got}; expected a dict with the model's outputs {expected}, or one for each")
    if given.keys() != set(names):
        raise ValueError(f"{op}: {what} has {', '.join(map(repr, given))}; expected the model's outputs {expected}")


def in_step(op: str, name: str, last: Column, target: Column, step_rank: int) -> tuple[Column, Column]:
    """Return the last input and the target with the lengths of either: of an encoder-decoder, the decoder's input."""
    if last.ragged and not target.ragged and target.ndim >= step_rank:
        raise half_padded(op, name, "y", target)
    if target.ragged and not last.ragged and has_time(last):
        raise half_padded(op, "y", name, last)
    if last.lengths is not None and target.lengths is not None and not np.array_equal(last.lengths, target.lengths):
        at = int(np.argmax(last.lengths != target.lengths))
        raise ValueError(
            f"{op}: y[{at}] has {target.lengths[at]} time steps; expected {last.lengths[at]}, as {name}[{at}]"
        )
    found = last.lengths if target.lengths is None else target.lengths
    return replace(last, lengths=found), replace(target, lengths=found)


def half_padded(op: str, ragged: str, name: str, column: Column) -> ValueError:
    """Return the error of a list of sequences beside an array that is padded."""
    return ValueError(
        f"{op}: {ragged} is a list of sequences of unequal length and {name} an array of shape {column.shape}; "
        "expected both as lists, or both padded and their lengths"
    )


def given_lengths(
    op: str, lengths: Any, several: bool, count: int, columns: list[Column], target: Column | None
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
        if values is not None and (column.ragged or (is_last and target is not None and target.ragged)):
            raise ValueError(
                f"{op}: got lengths together with ragged sequences, which have their own; expected one of them"
            )
        array = None if values is None else as_integer(op, "lengths", take_host(values)).astype(np.int64)
        if array is not None and array.shape != (count,):
            raise ValueError(f"{op}: lengths has shape {array.shape}; expected (samples,) = ({count},)")
        if array is not None and has_time(column):
            as_lengths(op, array, count, column.shape[1])
        checked.append(array)
    return checked


def checked_weights(op: str, sample_weight: Any, target: Column) -> Column:
    """Return the weights of samples or of their time steps, checked."""
    column = make_column(op, "sample_weight", take_host(sample_weight), labels=True)
    expected = [f"(samples,) = ({len(target)},)"]
    fits = not column.ragged and column.shape == (len(target),)
    if target.ragged:
        fits |= column.ragged and column.ndim == 2 and np.array_equal(column.lengths, target.lengths)  # type: ignore[arg-type]
        expected.append("a list with the lengths of y")
    elif target.ndim > 1:
        fits |= not column.ragged and column.shape == target.shape[:2]
        expected.append(f"(samples, time) = {target.shape[:2]}")
    if not fits:
        got = "is a list of sequences" if column.ragged else f"has shape {column.shape}"
        raise ValueError(f"{op}: sample_weight {got}; expected {' or '.join(expected)}")
    for _, values in column.pieces(False):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{op}: sample_weight has elements that are negative or not finite; expected numbers >= 0")
    return column


def has_time(column: Column) -> bool:
    """Return whether the second axis is certainly time: of sequences of vectors, or of tokens."""
    return column.ndim >= 3 or (column.ndim == 2 and column.dtype.kind in "iu")
