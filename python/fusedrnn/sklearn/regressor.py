"""Regression on windows, and forecasts."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ..arrays.checks import Array, positive_int
from ..models import SequenceToVector
from .estimator import SequenceEstimator, mean_and_scale


class RecurrentRegressor(RegressorMixin, SequenceEstimator):  # type: ignore[misc]
    """Predict numbers from a window of a series with an RNN, LSTM or GRU: last state to a linear head, squared error.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}
        Kind of the recurrent layers.
    hidden_size, num_layers : int
        Their size and number.
    bidirectional : bool
        Whether they read the window in both directions.
    dropout : float
        Between the layers.
    learning_rate : float
        Of Adam.
    epochs, batch_size : int
        Passes over the samples, and samples a step.
    clip_norm : float or None
        Largest global norm of the gradients.
    validation_fraction : float
        Share of the samples, chosen at random, that decides when to stop and which weights to keep; 0: train all epochs
        on all samples.
    patience : int
        Epochs without improvement before stopping, with a validation part.
    standardize : bool
        Whether features and targets are brought to mean 0 and deviation 1, over all samples and steps of ``fit``.
    random_state : int, RandomState or None
        Of weights, order and dropout. An int gives the same bits again.
    verbose : bool
        Whether to show a progress bar.

    Attributes
    ----------
    model_ : fusedrnn.models.SequenceToVector
        The network; its inputs and outputs are standardized.
    history_ : fusedrnn.History
        The losses.
    n_features_in_ : int
        The window; ``window_shape_`` has the features, too.

    Examples
    --------
    >>> windows = np.lib.stride_tricks.sliding_window_view(series, 25)
    >>> model = RecurrentRegressor(epochs=50).fit(windows[:, :-1], windows[:, -1])
    >>> model.forecast(12)  # the twelve values after the series
    """

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 32,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        learning_rate: float = 1e-2,
        epochs: int = 50,
        batch_size: int = 32,
        clip_norm: float | None = 1.0,
        validation_fraction: float = 0.0,
        patience: int = 10,
        standardize: bool = True,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.batch_size = batch_size
        self.clip_norm = clip_norm
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> RecurrentRegressor:
        """Train on windows X (samples, window) or (samples, window, features) and y (samples,) or (samples, outputs).

        Raises
        ------
        ValueError
            For wrong shapes, NaN, infinity or an argument outside its range.
        """
        windows, target = self._windows(X, reset=True, y=y)
        self._learn_scale(windows)
        columns = target.reshape(len(target), -1).astype(np.float64)
        self.flat_target_ = target.ndim == 1
        self.y_mean_, self.y_scale_ = mean_and_scale(columns, self.standardize)
        weights, head, order = self._seeds(3)
        model = SequenceToVector(self._recurrent(windows.shape[2], weights), columns.shape[1], seed=head)
        scaled = ((columns - self.y_mean_) / self.y_scale_).astype(np.float32)
        self._train(model, self._scaled(windows), scaled, "mse", order)
        self._last_window = windows[-1:]
        if scaled.shape[1] == windows.shape[2]:  # the window that ends with the last target is where a forecast starts
            self._last_window = np.concatenate((windows[-1:, 1:], columns[-1:, np.newaxis]), axis=1)
        elif windows.shape[2] == 1:
            self._last_window = _moved(windows[-1:], columns[-1:, :, np.newaxis])
        return self

    def predict(self, X: Any) -> Array:
        """Return predictions (samples,) or (samples, outputs), as y was, in float64."""
        values = self._predict(X) * self.y_scale_ + self.y_mean_
        return values[:, 0] if self.flat_target_ else values

    def forecast(self, steps: int, X: Any = None) -> Array:
        """Continue series: predict, append the prediction to the window, predict again.

        For targets that were the next value of the series, its next k values (samples, k), or the next values of all
        features (samples, features).

        Parameters
        ----------
        steps : int
            How many values.
        X : array_like, optional
            Windows as in ``fit``, a series each. By default the series of ``fit``, whose last window and target come
            last.

        Returns
        -------
        ndarray
            (samples, steps), or (samples, steps, features) for X with a third axis; without X that of one sample,
            (steps,) or (steps, features).

        Raises
        ------
        ValueError
            If y was neither the next values of a series nor those of all features.
        """
        check_is_fitted(self, "model_")
        steps = positive_int(type(self).__name__, "steps", steps)
        window = self._last_window if X is None else self._windows(X)
        features, outputs = window.shape[2], len(self.y_mean_)
        if features > 1 and outputs != features:
            raise ValueError(
                f"{type(self).__name__}: forecast needs y with the next values of all {features} features; "
                f"it had {outputs} columns"
            )
        values = np.empty((len(window), 0, features))
        while values.shape[1] < steps:
            made = self.model_(self._scaled(window)).astype(np.float64) * self.y_scale_ + self.y_mean_
            following = made.reshape(len(window), -1, features)
            window = _moved(window, following)
            values = np.concatenate((values, following), axis=1)
        values = values[:, :steps]
        if len(self.window_shape_) == 1:
            values = values[..., 0]
        return values[0] if X is None else values


def _moved(window: Array, following: Array) -> Array:
    """Return the windows (samples, T, features), moved on by the values that follow."""
    moved: Array = np.concatenate((window, following), axis=1)[:, -window.shape[1] :]
    return moved
