"""Windows of a series with what follows each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..arrays.checks import Array, positive_int
from .table import check_even, read_table


def windows(series: Any, window: int, horizon: int = 1, *, target: Any = None, stride: int = 1) -> tuple[Array, Array]:
    """Cut a series into windows, and what comes after each: x and y for ``fit``.

    Sample i has x = the rows [i stride, i stride + window) and y = the ``horizon`` rows after them.

    Parameters
    ----------
    series : array_like (T,) or (T, F), table of pandas or polars, or list of those
        One row per time step, at equal distances. A column of times is not a feature. Of a list, each is a series of
        its own, which no window leaves; in a list of numbers, the numbers are one series.
    window, horizon : int
        Steps to read and steps to predict.
    target : str, int, or list of those, optional
        Columns to predict; all by default.
    stride : int
        Steps from a window to the next one.

    Returns
    -------
    x : ndarray of float64 (N, window, F)
    y : ndarray of float64 (N, horizon), or (N, horizon, K) for K columns unless there is one
        Of one series and adjacent columns both are read-only views, which need no memory of their own.

    Raises
    ------
    ValueError
        If a series is shorter than window + horizon, its rows are not at equal distances, a value is not finite, or an
        argument is outside its range.
    TypeError
        If a dtype is not real.

    Examples
    --------
    >>> x, y = windows(table, 48, 24, target="load")
    >>> fit(SequenceToVector(LSTM(x.shape[2], 64), 24), x, y, epochs=10, batch_size=32)
    """
    op = "windows"
    window, horizon = positive_int(op, "window", window), positive_int(op, "horizon", horizon)
    stride = positive_int(op, "stride", stride)
    several = isinstance(series, (list, tuple)) and len(series) > 0 and not np.isscalar(series[0])
    pairs = []
    for index, each in enumerate(series if several else [series]):
        name = f"series[{index}]" if several else "series"
        table = read_table(op, name, each)
        check_even(op, table)
        columns = range(table.values.shape[1]) if target is None else table.numbers_of(op, "target", target)
        pairs.append(cut(op, name, table.values, window, horizon, list(columns), stride))
    x, y = pairs[0] if len(pairs) == 1 else (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return x, y[..., 0] if y.shape[2] == 1 else y


def cut(
    op: str, name: str, values: Array, window: int, horizon: int, columns: list[int], stride: int = 1
) -> tuple[Array, Array]:
    """Return x (N, window, F) and y (N, horizon, K) of a series (T, F), as read-only views."""
    if len(values) < window + horizon:
        raise ValueError(
            f"{op}: {name} has {len(values)} rows; expected at least window + horizon = {window} + {horizon}"
        )
    both = sliding_window_view(values, window + horizon, axis=0)[::stride].swapaxes(1, 2)
    first, steps = columns[0], range(columns[0], columns[0] + len(columns))
    chosen: Any = (
        slice(first, first + len(columns)) if columns == list(steps) else columns
    )  # a view, where it can be one
    return both[:, :window], both[:, window:, chosen]
