"""Classification of windows, sequences and texts."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d

from ..arrays.checks import Array
from ..data import Labels, Preprocessor, Vocabulary
from ..layers import Layer
from ..layers.activation import softmax
from ..models import SequenceToVector
from ..training import cross_entropy
from ..training.losses import Loss, balanced
from .estimator import SequenceEstimator, embedding_of
from .inputs import Sequences


@dataclass(eq=False, repr=False)
class RecurrentClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """Classify windows of a series, sequences or texts with an RNN, LSTM or GRU: last state to a softmax.

    Parameters
    ----------
    cell, hidden_size, num_layers, bidirectional, dropout, learning_rate, epochs, batch_size, clip_norm, \
validation_fraction, validation, patience, standardize, warm_start, random_state, verbose
        As in :class:`RecurrentRegressor`; targets are labels, so that only features are standardized.
    class_weight : dict, "balanced" or None
        How much the samples of each class count, as in scikit-learn; of several outputs a list of those, or "balanced",
        which counts a sample as often as its weight says.
    vocabulary : Vocabulary, optional
        How texts are cut; it learns its tokens anew in ``fit``. By default words in lower case.
    embedding_size : int
        Numbers that stand for a token of a text.

    Attributes
    ----------
    classes_ : ndarray, or list of ndarray
        The labels, sorted; of several outputs one array each.
    vocabulary_ : Vocabulary or None
        Vocabulary of the texts.
    model_, history_, n_features_in_, feature_names_in_, window_shape_
        As in :class:`RecurrentRegressor`; the model's outputs are logits, of several outputs side by side.

    Examples
    --------
    >>> RecurrentClassifier("gru", epochs=5).fit(reviews, ["good", "bad", ...]).predict(["what a waste of time"])
    """

    cell: str = "lstm"
    hidden_size: int = 32
    num_layers: int = 1
    _: KW_ONLY
    class_weight: Any = None
    vocabulary: Vocabulary | None = None
    embedding_size: int = 32

    _reads_texts = True
    _numeric_target = False

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RecurrentClassifier:
        """Train on X and labels y.

        Parameters
        ----------
        X : array_like (samples, window) or (samples, window, features), list of arrays, or list of str
            Windows; sequences (time,) or (time, features) of unequal length; or texts.
        y : array_like (samples,) or (samples, outputs)
            Labels of any kind: text, numbers, truth values.
        sample_weight : array_like (samples,), optional
            How much each sample counts, times the weight of its class.

        Raises
        ------
        ValueError
            For wrong shapes, NaN, infinity, one class only, a table that is no windows, or an argument outside its
            range.
        """
        return self._learn(X, y, sample_weight, anew=not self.warm_start, epochs=self.epochs)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> RecurrentClassifier:
        """Train for one epoch on more samples; scale, vocabulary and classes are those of the first call.

        Parameters
        ----------
        X, y, sample_weight
            As in ``fit``; "balanced" balances the samples of this call.
        classes : array_like, optional
            All labels that will come, in the first call; by default those of its y. One output only.
        """
        if classes is not None and hasattr(self, "model_"):
            known = set(np.ravel(np.asarray(self._labels[0].classes)).tolist())
            if self._several or set(np.ravel(classes).tolist()) != known:
                raise ValueError(f"{type(self).__name__}: classes is {classes!r}; expected those of the first call")
        self._coming = classes
        try:
            return self._learn(X, y, sample_weight, anew=False, epochs=1, validate=False)
        finally:
            del self._coming

    @available_if(lambda self: not getattr(self, "_several", False))  # type: ignore[untyped-decorator]
    def decision_function(self, X: Any) -> Array:
        """Return logits (samples, classes), or of two classes the difference (samples,); of one output only."""
        (logits,) = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> Array | list[Array]:
        """Return probabilities (samples, classes), in the order of ``classes_``; of several outputs a list of those."""
        probabilities: list[Array] = [softmax(part) for part in self._logits(X)]
        return probabilities if self._several else probabilities[0]

    def predict(self, X: Any) -> Array:
        """Return the most probable label of each sample, (samples,) or (samples, outputs)."""
        best = [part.argmax(axis=1) for part in self._logits(X)]
        named = [labels.inverse_transform(each) for labels, each in zip(self._labels, best, strict=True)]
        return np.stack(named, axis=1) if self._several else named[0]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of samples whose label, or whose labels of all outputs, are right."""
        check_is_fitted(self, "model_")
        if not self._several:
            return float(super().score(X, y, sample_weight))
        right = self.predict(X) == check_array(y, dtype=None)
        return float(np.average(right.all(axis=1), weights=sample_weight))

    def _targets(self, inputs: Sequences, target: Any, weight: Array | None, fresh: bool) -> Array:
        check_classification_targets(target)
        if fresh:
            self._several, self._labels = target.ndim == 2 and target.shape[1] > 1, []
        columns = self._columns(target)
        if fresh:
            coming = getattr(self, "_coming", None)
            self._labels = [Labels().fit(column if coming is None else coming) for column in columns]
            every = [labels.classes for labels in self._labels]
            self.classes_ = every if self._several else every[0]
        for labels in self._labels:
            if len(labels) < 2:
                (only,) = np.asarray(labels.classes).tolist()
                raise ValueError(f"{type(self).__name__}: y has 1 class, {only!r}; expected at least 2 classes")
        try:
            codes = [labels.transform(column) for labels, column in zip(self._labels, columns, strict=True)]
        except ValueError as error:
            message = str(error).removeprefix("Labels: data")
            raise ValueError(
                f"{type(self).__name__}: y{message}; the first call of partial_fit takes all that will come as classes"
            ) from None
        return np.stack(codes, axis=1) if self._several else codes[0]

    def _columns(self, target: Array) -> list[Array]:
        """Return the labels of each output."""
        outputs = target.shape[1] if target.ndim == 2 else 1
        if not self._several:
            return [column_or_1d(target, warn=True)]
        if self._labels and len(self._labels) != outputs:
            raise ValueError(f"{type(self).__name__}: y has {outputs} outputs; expected {len(self._labels)}")
        return list(target.T)

    def _weights(self, target: Any, weight: Array | None) -> Array | None:
        if self.class_weight is None:
            return weight
        labels = target if self._several else self._columns(target)[0]
        of_class: Array = compute_sample_weight(self.class_weight, labels)
        if (of_class < 0).any():
            raise ValueError(f"{type(self).__name__}: class_weight is {self.class_weight!r}; expected weights >= 0")
        if weight is None:
            return of_class
        if isinstance(self.class_weight, str):  # "balanced": a sample of weight 2 is there twice
            of_class = np.ones(len(weight))
            for column in self._columns(target):
                at = np.unique(column, return_inverse=True)[1]
                of_class *= balanced(np.bincount(at, weight))[at]
        return of_class * weight

    def _loss(self) -> str | Loss:
        if not self._several:
            return "cross_entropy"
        ends = np.cumsum([len(labels) for labels in self._labels])[:-1].tolist()

        def sum_over_outputs(pred: Any, target: Any, mask: Any = None, sample_weight: Any = None) -> tuple[float, Any]:
            weight = {} if sample_weight is None else {"sample_weight": sample_weight}
            parts = [
                cross_entropy(logits, codes, mask, **weight)
                for logits, codes in zip(np.split(pred, ends, axis=1), target.T, strict=True)
            ]
            return sum(value for value, _ in parts), np.concatenate([d for _, d in parts], axis=1)

        return sum_over_outputs

    def _make(self, samples: Any, seeds: list[int]) -> Layer:
        embedding = embedding_of(self.vocabulary_, self.embedding_size, seeds[2])
        layer = self._recurrent(samples.x[0].shape[1] if embedding is None else self.embedding_size, seeds[0])
        features = layer.hidden_size * layer.num_directions
        head = self._head(features, sum(map(len, self._labels)), seeds[1])
        return SequenceToVector(layer, head, embedding=embedding)

    def _logits(self, x: Any) -> list[Array]:
        """Return the logits of each output."""
        check_is_fitted(self, "model_")
        logits = self._predict(x)
        return np.split(logits, np.cumsum([len(labels) for labels in self._labels])[:-1], axis=1)

    def _preprocessing(self) -> dict[str, Preprocessor]:
        several = {f"labels{index}": labels for index, labels in enumerate(self._labels)}
        return super()._preprocessing() | (several if self._several else {"labels": self._labels[0]})
