"""Classification of windows."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..arrays.checks import Array
from ..layers.activation import softmax
from ..models import SequenceToVector
from ..training import cross_entropy
from .estimator import SequenceEstimator


class RecurrentClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """Classify windows of a series with an RNN, LSTM or GRU: last state to a softmax.

    Parameters
    ----------
    cell, hidden_size, num_layers, bidirectional, dropout, learning_rate, epochs, batch_size, clip_norm, \
validation_fraction, patience, standardize, random_state, verbose
        As of :class:`RecurrentRegressor`; targets are labels, so that only features are standardized.
    class_weight : dict, "balanced" or None
        How much the samples of each class count.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted.
    model_, history_, n_features_in_, window_shape_
        As of :class:`RecurrentRegressor`; the model's outputs are logits.
    """

    _numeric_target = False

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
        class_weight: Any = None,
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
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> RecurrentClassifier:
        """Train on windows X (samples, window) or (samples, window, features) and labels y (samples,).

        Raises
        ------
        ValueError
            For wrong shapes, NaN, infinity, one class only, or an argument outside its range.
        """
        windows, labels = self._windows(X, reset=True, y=y)
        check_classification_targets(labels)
        labels = column_or_1d(labels, warn=True)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__}: y has 1 class, {self.classes_[0]!r}; expected at least 2 classes")
        self._learn_scale(windows)
        weights, head, order = self._seeds(3)
        model = SequenceToVector(self._recurrent(windows.shape[2], weights), len(self.classes_), seed=head)
        weight = compute_class_weight(self.class_weight, classes=self.classes_, y=labels)
        loss = cross_entropy if self.class_weight is None else partial(cross_entropy, weight=weight)
        self._train(model, self._scaled(windows), codes.astype(np.int64), loss, order)
        return self

    def decision_function(self, X: Any) -> Array:
        """Return logits (samples, classes), or of two classes the difference (samples,)."""
        logits = self._predict(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> Array:
        """Return probabilities (samples, classes), in the order of ``classes_``."""
        probabilities: Array = softmax(self._predict(X))
        return probabilities

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each sample."""
        best = self._predict(X).argmax(axis=1)
        labels: Array = self.classes_[best]
        return labels
