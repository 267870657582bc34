"""Tables of a series, of pandas, polars or NumPy: rows are time steps, columns quantities, and time goes on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_real


@dataclass(frozen=True)
class Table:
    """A series as numbers, and what it takes to give later rows the form of the series that came.

    Attributes
    ----------
    values : ndarray of float64 (T, F)
        One row per time step.
    columns : tuple of str, or None
        Names of the features; None for NumPy.
    kind : {"numpy", "pandas", "polars"}
        What came.
    flat : bool
        Whether that was one-dimensional: an array (T,) or a Series.
    time : str, int, tuple or None
        The column that has the time of each row, which is not a feature.
    index : Any
        The times: of pandas the index or that column, of polars that column; None if there are none.
    name : str
        Name of the argument, for messages.
    labels : tuple or None
        The columns as pandas names them, which may be numbers or, of several levels, tuples; by default the names.
    """

    values: Array
    columns: tuple[str, ...] | None
    kind: str
    flat: bool
    time: Any
    index: Any
    name: str = "X"
    labels: tuple[Any, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def numbers_of(self, op: str, name: str, chosen: Any) -> list[int]:
        """Return the places of columns that were given by name or number, one or several; ValueError for others."""
        one = isinstance(chosen, (str, int, np.integer)) or (isinstance(chosen, tuple) and chosen in self.keys)
        return [self._number_of(op, name, each) for each in ([chosen] if one else chosen)]

    def _number_of(self, op: str, name: str, chosen: Any) -> int:
        columns = self.columns or ()
        if isinstance(chosen, tuple) and chosen in self.keys:
            return self.keys.index(chosen)
        if isinstance(chosen, str) and chosen in columns:
            return columns.index(chosen)
        features = self.values.shape[1]
        if isinstance(chosen, (int, np.integer)) and not isinstance(chosen, bool) and -features <= chosen < features:
            return int(chosen % features)
        known = ", ".join(map(repr, columns)) if columns else f"numbers below {features}"
        raise ValueError(f"{op}: {name} is {chosen!r}; expected a column: {known}")

    def following(self, op: str, steps: int) -> Any:
        """Return the index of the ``steps`` rows after the last; ValueError if the time of the rows is not even."""
        if self.index is None:
            return None
        rows = f"{op}: {self.name}"
        return (
            _pandas_following(rows, self.index, steps)
            if self.kind == "pandas"
            else _times_after(rows, self.index, steps)
        )

    def tail(self, rows: int) -> Table:
        """Return the last rows."""
        index = None if self.index is None else self.index[-rows:]
        return replace(self, values=self.values[-rows:].copy(), index=index)

    def places_of(self, op: str, times: Any) -> Array:
        """Return which rows are at these times; ValueError if one is missing."""
        own, wanted = (np.asarray(each) for each in (self.index, times))
        order = np.argsort(own, kind="stable")
        try:
            at = order[np.minimum(np.searchsorted(own[order], wanted), len(own) - 1)]
            missing = np.asarray(own[at] != wanted)
        except TypeError:  # of times and numbers
            missing = np.ones(len(wanted), bool)
        if missing.any():
            raise ValueError(
                f"{op}: {self.name} has no row for {times[int(np.argmax(missing))]}; expected all steps ahead"
            )
        return at

    def like(self, values: Array, names: list[int], index: Any) -> Any:
        """Return rows (n, K) of these columns, at these times, in the form of the series that came."""
        if self.kind == "numpy":
            return values[:, 0] if values.shape[1] == 1 else values
        columns = [(self.columns or ())[number] for number in names]
        if self.kind == "pandas":
            import pandas

            if self.time is None and len(columns) == 1:
                return pandas.Series(values[:, 0], index, name=self.keys[names[0]])
            labels: Any = [self.keys[number] for number in names]
            if isinstance(labels[0], tuple):
                labels = pandas.MultiIndex.from_tuples(labels)
            frame = pandas.DataFrame(values, index if self.time is None else None, columns=labels)
            if self.time is not None:
                frame.insert(0, self.time, index)
            return frame
        import polars

        if self.time is None and len(columns) == 1:
            return polars.Series(columns[0], values[:, 0])
        frame = polars.DataFrame(values, schema=columns)
        if self.time is None:
            return frame
        times = polars.Series(self.time, index.astype("datetime64[us]")).cast(self._time_dtype)
        return frame.insert_column(0, times)

    @property
    def keys(self) -> tuple[Any, ...]:
        """By what the table that came finds its columns."""
        return self.labels or self.columns or ()

    @property
    def _time_dtype(self) -> Any:
        return self.index.dtype


def kind_of(x: Any) -> str:
    """Return "pandas" or "polars" for a table or column of these, else "numpy"; neither is imported."""
    package = type(x).__module__.partition(".")[0]
    return package if package in ("pandas", "polars") and hasattr(x, "shape") else "numpy"


def collected(x: Any) -> Any:
    """Return the table that a query of polars, a LazyFrame, makes; anything else as it is."""
    lazy = type(x).__module__.partition(".")[0] == "polars" and hasattr(x, "collect_schema") and hasattr(x, "collect")
    return x.collect() if lazy else x


def read_table(op: str, name: str, x: Any) -> Table:
    """Return a series (T,) or (T, F) as a Table.

    Raises
    ------
    ValueError
        For another shape, no rows, infinity, a column that has neither numbers nor times, or more than one with times.
    TypeError
        If the dtype is not real.
    """
    x = collected(x)
    kind = kind_of(x)
    if isinstance(x, (list, tuple)) and len({getattr(each, "shape", None) for each in x}) > 1:
        raise ValueError(
            f"{op}: {name} is a list of series; expected one. fusedrnn.data.windows cuts windows of several"
        )
    if kind == "numpy":
        array = as_real(op, name, x, np.dtype(np.float64))
        if array.ndim not in (1, 2):
            raise ValueError(f"{op}: {name} has shape {array.shape}; expected a series (time,) or (time, features)")
        rows = array if array.ndim == 2 else array[:, np.newaxis]
        table = Table(rows, None, kind, array.ndim == 1, None, None, name)
    else:
        table = _read_frame(op, name, x, kind)
    if len(table) == 0 or table.values.shape[1] == 0:
        raise ValueError(f"{op}: {name} has shape {table.values.shape}; expected at least one row and one column")
    unknown = ~np.isfinite(table.values)
    if unknown.any():
        row, column = (int(at) for at in np.argwhere(unknown)[0])
        label = repr(table.columns[column]) if table.columns else str(column)
        found = table.values[row, column]
        raise ValueError(
            f"{op}: {name} has {found} in row {row} of column {label}, {int(unknown.sum())} in all; "
            "expected finite numbers: fill them, as with interpolate() of pandas, or leave the rows out"
        )
    return table


def _read_frame(op: str, name: str, x: Any, kind: str) -> Table:
    flat = len(x.shape) == 1
    frame = x.to_frame() if flat else x
    columns = [str(column) for column in frame.columns]
    if len(set(columns)) < len(columns):
        twice = [column for column in columns if columns.count(column) > 1]
        raise ValueError(f"{op}: {name} has two columns {twice[0]!r}; expected names that differ")
    parts = [frame.iloc[:, i] if kind == "pandas" else frame[column] for i, column in enumerate(frame.columns)]
    times = [i for i, part in enumerate(parts) if _is_time(part, kind)]
    if len(times) > 1:
        raise ValueError(
            f"{op}: {name} has times in the columns {', '.join(columns[i] for i in times)}; expected one at most"
        )
    values = np.empty((len(frame), len(parts)))
    for i, part in enumerate(parts):
        if i not in times:
            values[:, i] = _numbers(op, name, columns[i], part)
    kept = [i for i in range(len(parts)) if i not in times]
    index: Any = None
    if times:
        index = parts[times[0]]
        if kind == "pandas":
            import pandas

            index = pandas.DatetimeIndex(index)
    elif kind == "pandas":
        index = frame.index
    names = tuple(columns[i] for i in kept)
    plain = kind == "polars" or not all(map(_is_label, frame.columns))
    keys = columns if plain else list(frame.columns)
    labels = None if plain else tuple(keys[i] for i in kept)
    return Table(values[:, kept], names, kind, flat, keys[times[0]] if times else None, index, name, labels)


def _is_label(label: Any) -> bool:
    """Return whether the name of a column can be written to a file: text, a number, or a tuple of them."""
    return type(label) in (str, int) or (isinstance(label, tuple) and all(map(_is_label, label)))


def _is_time(part: Any, kind: str) -> bool:
    return bool(part.dtype.is_temporal()) if kind == "polars" else getattr(part.dtype, "kind", "O") == "M"


def _numbers(op: str, name: str, column: str, part: Any) -> Array:
    """Return a column as float64; bool counts as 0 and 1, a missing value as NaN."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if getattr(part.dtype, "kind", None) in ("O", "U", "S", "T", "c", "m") or "str" in str(part.dtype).lower():
                raise TypeError
            array = part.to_numpy()
            if array.dtype == object:  # of a nullable dtype, with pandas.NA or None
                array = np.array([np.nan if each is None or each != each else each for each in array.tolist()])
            numbers: Array = array.astype(np.float64)
            return numbers
    except (TypeError, ValueError):
        raise ValueError(
            f"{op}: {name} has the column {column!r} of dtype {part.dtype}; expected numbers, or one column of times: "
            "leave it out, or turn it into these, dates with to_datetime of pandas"
        ) from None


