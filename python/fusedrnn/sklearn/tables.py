"""Forecasts of a table: it is cut into windows here, and what is predicted continues its index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import r2_score

from ..arrays.checks import Array, positive_int
from ..data import Scaler
from ..data.table import Table, check_even, kind_of, read_table
from ..data.windows import cut
from ..layers import Layer
from ..models import SequenceToSequence, SequenceToVector
from ..training import mse
from ..training.losses import Loss

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
        if fresh:
            self._learn_table(op, table)
        inputs, outputs, _ = self._samples(op, self._scaled_rows(table.values))
        weight = None
        if sample_weight is not None:
            rows = np.asarray(sample_weight, np.float64)
            if rows.shape != (len(table),) or not (np.isfinite(rows) & (rows >= 0)).all():
                raise ValueError(
                    f"{op}: sample_weight has shape {rows.shape}; expected (rows,) = ({len(table)},), none negative"
                )
            weight = cut(op, "sample_weight", rows[:, np.newaxis], window, self.horizon, [0])[1].mean(axis=(1, 2))
        self._train(inputs, outputs, weight, fresh=fresh, epochs=epochs, validate=validate, gap=window)
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
            x, _ = cut(op, "X", self._scaled_rows(table.values), int(self.window or 0), self.horizon, self._targets_at)
            self._spread = Scaler().fit(x[..., self._targets_at] - self._level(x)).scale

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

    def _samples(self, op: str, rows: Array) -> tuple[Array, Array, Array]:
        """Return what the model reads (N, T, F) of scaled rows, its targets (N, horizon K) or (N, T, K), and levels."""
        window, horizon = int(self.window or 0), self.horizon
        x, y = cut(op, "X", rows, window, horizon, self._targets_at)
        x, level = self._from_level(x)
        if self._spread is not None:
            y = ((y - level) / self._spread).astype(np.float32)
        if not self._known:
            return x, y.reshape(len(y), -1), level
        ahead = cut(op, "X", rows, window, horizon, self._known)[1]
        return self._with_known(x, ahead), y, level

    def _level(self, x: Array) -> Array:
        """Return the mean of the targets over each window (N, T, F), (N, 1, K)."""
        level: Array = x[..., self._targets_at].mean(axis=1, keepdims=True)
        return level

    def _from_level(self, x: Array) -> tuple[Array, Array]:
        """Return windows whose targets are measured from their level if that is wished, and the level, else 0."""
        if self._spread is None:
            return x, np.zeros((1, 1, 1), np.float32)
        x, level = x.copy(), self._level(x)
        x[..., self._targets_at] = (x[..., self._targets_at] - level) / self._spread
        return x, level

    def _with_known(self, x: Array, ahead: Array) -> Array:
        """Return windows (N, T, F) followed by rows of which only the known columns (N, horizon, K) are known."""
        both = np.zeros((len(x), x.shape[1] + ahead.shape[1], x.shape[2]), np.float32)
        both[:, : x.shape[1]] = x
        both[:, x.shape[1] :, self._known] = ahead
        return both

    def _make_for_table(self, features: int, seeds: list[int]) -> Layer:
        layer = self._recurrent(features, seeds[0])
        read = layer.hidden_size * layer.num_directions
        if self._known:
            return SequenceToSequence(layer, self._head(read, len(self._targets_at), seeds[1]))
        return SequenceToVector(layer, self._head(read, self.horizon * len(self._targets_at), seeds[1]))

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

    def _ahead(self, inputs: Array, level: Array) -> Array:
        """Return what the model predicts of each sample, (N, horizon, K), in the units of the table."""
        made = self._run(inputs)
        made = made[:, -self.horizon :] if self._known else made.reshape(len(made), self.horizon, -1)
        values: Array = self._unscaled(made if self._spread is None else made * self._spread + level)
        return values

    def _predict_table(self, x: Any) -> Array:
        op = type(self).__name__
        table = self._read_table(x)
        check_even(op, table)
        rows = self._scaled_rows(table.values)
        if not self._known:  # the last windows may have nothing behind them in the table
            rows = np.concatenate((rows, np.zeros((self.horizon, rows.shape[1]), np.float32)))
        inputs, _, level = self._samples(op, rows)
        values = self._ahead(inputs, level)
        return values[..., 0] if len(self._targets_at) == 1 else values

    def _score_table(self, x: Any, y: Any) -> float:
        op = type(self).__name__
        if y is not None:
            raise ValueError(f"{op}: y is given together with window=; expected None: target= names the columns of X")
        truth = cut(op, "X", self._read_table(x).values, int(self.window or 0), self.horizon, self._targets_at)[1]
        made = self._predict_table(x)[: len(truth)]
        return float(r2_score(truth.reshape(len(truth), -1), made.reshape(len(truth), -1)))

    def _forecast_table(self, steps: int, x: Any, known: Any) -> Any:
        op = type(self).__name__
        steps = positive_int(op, "steps", steps)
        table = self._history if x is None else self._read_table(x)
        window, horizon = int(self.window or 0), self.horizon
        if len(table) < window:
            raise ValueError(f"{op}: X has {len(table)} rows; expected at least window = {window}")
        others = self.n_features_in_ - len(self._targets_at) - len(self._known)
        if steps > horizon and others:
            raise ValueError(
                f"{op}: steps is {steps}; expected at most horizon = {horizon}, as {others} columns are neither "
                "predicted nor known ahead"
            )
        index = table.following(op, steps)
        blocks = -(-steps // horizon)
        future = np.zeros((blocks * horizon, self.n_features_in_))
        if self._known:
            future[:steps, self._known] = self._known_ahead(op, table, index, steps, known)
            future[steps:, self._known] = future[steps - 1, self._known]  # the rest of the last block is cut off
        elif known is not None:
            raise ValueError(f"{op}: known is given, but there are no such columns; expected None without known= ")
        values = table.values[-window:]
        for first in range(0, len(future), horizon):
            ahead = future[first : first + horizon]
            read, level = self._from_level(self._scaled_rows(values[np.newaxis, -window:]))
            if self._known:
                read = self._with_known(read, self._scaled_rows(ahead)[np.newaxis][..., self._known])
            ahead[:, self._targets_at] = self._ahead(read, level)[0]
            values = np.concatenate((values, ahead))
        return table.like(future[:steps, self._targets_at], self._targets_at, index)

    def _known_ahead(self, op: str, table: Table, index: Any, steps: int, known: Any) -> Array:
        """Return the known columns (steps, K) of the rows to predict."""
        names = [table.columns[column] for column in self._known] if table.columns else []
        if known is None:
            what = ", ".join(names) or f"{len(self._known)} columns"
            raise ValueError(f"{op}: known is None; expected the next {steps} rows of {what}")
        if kind_of(known) != "numpy" and len(known.shape) == 2:  # other columns may be unknown there
            times = [name for name in [table.time] if name is not None and name in known.columns]
            missing = [name for name in names if name not in known.columns]
            if missing:
                raise ValueError(f"{op}: known has no column {missing[0]!r}; expected {', '.join(names)}")
            known = known[[*times, *names]]
        rows = read_table(op, "known", known)
        if rows.values.shape[1] != len(self._known):
            raise ValueError(f"{op}: known has {rows.values.shape[1]} columns; expected {len(self._known)}")
        at = np.arange(steps) if rows.index is None else rows.places_of(op, index)
        if at.max() >= len(rows):
            raise ValueError(f"{op}: known has {len(rows)} rows; expected at least {steps}")
        return rows.values[at]
