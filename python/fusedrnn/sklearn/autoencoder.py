"""Codes of windows and sequences, and how well they can be restored."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from ..arrays.checks import Array
from ..layers import Layer
from ..models import SequenceAutoencoder
from .estimator import SequenceEstimator
from .inputs import Sequences
from .reading import NOTHING


@dataclass(eq=False, repr=False)
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
validation_fraction, validation, patience, standardize, warm_start, random_state, verbose
        As in :class:`RecurrentRegressor`; encoder and decoder have as many layers, ``bidirectional`` is the encoder's,
        and the last dropout is before the decoder's head.

    Attributes
    ----------
    model_ : fusedrnn.models.SequenceAutoencoder
        Its sequences are standardized.
    history_, n_features_in_, feature_names_in_, window_shape_, x_scaler_
        As in :class:`RecurrentRegressor`.
    """

    code_size: int = 8
    cell: str = "gru"
    hidden_size: int = 32
    num_layers: int = 1
    _: KW_ONLY

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SequenceAutoencoderTransformer:
        """Train on X; y is not read.

        Parameters
        ----------
        X : array_like (samples, window) or (samples, window, features), or list of arrays
            Windows; or sequences (time,) or (time, features) of unequal length.
        y : None
            Not read.
        sample_weight : array_like (samples,), optional
            How much each sample counts.

        Raises
        ------
        ValueError
            For wrong shapes, NaN, infinity, a table that is no windows, or an argument outside its range.
        """
        return self._learn(X, NOTHING, sample_weight, anew=not self.warm_start, epochs=self.epochs)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> SequenceAutoencoderTransformer:
        """Train for one epoch on more samples; the scale is that of the first call. Arguments are those of ``fit``."""
        return self._learn(X, NOTHING, sample_weight, anew=False, epochs=1, validate=False)

    @property
    def _n_features_out(self) -> int:
        return int(self.model_.code_size)

    def transform(self, X: Any) -> Array:
        """Return the codes (samples, code_size) in float64."""
        return self._predict(X, "encode")

    def inverse_transform(self, X: Any, lengths: Any = None) -> Any:
        """Return what codes X (samples, code_size) stand for, shaped as X of ``fit`` was.

        Sequences of unequal length come back as a list; ``lengths`` (samples,) says how long each is.
        """
        check_is_fitted(self, "model_")
        codes = check_array(X, dtype=np.float64).astype(np.float32)
        steps, *features = self.window_shape_
        if (steps is None) != (lengths is not None):
            expected = (
                "the length of each sequence" if steps is None else f"None: the windows of fit have {steps} steps"
            )
            raise ValueError(f"{type(self).__name__}: lengths is {lengths!r}; expected {expected}")
        if lengths is None:
            made = self._unscaled(self.model_.decode(codes, steps))
            windows: Array = made.reshape(len(codes), *self.window_shape_)
            return windows
        ends = np.asarray(lengths, np.int64)
        restored = self._unscaled(self.model_.decode(codes, int(ends.max(initial=0)), lengths=ends))
        return [(row if features else row[:, 0])[:end] for row, end in zip(restored, ends, strict=True)]

    def reconstruction_error(self, X: Any) -> Array:
        """Return the mean squared error (samples,) of each restored window, in standardized units."""
        return self._predict(X, "reconstruction_error")

    def score_samples(self, X: Any) -> Array:
        """Return minus the reconstruction error: the lower, the more unusual, as scikit-learn's outlier detectors."""
        return -self.reconstruction_error(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean of ``score_samples``: higher is better, for GridSearchCV; y is not read."""
        return float(np.average(self.score_samples(X), weights=sample_weight))

    def _targets(self, inputs: Sequences, target: Any, weight: Array | None, fresh: bool) -> Any:
        return inputs

    def _make(self, samples: Any, seeds: list[int]) -> Layer:
        features = samples.x[0].shape[1]
        return SequenceAutoencoder(
            self._recurrent(features, seeds[0]),
            self._recurrent(self.code_size, seeds[1], bidirectional=False),
            head=self._head(self.hidden_size, features, seeds[2]),
            code_size=self.code_size,
            inputs="code",
            seed=seeds[3],
        )

    def _unscaled(self, made: Array) -> Array:
        values = made.astype(np.float64)
        restored: Array = values if self.x_scaler_ is None else self.x_scaler_.inverse_transform(values)
        return restored