def check_even(op: str, table: Table) -> None:
    """Raise ValueError unless each row is as long after the one before as all are; no index is even."""
    table.following(op, 1)


def _pandas_following(rows: str, index: Any, steps: int) -> Any:
    """Return the index after one of pandas: of times by its frequency, of numbers by their step."""
    import pandas

    if isinstance(index, pandas.PeriodIndex):
        _check_steps(rows, index, index.asi8 if hasattr(index, "asi8") else np.asarray(index.astype("int64")))
        return pandas.period_range(index[-1], periods=steps + 1, freq=index.freq, name=index.name)[1:]
    if isinstance(index, (pandas.DatetimeIndex, pandas.TimedeltaIndex)):
        frequency = index.freq or _inferred(index)
        if frequency is None or not index.is_monotonic_increasing:
            _check_steps(rows, index, np.asarray(index.astype("int64")))
            frequency = index[-1] - index[-2]
        make = pandas.date_range if isinstance(index, pandas.DatetimeIndex) else pandas.timedelta_range
        return make(index[-1], periods=steps + 1, freq=frequency, name=index.name)[1:]
    if getattr(index.dtype, "kind", "O") not in "iuf":
        raise ValueError(
            f"{rows} has an index of dtype {index.dtype}; expected times or evenly spaced numbers: "
            "reset_index(drop=True) counts the rows"
        )
    numbers = np.asarray(index)
    step = _check_steps(rows, index, numbers)
    if isinstance(index, pandas.RangeIndex):
        last = int(numbers[-1])
        return pandas.RangeIndex(last + step, last + step * (steps + 1), step, name=index.name)
    return pandas.Index(numbers[-1] + step * np.arange(1, steps + 1), name=index.name)


