"""How the estimators read X: windows, sequences of unequal length or texts, as in ``fit`` and on its scale."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, check_consistent_length, validate_data

from ..arrays.checks import Array
from ..arrays.lengths import pad_sequences
from ..data import Scaler, Vocabulary
from ..data.vocabulary import is_text, missing_text
from .inputs import Sequences, as_sequences, check_windows

NOTHING = "no_validation"  # what scikit-learn calls a y that does not come
_STEPS_TOGETHER = 1 << 17  # time steps of a batch of predictions, padding included: bounds its memory
_SAMPLES_TOGETHER = 1024


class SequenceReader:
    """Part of the estimators; what it learns of X in ``fit`` are the attributes below.

    Attributes
    ----------
    window_shape_ : tuple
        Shape of a window; its first size is None for sequences of unequal length and texts.
    vocabulary_ : Vocabulary or None
        Vocabulary of the texts.
    x_scaler_ : Scaler or None
        Scaler of the numbers, where they are standardized.
    """

    standardize: bool | str
    window_shape_: tuple[Any, ...]
    vocabulary_: Vocabulary | None
    x_scaler_: Scaler | None
    _reads_texts = False
    _numeric_target = True
    _advice = ""  # of the message about a table: what this estimator could do with one

    def _read(self, x: Any, *, reset: bool = False, y: Any = NOTHING) -> tuple[Sequences, Any]:
        """Return X as sequences, and y if it is given; X must look as in ``fit``, unless that is forgotten."""
        if self._reads_texts and is_text(x) and (reset or self.vocabulary_ is not None):
            vocabulary = self.vocabulary_ if not reset else None
            if vocabulary is None:
                asked = getattr(self, "vocabulary", None)
                vocabulary = Vocabulary(lower=True) if asked is None else copy.deepcopy(asked)
                self.vocabulary_ = vocabulary.fit(x)
                self._forget((None,), 1)
            return vocabulary.transform(x), self._read_target(x, y)
        op = type(self).__name__
        if self._reads_texts and (missing := missing_text(x)) is not None:
            raise ValueError(f"{op}: X[{missing}] is {list(x)[missing]!r} among texts; expected a str")
        if isinstance(x, (list, tuple, str)) and not x:
            raise ValueError(f"{op}: X is empty; expected at least one sample")
        if not reset and self.vocabulary_ is not None:
            raise ValueError(f"{op}: X has no texts; expected a list of str, as in fit")
        if isinstance(x, str) or (isinstance(x, (list, tuple)) and isinstance(x[0], str)):
            what = "is a str" if isinstance(x, str) else "has texts"
            as_before = "" if reset else ", as in fit"
            raise ValueError(f"{op}: X {what}; expected windows or sequences of numbers{as_before}")
        check_windows(op, x, self._advice)
        sequences = as_sequences(op, x)
        if sequences is None or (reset and len({len(each) for each in sequences}) == 1):
            return self._read_windows(op, x, reset, y)
        if reset:
            self.vocabulary_ = None
            self._forget((None, *np.shape(x[0])[1:]), sequences[0].shape[1])
        self._check_features(op, sequences[0])
        return sequences, self._read_target(x, y)

    def _read_windows(self, op: str, x: Any, reset: bool, y: Any) -> tuple[Array, Any]:
        """Return X as (samples, time, features)."""
        if not reset and self.window_shape_[0] is None:  # any number of steps will do
            windows, target = check_array(x, dtype=np.float64, allow_nd=True), self._read_target(x, y)
        else:
            if not reset and isinstance(x, np.ndarray) and x.ndim == 3:
                self._check_window(op, x.shape)
            options = {} if isinstance(y, str) else {"multi_output": True, "y_numeric": self._numeric_target}
            checked = validate_data(
                self, x, y, reset=reset, allow_nd=True, dtype=np.float64, order="C", ensure_min_samples=1, **options
            )
            windows, target = (checked, None) if isinstance(y, str) else checked
        if windows.ndim > 3:
            raise ValueError(f"{op}: X has shape {windows.shape}; expected (samples, window) or with a third axis")
        if reset:
            self.window_shape_, self.vocabulary_ = windows.shape[1:], None
        else:
            self._check_window(op, windows.shape)
        flat = windows.ndim == 2
        one = "; a single sequence is [X]" if flat and windows.shape[1:] == self.window_shape_[1:] else ""
        windows = windows[..., np.newaxis] if flat else windows
        self._check_features(op, windows, one)
        return windows, target

    def _check_window(self, op: str, shape: tuple[int, ...]) -> None:
        """Raise ValueError for windows of another shape than in fit, where those had all the same."""
        if self.window_shape_[0] is not None and shape[1:] != self.window_shape_:
            expected = ", ".join(("samples", *map(str, self.window_shape_)))
            raise ValueError(
                f"{op}: X has shape {shape}; expected ({expected}), as in fit; sequences of any length come as lists, "
                "in fit as well"
            )

    def _read_target(self, x: Any, y: Any) -> Any:
        """Return y of sequences or texts, checked as scikit-learn checks it; None if it does not come."""
        if isinstance(y, str):
            return None
        if y is None:
            raise ValueError(f"{type(self).__name__}: y is None; expected a target for each sample")
        target = check_array(y, ensure_2d=False, dtype=np.float64 if self._numeric_target else None)
        check_consistent_length(x, target)
        return target

    def _forget(self, window_shape: tuple[Any, ...], features: int) -> None:
        """Note the form of sequences or texts in place of that of an earlier ``fit``."""
        self.window_shape_, self.n_features_in_ = window_shape, features
        if hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _check_features(self, op: str, x: Array, hint: str = "") -> None:
        expected = self.window_shape_[1] if len(self.window_shape_) == 2 else 1
        if x.shape[-1] != expected:
            raise ValueError(f"{op}: X has {x.shape[-1]} features; expected {expected}, as in fit{hint}")

    def _learn_scale(self, sequences: Sequences) -> None:
        """Note mean and deviation of each feature over all samples and steps; ids have none."""
        if self.standardize not in (True, False, "auto"):
            raise ValueError(
                f"{type(self).__name__}: standardize is {self.standardize!r}; expected 'auto', True or False, or "
                "'window' with window="
            )
        wanted = bool(self.standardize) and self.vocabulary_ is None
        self.x_scaler_ = Scaler().fit(sequences) if wanted else None

    def _scaled(self, sequences: Sequences) -> Sequences:
        """Return what the model reads: float32 on its scale, or the ids as they are."""
        if self.vocabulary_ is not None:
            return sequences
        scaled = sequences if self.x_scaler_ is None else self.x_scaler_.transform(sequences)
        if isinstance(scaled, list):
            return [each.astype(np.float32) for each in scaled]
        return scaled.astype(np.float32)


def batches(x: Sequences) -> Iterator[tuple[Any, Array, NDArray[np.int64] | None]]:
    """Yield (which samples, the samples padded, their lengths) such that a batch is small, and so is its padding."""
    if not isinstance(x, list):
        size = together(x.shape[1])
        for first in range(0, len(x), size):
            yield slice(first, first + size), x[first : first + size], None
        return
    order = np.argsort([len(each) for each in x], kind="stable")[::-1]  # the longest first: it sets the batch's width
    first = 0
    while first < len(order):
        chosen = order[first : first + together(len(x[order[first]]))]
        yield chosen, *pad_sequences([x[index] for index in chosen])
        first += len(chosen)


def together(steps: int) -> int:
    """Return how many samples of so many steps make a batch of predictions."""
    return int(np.clip(_STEPS_TOGETHER // max(steps, 1), 1, _SAMPLES_TOGETHER))
