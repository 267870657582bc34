"""Names of classes as numbers from 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_integer, described
from .preprocessor import Preprocessor

_KINDS = "OUiufb"  # of what labels are: text, numbers, truth values


class Labels(Preprocessor):
    """Number classes 0, 1, ... in sorted order, as ``cross_entropy`` takes them, and name them again.

    Labels are text, integers, floats or truth values: a vector (N,), an array (N, T), or for each sample a list of the
    labels of its time steps.

    Attributes
    ----------
    classes : ndarray (C,)
        The labels in order; None before ``fit``.

    Examples
    --------
    >>> labels = Labels()
    >>> y = labels.fit_transform(["sun", "rain", "sun"])  # [1, 0, 1]
    >>> labels.inverse_transform(model(x).argmax(axis=1))
    """

    def __init__(self) -> None:
        self.classes: Array | None = None

    def __len__(self) -> int:
        return len(self._learnt())

    def fit(self, data: Any) -> Labels:
        """Learn which classes there are.

        Raises
        ------
        TypeError
            If a label is neither text nor a number, or they cannot be sorted.
        ValueError
            If there is none, or one is NaN.
        """
        flat = np.concatenate([_labels(each).ravel() for each in data]) if _per_step(data) else _labels(data)
        try:
            self.classes = _checked(np.unique(flat))
        except TypeError as error:
            raise TypeError(f"Labels: data mixes kinds of labels: {error}; expected one kind") from None
        return self

    def transform(self, data: Any) -> Any:
        """Return the numbers of labels in int64, a list of arrays for a list of lists; ValueError for a new one."""
        if _per_step(data):
            return [self.transform(each) for each in data]
        classes, labels = self._learnt(), _labels(data)
        try:
            at = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
            wrong = np.asarray(classes[at] != labels)
        except TypeError as error:
            raise TypeError(f"Labels: data has other kinds of labels than fit: {error}") from None
        if wrong.any():
            known = ", ".join(map(repr, classes[:10].tolist()))
            raise ValueError(
                f"Labels: data has the label {labels[wrong].tolist()[0]!r}; expected one of those of fit: {known}"
            )
        return at.astype(np.int64)

    def inverse_transform(self, data: Any) -> Any:
        """Return the labels of numbers, a list for a list of arrays; ValueError outside [0, C)."""
        if _per_step(data):
            return [self.inverse_transform(each) for each in data]
        classes, numbers = self._learnt(), as_integer("Labels", "data", data)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(classes):
            got = f"Labels: data goes from {numbers.min()} to {numbers.max()}"
            raise ValueError(f"{got}; expected 0 <= class < {len(classes)}")
        return classes[numbers]

    def config(self) -> dict[str, Any]:
        """Return the classes as a list, and their dtype."""
        classes = self._learnt()
        return {"classes": classes.tolist(), "dtype": classes.dtype.str}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Labels:
        """Make one from what ``config`` returned."""
        labels, dtype = cls(), np.dtype(str(config["dtype"]))
        values = config["classes"]
        if dtype.kind not in _KINDS or not isinstance(values, list) or dtype.itemsize > 4 * max(1, len(str(values))):
            raise ValueError("Labels: the classes are malformed; expected a list of text, numbers or truth values")
        labels.classes = _checked(np.array(values, dtype))
        return labels

    def __repr__(self) -> str:
        return "Labels()" if self.classes is None else f"Labels(classes={self.classes.tolist()})"

    def _learnt(self) -> Array:
        if self.classes is None:
            raise self._not_fitted()
        return self.classes


def _per_step(data: Any) -> bool:
    """Return whether data is a list with a sequence of labels for each sample."""
    return isinstance(data, (list, tuple)) and len(data) > 0 and isinstance(data[0], (list, tuple, np.ndarray))


def _labels(data: Any) -> Array:
    """Return labels as an array of text, numbers or truth values."""
    array = np.asarray(data)
    if array.dtype == object or array.dtype.kind not in _KINDS:
        wrong = [each for each in array.ravel() if not isinstance(each, (str, int, float, np.generic))]
        if wrong or array.dtype.kind not in _KINDS:
            got = described(wrong[0]) if wrong else f"a {array.dtype}"
            raise TypeError(f"Labels: a label is {got}; expected text, numbers or truth values")
    return array


def _checked(classes: Array) -> Array:
    if classes.ndim != 1 or len(classes) == 0 or (classes.dtype.kind == "f" and np.isnan(classes).any()):
        raise ValueError("Labels: there is no label, or one is NaN; expected at least one, and each known")
    if classes.dtype == object and not all(isinstance(each, (str, int, float)) for each in classes):
        raise TypeError("Labels: a label is neither text nor a number")
    return classes
