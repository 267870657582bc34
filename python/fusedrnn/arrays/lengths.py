"""What lengths say of arrays (B, T, ...): which steps are valid, 0 in the padding, and the valid steps in reverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import Array, as_array, as_lengths, described
from .namespace import from_host, namespace_of


def pad_sequences(sequences: Sequence[Any]) -> tuple[Array, NDArray[np.int64]]:
    """Make one array of sequences of unequal length, padded with 0 on the right.

    ``fit`` does it by itself; layers and models take the results as ``model(x, lengths=lengths)``.

    Parameters
    ----------
    sequences : sequence of N array_like (T_n, ...)
        Equal in shape except for T_n, which may be 0. Any real dtype.

    Returns
    -------
    x : ndarray (N, T, ...)
        With T the largest T_n; tokens stay integers.
    lengths : ndarray of int64 (N,)
        The T_n.

    Raises
    ------
    ValueError
        If there is no sequence, or they differ in more than T_n.
    TypeError
        If a dtype is not real, or no integer dtype holds the integers of all.
    """
    given: Any = sequences
    is_one = isinstance(given, (str, bytes)) or getattr(given, "ndim", None) == 0
    if is_one or not isinstance(given, (Sequence, np.ndarray)):
        raise TypeError(f"pad_sequences: sequences is {described(given)}; expected a list of arrays")
    if len(sequences) == 0:
        raise ValueError("pad_sequences: sequences is empty; expected at least one")
    named = enumerate(sequences)
    return padded("pad_sequences", "sequences", [as_array("pad_sequences", f"sequences[{i}]", x) for i, x in named])


def padded(op: str, name: str, items: Sequence[Array]) -> tuple[Array, NDArray[np.int64]]:
    """Return (x, lengths) of ``pad_sequences`` for a message of another operation."""
    dtype = common_dtype(op, name, items)
    lengths = np.array([len(item) for item in items], np.int64)
    return side_by_side(items, dtype), lengths


def common_dtype(op: str, name: str, items: Sequence[Array]) -> np.dtype[Any]:
    """Return the dtype that one array of these sequences has; the errors are those of ``pad_sequences``."""
    if any(item.ndim == 0 or item.shape[1:] != items[0].shape[1:] for item in items):
        raise ValueError(f"{op}: {name} has samples of unlike shapes; expected (time, ...), equal except for time")
    wrong = next((item.dtype for item in items if item.dtype.kind not in "iuf"), None)
    if wrong is not None:
        raise TypeError(f"{op}: {name} has dtype {wrong}; expected a real dtype")
    # An empty list has no dtype of its own.
    typical = {item.dtype for item in items if item.size} or {item.dtype for item in items}
    dtype: np.dtype[Any] = np.result_type(*typical)
    if dtype.kind == "f" and all(each.kind in "iu" for each in typical):  # uint64 beside a signed one
        got = ", ".join(sorted(each.name for each in typical))
        raise TypeError(f"{op}: {name} has dtypes {got}; expected integers of one dtype, such as int64")
    return dtype


def side_by_side(items: Sequence[Array], dtype: np.dtype[Any]) -> Array:
    """Return sequences (T_n, ...) as one array (N, T, ...) with 0 past the end of each."""
    array = np.zeros((len(items), max(map(len, items), default=0), *items[0].shape[1:]), dtype)
    for row, item in zip(array, items, strict=True):
        row[: len(item)] = item
    return array


def unragged(op: str, name: str, x: Any, lengths: Any) -> tuple[Any, Any]:
    """Return (x, lengths) with sequences of unequal length as one padded array, and their lengths; else both as given.

    Raises
    ------
    ValueError
        If lengths are given beside such sequences, which have their own.
    """
    if not _is_ragged(x):
        return x, lengths
    if lengths is not None:
        got = f"{name} has sequences of unequal length, and lengths is given"
        raise ValueError(f"{op}: {got}; expected one or the other")
    return padded(op, name, [as_array(op, f"{name}[{i}]", each) for i, each in enumerate(x)])


def _is_ragged(x: Any) -> bool:
    """Say whether x is a list of sequences that are not equally long; what is no list of sequences others refuse."""
    if isinstance(x, np.ndarray):
        if x.dtype != object or x.ndim != 1:
            return False
    elif not isinstance(x, (list, tuple)):
        return False
    sequences = all(
        hasattr(each, "__len__") and not isinstance(each, (str, bytes)) and getattr(each, "ndim", 1) for each in x
    )
    return sequences and len({len(each) for each in x}) > 1


def valid_steps(op: str, lengths: Any, batch: int, steps: int) -> NDArray[np.bool_]:
    """Return the mask (B, T) of the valid time steps, on the host; ValueError or TypeError for wrong lengths."""
    valid: NDArray[np.bool_] = np.arange(steps) < as_lengths(op, lengths, batch, steps)[:, np.newaxis]
    return valid


def last_steps(op: str, shape: tuple[int, ...], lengths: Any, xp: Any) -> tuple[Array, Array]:
    """Return the numbers of the samples of (B, T, ...) that have a valid step, and their last one, both (n,)."""
    batch, steps = shape[:2]
    ends = np.full(batch, steps) if lengths is None else as_lengths(op, lengths, batch, steps)
    rows = np.flatnonzero(ends)
    return from_host(xp, rows), from_host(xp, ends[rows] - 1)


def without_padding(op: str, x: Array, lengths: Any) -> Array:
    """Return x (B, T, ...) with 0 past each sample's end; as it is where all samples have the same end, or None."""
    if lengths is None:
        return x
    ends = as_lengths(op, lengths, *x.shape[:2])
    if (ends == x.shape[1]).all():
        return x
    xp = namespace_of(x)
    valid = from_host(xp, np.arange(x.shape[1]) < ends[:, np.newaxis])
    kept: Array = xp.where(valid.reshape(valid.shape + (1,) * (x.ndim - 2)), x, x.dtype.type(0))
    return kept


def in_reverse(op: str, x: Array, lengths: Any) -> Array:
    """Return x (B, T, ...) with each sample's valid steps from the last to the first; twice gives x."""
    if lengths is None:
        return x[:, ::-1]
    batch, steps = x.shape[:2]
    ends, at = as_lengths(op, lengths, batch, steps)[:, np.newaxis], np.arange(steps)
    xp = namespace_of(x)
    turned: Array = x[xp.arange(batch)[:, None], from_host(xp, np.where(at < ends, ends - 1 - at, at))]
    return turned
