"""Forecasts of a table: it is cut into windows here, and what is predicted continues its index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.metrics import r2_score

from ..arrays.checks import Array, positive_int
from ..data import Scaler
from ..data.table import Table, check_even, collected, kind_of, read_table
from ..data.windows import cut
from ..layers import Layer
from ..models import SequenceToSequence, SequenceToVector
from ..training import mse
from ..training.losses import Loss
from .reading import together
from .samples import TableWindows

_TOGETHER = 1 << 18  # values of windows that are looked at together where all have to be
_FLAT = 1e-6  # a deviation below this share of the scale is rounding
_REMEMBERED = 32  # last rows of fit that a forecast keeps at least: enough to tell the distance of their times


class TableForecaster:
    """Part of :class:`RecurrentRegressor`: what it does with ``window=``.

    A model without known columns is a SequenceToVector from the window to all values of the horizon. With some, it is a
    SequenceToSequence over window and horizon, in which the other columns are 0, their mean.
    """

    window: int | None
    horizon: int
    target: Any
    known: Any
    if TYPE_CHECKING:
        standardize: bool | str
        model_: Layer
        window_shape_: tuple[Any, ...]
        x_scaler_: Scaler | None
        y_scaler_: Scaler | None
        _train: Any
        _run: Any
        _unscaled: Any
        _recurrent: Any
        _head: Any

    def _fit_table(self, x: Any, y: Any, sample_weight: Any, *, anew: bool, epochs: int, validate: bool = True) -> Any:
        op = type(self).__name__
        if y is not None:
            raise ValueError(f"{op}: y is given together with window=; expected None: target= names the columns of X")
        window = positive_int(op, "window", self.window)
        positive_int(op, "horizon", self.horizon)
        fresh = anew or not hasattr(self, "model_")
        table = self._read_table(x, reset=fresh)
        check_even(op, table)
        if len(table) < window + self.horizon:
            raise ValueError(
                f"{op}: X has {len(table)} rows; expected at least window + horizon = {window} + {self.horizon}"
            )
        if fresh:
            self._learn_table(op, table)
        windows = self._windows_of(table.values, self._weight_of(op, sample_weight, len(table)))
        self._train(windows, fresh=fresh, epochs=epochs, validate=validate, gap=window)
        self._history = table.tail(max(window, _REMEMBERED))
        return self

    def _learn_table(self, op: str, table: Table) -> None:
        """Note the columns and their scale."""
        every = list(range(table.values.shape[1]))
        self._known = table.numbers_of(op, "known", self.known)
        self._targets_at = (
            [column for column in every if column not in self._known]
            if self.target is None
            else table.numbers_of(op, "target", self.target)
        )
        both = [column for column in self._targets_at if column in self._known]
        if both or not self._targets_at:
            raise ValueError(
                f"{op}: target is {self.target!r} and known {self.known!r}; expected a target that is not known ahead"
            )
        self._columns, self.vocabulary_ = table.columns, None
        self._window, self._horizon = int(self.window or 0), self.horizon
        self.n_features_in_, self.window_shape_ = len(every), (self.window, len(every))
        if table.columns is not None:
            self.feature_names_in_ = np.array(table.columns, dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        if self.standardize not in (True, False, "auto", "window"):
            raise ValueError(f"{op}: standardize is {self.standardize!r}; expected 'auto', True, False or 'window'")
        self.x_scaler_ = self.y_scaler_ = None
        if self.standardize:
            self.x_scaler_ = Scaler().fit(table.values)
            self.y_scaler_ = Scaler().fit(table.values[:, self._targets_at])
        self._spread = None
        if self.standardize in ("auto", "window"):
            self._spread = self._spread_of(self._scaled_rows(table.values)[:, self._targets_at])

    def _weight_of(self, op: str, sample_weight: Any, count: int) -> Array | None:
        """Return the weight (N,) of each window: the mean of those of the rows that it predicts."""
        if sample_weight is None:
            return None
        rows = np.asarray(sample_weight, np.float64)
        if rows.shape != (count,) or not (np.isfinite(rows) & (rows >= 0)).all():
            raise ValueError(
                f"{op}: sample_weight has shape {rows.shape}; expected (rows,) = ({count},), none negative"
            )
        ahead = cut(op, "sample_weight", rows[:, np.newaxis], self._window, self._horizon, [0])[1]
        weight: Array = ahead.mean(axis=(1, 2))
        return weight

    def _spread_of(self, rows: Array) -> Array:
        """Return the deviation (K,) of scaled targets (T, K) from their mean over each window."""
        inside = sliding_window_view(rows, self._window, axis=0)
        total, count = np.zeros(rows.shape[1]), 0
        size = max(1, _TOGETHER // self._window)
        for first in range(0, len(inside), size):
            part = inside[first : first + size].astype(np.float64)
            total += np.square(part - part.mean(axis=2, keepdims=True)).sum(axis=(0, 2))
            count += part.shape[0] * part.shape[2]
        spread = np.sqrt(total / count)
        return np.where(spread > _FLAT, spread, 1.0)

    def _read_table(self, x: Any, *, reset: bool = False) -> Table:
        op = type(self).__name__
        table = read_table(op, "X", x)
        if not reset and (table.columns != self._columns or table.values.shape[1] != self.n_features_in_):
            got, expected = (
                ", ".join(names) if names else f"{count} columns"
                for names, count in (
                    (table.columns, table.values.shape[1]),
                    (self._columns, self.n_features_in_),
                )
            )
            raise ValueError(f"{op}: X has {got}; expected {expected}, as in fit")
        return table

    def _scaled_rows(self, values: Array) -> Array:
        scaled = values if self.x_scaler_ is None else self.x_scaler_.transform(values)
        return scaled.astype(np.float32)

    def _windows_of(self, values: Array, weight: Array | None = None) -> TableWindows:
        rows = self._scaled_rows(values)
        return TableWindows(rows, self._window, self._horizon, self._targets_at, self._known, self._spread, weight)

    def _make_for_table(self, windows: TableWindows, seeds: list[int]) -> Layer:
        layer = self._recurrent(windows.rows.shape[1], seeds[0])
        read = layer.hidden_size * layer.num_directions
        if self._known:
            return SequenceToSequence(layer, self._head(read, len(self._targets_at), seeds[1]))
        return SequenceToVector(layer, self._head(read, self._horizon * len(self._targets_at), seeds[1]))

    def _loss_of_table(self) -> str | Loss:
        """Return the squared error, of the horizon alone."""
        if not self._known:
            return "mse"

        def of_the_horizon(pred: Any, target: Any, mask: Any = None, sample_weight: Any = None) -> tuple[float, Array]:
            weight = {} if sample_weight is None else {"sample_weight": sample_weight}
            d_pred = np.zeros_like(pred)
            value, d_pred[:, -target.shape[1] :] = mse(pred[:, -target.shape[1] :], target, mask, **weight)
            return value, d_pred

        return of_the_horizon

    def _ahead(self, windows: TableWindows) -> Array:
        """Return what the model predicts of each window, (N, horizon, K), in the units of the table."""
        values = np.empty((len(windows), self._horizon, len(self._targets_at)))
        size = together(windows.steps)
        for first in range(0, len(windows), size):
            chosen = slice(first, first + size)
            inputs, level = windows.inputs(chosen)
            made = self._run(inputs)
            made = made[:, -self._horizon :] if self._known else made.reshape(len(made), self._horizon, -1)
            values[chosen] = made if self._spread is None else made * self._spread + level
        unscaled: Array = self._unscaled(values)
        return unscaled

    def _predict_table(self, x: Any) -> Array:
        op = type(self).__name__
        table = self._read_table(x)
        check_even(op, table)
        rows = table.values
        if not self._known:  # the last windows may have nothing behind them in the table
            rows = np.concatenate((rows, np.zeros((self._horizon, rows.shape[1]))))
        windows = self._windows_of(rows)
        if len(windows) < 1:
            needed = self._window + (self._horizon if self._known else 0)
            raise ValueError(f"{op}: X has {len(table)} rows; expected at least {needed}, for one prediction")
        values = self._ahead(windows)
        return values[..., 0] if len(self._targets_at) == 1 else values

    def _score_table(self, x: Any, y: Any, sample_weight: Any) -> float:
        op = type(self).__name__
        if y is not None:
            raise ValueError(f"{op}: y is given together with window=; expected None: target= names the columns of X")
        table = self._read_table(x)
        truth = cut(op, "X", table.values, self._window, self._horizon, self._targets_at)[1]
        made = self._predict_table(x)[: len(truth)]
        weight = self._weight_of(op, sample_weight, len(table))
        return float(r2_score(truth.reshape(len(truth), -1), made.reshape(len(truth), -1), sample_weight=weight))

    def _forecast_table(self, steps: int, x: Any, known: Any) -> Any:
        op = type(self).__name__
        steps = positive_int(op, "steps", steps)
        table = self._history if x is None else self._read_table(x)
        window, horizon = self._window, self._horizon
        if len(table) < window:
            raise ValueError(f"{op}: X has {len(table)} rows; expected at least window = {window}")
        others = self.n_features_in_ - len(self._targets_at) - len(self._known)
        if steps > horizon and others:
            raise ValueError(
                f"{op}: steps is {steps}; expected at most horizon = {horizon}, as {others} columns are neither "
                f"predicted nor known ahead: fit with horizon={steps}"
            )
        index = table.following(op, steps)
        blocks = -(-steps // horizon)
        future = np.zeros((blocks * horizon, self.n_features_in_))
        if self._known:
            future[:steps, self._known] = self._known_ahead(op, table, index, steps, known)
            future[steps:, self._known] = future[steps - 1, self._known]  # the rest of the last block is cut off
        elif known is not None:
            raise ValueError(f"{op}: known is given, but there are no such columns; expected None without known= ")
        values = np.concatenate((table.values[-window:], future))
        for first in range(0, len(future), horizon):
            block = self._windows_of(values[first : first + window + horizon])
            values[first + window : first + window + horizon, self._targets_at] = self._ahead(block)[0]
        future = values[window:]
        return table.like(future[:steps, self._targets_at], self._targets_at, index)

    def _known_ahead(self, op: str, table: Table, index: Any, steps: int, known: Any) -> Array:
        """Return the known columns (steps, K) of the rows to predict."""
        names = [table.columns[column] for column in self._known] if table.columns else []
        if known is None:
            what = ", ".join(names) or f"{len(self._known)} columns"
            raise ValueError(f"{op}: known is None; expected the next {steps} rows of {what}")
        known = collected(known)
        if kind_of(known) != "numpy" and len(known.shape) == 2:  # other columns may be unknown there
            times = [name for name in [table.time] if name is not None and name in known.columns]
            wanted = [table.keys[column] for column in self._known]
            missing = [name for name in wanted if name not in known.columns]
            if missing:
                raise ValueError(f"{op}: known has no column {missing[0]!r}; expected {', '.join(names)}")
            known = known[[*times, *wanted]]
        rows = read_table(op, "known", known)
        if rows.values.shape[1] != len(self._known):
            raise ValueError(f"{op}: known has {rows.values.shape[1]} columns; expected {len(self._known)}")
        at = np.arange(steps) if rows.index is None else rows.places_of(op, index)
        if at.max() >= len(rows):
            raise ValueError(f"{op}: known has {len(rows)} rows; expected at least {steps}")
        return rows.values[at]