def _times_after(rows: str, times: Any, steps: int) -> Array:
    """Return the times after those of a column of polars: by their distance, or by months."""
    when = times.to_numpy().astype("datetime64[us]")
    following = np.arange(1, steps + 1)
    months = when.astype("datetime64[M]")
    day = when - months
    month_steps = np.unique(np.diff(months.astype(int)))
    if len(when) > 1 and len(month_steps) == 1 and month_steps[0] > 0:
        after = months[-1] + month_steps[0] * following
        ends = (months + 1).astype("datetime64[D]") - 1
        if (day == day[0]).all():
            return np.asarray(after + day[-1], "datetime64[us]")
        if (when.astype("datetime64[D]") == ends).all():
            return np.asarray((after + 1).astype("datetime64[D]") - 1, "datetime64[us]")
    step = _check_steps(rows, when, when.astype(np.int64))
    return np.asarray(when[-1] + np.asarray(step * following, "timedelta64[us]"))


def _frequency(index: Any, gap: int) -> str:
    """Return what asfreq of pandas is to be told where the row after ``gap`` is missing."""
    if kind_of(index) != "pandas" or not hasattr(index, "freqstr"):
        return "..."
    found = index.freqstr or _inferred(max(index[: gap + 1], index[gap + 1 :], key=len)) or "D"
    return repr(getattr(found, "freqstr", found))


def _inferred(index: Any) -> Any:
    """Return the frequency of times of pandas, text or an offset; None if they have none."""
    import pandas

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas 3 tells of a change of the return type
        return pandas.infer_freq(index) if len(index) > 2 else None


def _check_steps(rows: str, index: Any, numbers: Array) -> int | float:
    """Return the step of evenly spaced numbers; ValueError where the first other one is."""
    if len(numbers) < 2:
        raise ValueError(f"{rows} has {len(numbers)} row; expected at least 2, from which its time goes on")
    steps = np.diff(numbers)
    if (steps < 0).any():
        at = int(np.argmax(steps < 0))
        raise ValueError(
            f"{rows} goes back in time: {index[at]} is followed by {index[at + 1]}; expected the oldest row first: "
            "sort it"
        )
    usual = np.sort(steps)[len(steps) // 2]
    odd = ~np.isclose(steps, usual, rtol=1e-9, atol=0)
    if odd.any() or usual == 0:
        gaps = ~np.isclose(steps, usual, rtol=0.2, atol=0)  # more than months and years differ from each other
        at = int(np.argmax(gaps if gaps.any() else odd))
        raise ValueError(
            f"{rows} goes on unevenly: {index[at]} is followed by {index[at + 1]}; expected rows at equal distances, "
            f"or windows would join what is apart: fill the gap, as with asfreq({_frequency(index, at)}).interpolate() "
            "of pandas, or count rows instead of time with reset_index(drop=True)"
        )
    step: int | float = usual.item()
    return step
