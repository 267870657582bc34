"""What an estimator takes for X: windows, one array; sequences of unequal length, a list of arrays; texts."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import numpy as np

from ..arrays.checks import Array, as_real
from ..data.table import collected, kind_of
from ..data.vocabulary import is_text

Sequences: TypeAlias = "Array | list[Array]"  # (N, T, F), or N arrays (T_n, F); of texts N integer arrays (T_n,)

_NUMBERED = re.compile(r"^(.*?)[-+]?\d+$")


def as_sequences(op: str, x: Any) -> list[Array] | None:
    """Return a list, tuple, column or object array of sequences as arrays (T_n, F) of float64; None if X is no such.

    Raises
    ------
    ValueError
        If a sequence has another shape or number of features than the first, or a value is not finite.
    TypeError
        If a dtype is not real.
    """
    column = (isinstance(x, np.ndarray) and x.dtype == object) or kind_of(x) != "numpy"
    items = list(x) if isinstance(x, (list, tuple)) or (column and len(x.shape) == 1) else []
    if not items or not all(_is_sequence(item) for item in items):
        return None
    sequences: list[Array] = []
    for index, item in enumerate(items):
        array = as_real(op, f"X[{index}]", item, np.dtype(np.float64))
        if array.ndim not in (1, 2):
            raise ValueError(f"{op}: X[{index}] has shape {array.shape}; expected (time,) or (time, features)")
        array = array if array.ndim == 2 else array[:, np.newaxis]
        if index and array.shape[1] != sequences[0].shape[1]:
            raise ValueError(
                f"{op}: X[{index}] has {array.shape[1]} features; expected {sequences[0].shape[1]}, as X[0]"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{op}: X[{index}] contains NaN or infinity; expected finite numbers")
        sequences.append(array)
    return sequences


def check_windows(op: str, x: Any, advice: str) -> None:
    """Raise ValueError for a table whose rows are no windows: one with times, or with columns of several names.

    The columns of windows are numbers, or one name with numbers: lag_1, lag_2.
    """
    x = collected(x)
    kind = kind_of(x)
    if kind == "numpy" or len(x.shape) != 2:
        return
    names = [str(column) for column in x.columns]
    stems = {match.group(1) if (match := _NUMBERED.match(name)) else None for name in names}
    if kind == "pandas" and len(names) == 1 and is_text(list(x.iloc[:, 0])):
        raise ValueError(f"{op}: X is a table; expected its column of texts, X[{names[0]!r}]")
    timed = kind == "pandas" and getattr(x.index.dtype, "kind", "O") in "Mm"
    if timed or len(stems) > 1 or None in stems:
        columns = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise ValueError(
            f"{op}: X is a table with the columns {columns}; each row would be read as {len(names)} time steps of one "
            f"quantity. Expected windows (samples, time, features): {advice}fusedrnn.data.windows cuts them, and "
            "X.to_numpy() says that each row is a window"
        )


def _is_sequence(item: Any) -> bool:
    if isinstance(item, (list, tuple)):
        return True
    return not isinstance(item, str) and getattr(item, "ndim", len(getattr(item, "shape", ()))) > 0
