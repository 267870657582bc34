"""Codes of windows, and how well they can be restored."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from ..arrays.checks import Array
from ..models import SequenceAutoencoder
from .estimator import SequenceEstimator


class SequenceAutoencoderTransformer(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    SequenceEstimator,
):
    """Compress windows of a series to codes with a recurrent autoencoder; windows that it restores badly are unusual.

    Parameters
    ----------
    code_size : int
        Size of the code.
    cell, hidden_size, num_layers, bidirectional, dropout, learning_rate, epochs, batch_size, clip_norm, \
validation_fraction, patience, standardize, random_state, verbose
        As of :class:`RecurrentRegressor`; encoder and decoder have as many layers, and ``bidirectional`` is the
        encoder's.

    Attributes
    ----------
    model_ : fusedrnn.models.SequenceAutoencoder
        Its sequences are standardized.
    history_, n_features_in_, window_shape_
        As of :class:`RecurrentRegressor`.
    """

    def __init__(
        self,
        code_size: int = 8,
        cell: str = "gru",
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
        self.code_size = code_size
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

    def fit(self, X: Any, y: Any = None) -> SequenceAutoencoderTransformer:
        """Train on windows X (samples, window) or (samples, window, features); y is not read.

        Raises
        ------
        ValueError
            For wrong shapes, NaN, infinity or an argument outside its range.
        """
        windows = self._windows(X, reset=True)
        self._learn_scale(windows)
        encoder, decoder, rest, order = self._seeds(4)
        model = SequenceAutoencoder(
            self._recurrent(windows.shape[2], encoder),
            self._recurrent(self.code_size, decoder, bidirectional=False),
            code_size=self.code_size,
            inputs="code",
            seed=rest,
        )
        scaled = self._scaled(windows)
        self._train(model, scaled, scaled, "mse", order)
        return self

    @property
    def _n_features_out(self) -> int:
        return int(self.model_.code_size)

    def transform(self, X: Any) -> Array:
        """Return the codes (samples, code_size) in float64."""
        return self._predict(X, "encode")

    def inverse_transform(self, X: Any) -> Array:
        """Return the windows of codes X (samples, code_size), shaped as those of ``fit``."""
        check_is_fitted(self, "model_")
        codes = check_array(X, dtype=np.float64)
        steps = self.window_shape_[0]
        made = self.model_.decode(codes.astype(np.float32), steps).astype(np.float64)
        windows: Array = (made * self.x_scale_ + self.x_mean_).reshape(len(codes), *self.window_shape_)
        return windows

    def reconstruction_error(self, X: Any) -> Array:
        """Return the mean squared error (samples,) of each restored window, in standardized units."""
        return self._predict(X, "reconstruction_error")

    def score_samples(self, X: Any) -> Array:
        """Return minus the reconstruction error: the lower, the more unusual, as scikit-learn's outlier detectors."""
        return -self.reconstruction_error(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of ``score_samples``: higher is better, for GridSearchCV; y is not read."""
        return float(self.score_samples(X).mean())
