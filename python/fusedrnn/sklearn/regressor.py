"""Regression on windows, sequences and texts, and forecasts."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ..arrays.checks import Array, positive_int
from ..data import Preprocessor, Scaler, Vocabulary
from ..layers import Layer
from ..models import SequenceToVector
from ..training.losses import Loss
from .estimator import SequenceEstimator, embedding_of
from .inputs import Sequences
from .samples import TableWindows, counting
from .splits import targets_continue
from .tables import TableForecaster


@dataclass(eq=False, repr=False)
class RecurrentRegressor(RegressorMixin, TableForecaster, SequenceEstimator):  # type: ignore[misc]
    """Predict numbers with an RNN, LSTM or GRU, from windows, sequences, texts or a table: last state to a linear head.

    With ``window=``, X is a series, a table with one row per time step, and the estimator cuts its windows by itself:
    ``RecurrentRegressor(window=48, horizon=24, target="load").fit(table).forecast()``. Without, each sample of X is a
    window, a sequence or a text. The loss is the squared error.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}
        Kind of the recurrent layers.
    hidden_size, num_layers : int
        Their size and number.
    window, horizon : int
        For a table: time steps to read, and time steps to predict from them. None: X is not a table.
    target : str, int or list of those, optional
        For a table: the columns to predict; all by default.
    known : str, int or list of those
        For a table: columns that are known ahead, such as the hour or a holiday; the model reads them over the horizon,
        too.
    vocabulary : Vocabulary, optional
        How texts are cut; it learns its tokens anew in ``fit``. By default words in lower case.
    embedding_size : int
        Numbers that stand for a token of a text.
    bidirectional : bool
        Whether the layers read in both directions.
    dropout : float
        Between the layers and before the head.
    learning_rate : float
        Learning rate of Adam.
    epochs, batch_size : int
        Passes over the samples, and samples per step.
    clip_norm : float or None
        Largest global norm of the gradients.
    validation_fraction : float
        Share of the samples that decides when to stop and which weights to keep; 0: train all epochs on all samples.
    validation : {"auto", "last", "random"}
        Which samples those are: the last ones, or random ones. Windows that overlap show each other's targets, so that
        "auto" is the last ones for a table and for windows of a series in their order, and random ones for all else.
        Before the last ones, the samples within a window of them are left out.
    patience : int
        Epochs without improvement before stopping, with a validation part.
    standardize : {"auto", True, False, "window"}
        Whether features and targets are brought to mean 0 and deviation 1, over all samples and steps of ``fit``. A
        scaler in front would not know that windows overlap, and that a forecast goes back into them. "window", for
        a table: in addition, targets are measured from their mean over each window, so that a series may drift out of
        the range of ``fit``. "auto": "window" for a table, else True.
    warm_start : bool
        Whether a second ``fit`` goes on from the weights of the first one, with its scale.
    random_state : int, RandomState or None
        Seed for weights, order and dropout. An int gives the same bits again.
    verbose : bool
        Whether to show a progress bar.

    Attributes
    ----------
    model_ : fusedrnn.models.SequenceToVector
        The network; its inputs and outputs are standardized. With ``known`` a SequenceToSequence over window and
        horizon.
    history_ : fusedrnn.History
        The losses.
    n_features_in_ : int
        Features of a table or of sequences; of windows their length. ``window_shape_`` has both.
    feature_names_in_ : ndarray of str
        The columns, of a table that names them.
    x_scaler_, y_scaler_ : fusedrnn.data.Scaler or None
        Scale of features and targets.

    Examples
    --------
    >>> windows = np.lib.stride_tricks.sliding_window_view(series, 25)
    >>> model = RecurrentRegressor(epochs=50).fit(windows[:, :-1], windows[:, -1])
    >>> model.forecast(12)  # the twelve values after the series
    """

    cell: str = "lstm"
    hidden_size: int = 32
    num_layers: int = 1
    _: KW_ONLY
    window: int | None = None
    horizon: int = 1
    target: Any = None
    known: Any = ()
    vocabulary: Vocabulary | None = None
    embedding_size: int = 32

    _last_window: Any = field(init=False)
    _reads_texts = True
    _advice = "RecurrentRegressor(window=...) reads such a table, "

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.required = self.window is None
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> RecurrentRegressor:
        """Train on X and targets y, or on a table.

        Parameters
        ----------
        X : array_like (samples, window) or (samples, window, features), list of arrays, list of str, or a table
            Windows; sequences (time,) or (time, features) of unequal length; texts; or, with ``window=``, one series
            (time,) or (time, features): an array, or a table or column of pandas or polars.
        y : array_like (samples,) or (samples, outputs), optional
            Targets; None with a table, which has them as columns.
        sample_weight : array_like (samples,), optional
            How much each sample counts; of a table one weight a row, for the samples that predict it.

        Raises
        ------
        ValueError
            For wrong shapes, NaN, infinity, rows at unequal distances, a table that is no windows, or an argument
            outside its range.
        """
        return self._fit(X, y, sample_weight, anew=not self.warm_start, epochs=self.epochs)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> RecurrentRegressor:
        """Train for one epoch on more samples or rows; the scale is that of the first call. Arguments as in ``fit``."""
        return self._fit(X, y, sample_weight, anew=False, epochs=1, validate=False)

    def predict(self, X: Any) -> Array:
        """Return predictions (samples,) or (samples, outputs), as y was, in float64.

        For a table, what follows each of its windows, (windows, horizon), or (windows, horizon, targets) for several:
        those after the rows [i, i + window). With ``known``, only windows with the horizon in the table count.
        """
        check_is_fitted(self, "model_")
        if self.window is not None:
            return self._predict_table(X)
        values = self._unscaled(self._predict(X))
        return values[:, 0] if self.flat_target_ else values

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return R^2 of the predictions, as scikit-learn's regressors; of a table, of windows with a horizon in it."""
        if self.window is not None:
            check_is_fitted(self, "model_")
            return self._score_table(X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def forecast(self, steps: int | None = None, X: Any = None, *, known: Any = None) -> Any:
        """Continue series.

        For a table: the rows after its last one. For windows: predict, append the prediction to the window, and so on,
        for targets that were the next value of the series, its next k values (samples, k), or the next values of all
        features (samples, features).

        Parameters
        ----------
        steps : int, optional
            How many time steps; of a table by default the horizon. For more, all columns must be predicted or known.
        X : array_like, optional
            Windows as in ``fit``, a series each; or a table, of which the last rows count. By default the series of
            ``fit``, whose last window and target come last.
        known : array_like or table, optional
            Rows with the columns ``known`` for the steps ahead: by their times, or if they have none from the first on.

        Returns
        -------
        ndarray, or what X of ``fit`` was
            For a table, its targets with its index or column of times continued: a Series for one target, else a
            DataFrame; for NumPy (steps,) or (steps, targets). For windows, (samples, steps), or (samples, steps,
            features) for X with a third axis; without X that of one sample, (steps,) or (steps, features).

        Raises
        ------
        ValueError
            If the windows of ``fit`` did not continue each other, or y was not what comes after them: the series is
            another one than that of a forecast, as behind a scaler, which scales windows but not y.
        """
        check_is_fitted(self, "model_")
        if self.window is not None:
            return self._forecast_table(self.horizon if steps is None else steps, X, known)
        op = type(self).__name__
        steps = positive_int(op, "steps", steps)
        if known is not None:
            raise ValueError(f"{op}: known is given, but X of fit was no table; expected None without window=")
        if self._why_no_series:
            raise ValueError(f"{op}: forecast needs {self._why_no_series}")
        given: Any = None if X is None else self._read(X)[0]
        if isinstance(given, list):
            raise ValueError(f"{op}: X is a list; expected windows (samples, {self.window_shape_[0]}), as in fit")
        window = self._last_window if given is None else given
        features = window.shape[2]
        values = np.empty((len(window), 0, features))
        while values.shape[1] < steps:
            following = self._unscaled(self._run(self._scaled(window))).reshape(len(window), -1, features)
            window = _moved(window, following)
            values = np.concatenate((values, following), axis=1)
        values = values[:, :steps]
        if len(self.window_shape_) == 1:
            values = values[..., 0]
        return values[0] if X is None else values

    def _fit(self, x: Any, y: Any, sample_weight: Any, **how: Any) -> RecurrentRegressor:
        if self.window is not None:
            return self._fit_table(x, y, sample_weight, **how)  # type: ignore[no-any-return]
        learnt: RecurrentRegressor = self._learn(x, y, sample_weight, **how)
        return learnt

    def _targets(self, inputs: Sequences, target: Any, weight: Array | None, fresh: bool) -> Any:
        columns = target.reshape(len(target), -1).astype(np.float64)
        if fresh:
            self.flat_target_ = target.ndim == 1
            self.y_scaler_ = Scaler().fit(counting(columns, weight)) if self.standardize else None
            self._outputs = columns.shape[1]
        if columns.shape[1] != self._outputs:
            raise ValueError(f"{type(self).__name__}: y has {columns.shape[1]} outputs; expected {self._outputs}")
        return (columns if self.y_scaler_ is None else self.y_scaler_.transform(columns)).astype(np.float32)

    def _note_series(self, windows: Sequences, target: Any) -> None:
        """Note why there is no series to forecast, or the window that ends with its last target."""
        self._last_window = None
        if isinstance(windows, list):
            self._why_no_series = "windows of one length in fit; X was a list"
            return
        features, outputs = windows.shape[2], int(np.prod(target.shape[1:]))
        if features > 1 and outputs != features:
            self._why_no_series = f"y with the next values of all {features} features; it had {outputs} columns"
            return
        following = target.reshape(len(target), -1, features)
        if not self._stride or not targets_continue(windows, following, self._stride):
            self._why_no_series = (
                "windows in fit that continue each other, with y what comes next: the rows of a table do not, nor do "
                "windows in another order or behind a scaler. Expected windows of one series, one after another, in "
                f"its units: standardize=True scales inside, {type(self).__name__}(window=...) cuts windows itself"
            )
            return
        self._why_no_series, self._last_window = "", _moved(windows[-1:], following[-1:])

    def _loss(self) -> str | Loss:
        return super()._loss() if self.window is None else self._loss_of_table()

    def _make(self, samples: Any, seeds: list[int]) -> Layer:
        if isinstance(samples, TableWindows):
            return self._make_for_table(samples, seeds)
        embedding = embedding_of(self.vocabulary_, self.embedding_size, seeds[2])
        layer = self._recurrent(samples.x[0].shape[1] if embedding is None else self.embedding_size, seeds[0])
        head = self._head(layer.hidden_size * layer.num_directions, samples.y.shape[1], seeds[1])
        return SequenceToVector(layer, head, embedding=embedding)

    def _unscaled(self, made: Array) -> Array:
        values: Array = made if self.y_scaler_ is None else self.y_scaler_.inverse_transform(made)
        return values

    def _preprocessing(self) -> dict[str, Preprocessor]:
        return super()._preprocessing() | ({} if self.y_scaler_ is None else {"y": self.y_scaler_})


def _moved(window: Array, following: Array) -> Array:
    """Return the windows (samples, T, features), moved on by the values that follow."""
    moved: Array = np.concatenate((window, following), axis=1)[:, -window.shape[1] :]
    return moved
