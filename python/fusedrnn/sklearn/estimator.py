"""What the estimators share: windows, their scale, and training."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ..arrays.checks import Array
from ..layers import GRU, LSTM, RNN, Layer
from ..training import Adam, EarlyStopping, fit
from ..training.losses import Loss

CELLS: dict[str, Any] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


class SequenceEstimator(BaseEstimator):  # type: ignore[misc]
    """Base of the estimators; see the subclasses for the parameters."""

    # Set by the constructors of the subclasses, where scikit-learn looks for them.
    model_: Any
    cell: str
    hidden_size: int
    num_layers: int
    bidirectional: bool
    dropout: float
    learning_rate: float
    epochs: int
    batch_size: int
    clip_norm: float | None
    validation_fraction: float
    patience: int
    standardize: bool
    random_state: Any
    verbose: bool

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _windows(self, x: Any, *, reset: bool = False, y: Any = "no_validation") -> Any:
        """Return X as (samples, window, features) float64, and y if it is given; X must look as in ``fit``."""
        options = {} if isinstance(y, str) else {"multi_output": True, "y_numeric": self._numeric_target}
        checked = validate_data(
            self, x, y, reset=reset, allow_nd=True, dtype=np.float64, order="C", ensure_min_samples=1, **options
        )
        windows, target = (checked, None) if isinstance(y, str) else checked
        op = type(self).__name__
        if windows.ndim > 3:
            raise ValueError(f"{op}: X has shape {windows.shape}; expected (samples, window) or with a third axis")
        if reset:
            self.window_shape_ = windows.shape[1:]
        elif windows.shape[1:] != self.window_shape_:
            expected = ("samples", *self.window_shape_)
            raise ValueError(f"{op}: X has shape {windows.shape}; expected {expected}, as in fit")
        if windows.ndim == 2:
            windows = windows[..., np.newaxis]
        return windows if isinstance(y, str) else (windows, target)

    _numeric_target = True

    def _learn_scale(self, windows: Array) -> None:
        """Note mean and deviation of each feature over all samples and steps."""
        self.x_mean_, self.x_scale_ = mean_and_scale(windows.reshape(-1, windows.shape[2]), self.standardize)

    def _scaled(self, windows: Array) -> Array:
        scaled: Array = ((windows - self.x_mean_) / self.x_scale_).astype(np.float32)
        return scaled

    def _recurrent(self, input_size: int, seed: int, *, bidirectional: bool | None = None) -> Any:
        if self.cell not in CELLS:
            known = ", ".join(map(repr, CELLS))
            raise ValueError(f"{type(self).__name__}: cell is {self.cell!r}; expected one of {known}")
        return CELLS[self.cell](
            input_size,
            self.hidden_size,
            self.num_layers,
            dropout=self.dropout,
            bidirectional=self.bidirectional if bidirectional is None else bidirectional,
            seed=seed,
        )

    def _seeds(self, count: int) -> list[int]:
        seeds: list[int] = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=count).tolist()
        return seeds

    def _train(self, model: Layer, x: Array, y: Array, loss: str | Loss, seed: int) -> None:
        """Train ``model``; without a validation part, for all epochs."""
        op = type(self).__name__
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"{op}: validation_fraction is {self.validation_fraction}; expected a number in [0, 1)")
        order = np.random.default_rng(seed).permutation(len(x))
        held_out = order[: int(self.validation_fraction * len(x))]
        chosen = np.sort(order[len(held_out) :])
        validation = None if not len(held_out) else (x[held_out], y[held_out])
        with np.errstate(over="ignore", invalid="ignore"):
            self.history_ = fit(
                model,
                x[chosen],
                y[chosen],
                loss=loss,
                optimizer=lambda layer: Adam(layer, lr=self.learning_rate),
                epochs=self.epochs,
                batch_size=self.batch_size,
                clip_norm=self.clip_norm,
                validation_data=validation,
                callbacks=() if validation is None else (EarlyStopping(self.patience),),
                progress=self.verbose,
                seed=seed,
            )
        self.model_ = model

    def _predict(self, x: Any, method: str = "__call__") -> Array:
        """Return what a method of the model makes of the scaled windows, in batches, in float64."""
        check_is_fitted(self, "model_")
        run = getattr(self.model_, method)
        windows = self._scaled(self._windows(x))
        pieces = [run(windows[first : first + 1024]) for first in range(0, len(windows), 1024)]
        result: Array = np.concatenate(pieces).astype(np.float64)
        return result


def mean_and_scale(rows: Array, wanted: bool) -> tuple[Array, Array]:
    """Return mean and standard deviation of each column; 1 for a constant one, and (0, 1) if not wanted."""
    if not wanted:
        return np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    scale = rows.std(axis=0)
    return rows.mean(axis=0), np.where(scale > 1e-12 * np.abs(rows).max(axis=0, initial=0), scale, 1.0)
