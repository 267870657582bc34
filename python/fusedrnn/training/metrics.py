"""Measures of a model's outputs for people to read; ``mask`` as in the losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from ..arrays.checks import as_integer, as_real, check_shape
from ..arrays.namespace import namespace_of
from .losses import IGNORE_INDEX, common_namespace, cross_entropy, mae, valid_elements

Metric: TypeAlias = Callable[..., float]


def accuracy(pred: Any, target: Any, mask: Any = None, *, ignore_index: int = IGNORE_INDEX) -> float:
    """Return the share of valid elements whose largest logit is the target's; pred (..., C), target (...) of int.

    Of two classes by one logit, as for ``binary_cross_entropy``: pred and target (..., 1). Then a positive logit is
    class 1, as is a target above 0.5.
    """
    xp = common_namespace("accuracy", pred, target)
    logits = as_real("accuracy", "pred", pred, None, xp)
    if logits.ndim and logits.shape[-1] == 1 and np.shape(target) == logits.shape:
        labels = as_real("accuracy", "target", target, None, xp)
        shown = slice(None) if mask is None else valid_elements("accuracy", mask, labels.shape, xp)
        right = ((logits > 0) == (labels > 0.5))[shown]
        return float(right.mean()) if right.size else 0.0
    classes = as_integer("accuracy", "target", target, xp)
    if logits.ndim == 0:
        raise ValueError("accuracy: pred has shape (); expected (..., classes)")
    check_shape("accuracy", "target", classes, "pred.shape[:-1]", logits.shape[:-1])
    valid = classes != ignore_index
    if mask is not None:
        valid &= valid_elements("accuracy", mask, classes.shape, xp)
    rows = logits[valid]
    return float((rows.argmax(axis=-1) == classes[valid]).mean()) if rows.size else 0.0


def mean_absolute_error(pred: Any, target: Any, mask: Any = None) -> float:
    """Return the mean of abs(pred - target) over the valid elements."""
    return mae(pred, target, mask)[0]


def perplexity(pred: Any, target: Any, mask: Any = None, *, ignore_index: int = IGNORE_INDEX) -> float:
    """Return exp of the mean cross-entropy: among how many equally likely classes the model chooses."""
    return _exp(cross_entropy(pred, target, mask, ignore_index=ignore_index)[0])


METRICS: dict[str, Metric] = {"accuracy": accuracy, "mae": mean_absolute_error, "perplexity": perplexity}


class RunningMetrics:
    """Metrics over many batches, as if these were one.

    Parameters
    ----------
    metrics : iterable of str or callable
        "accuracy", "mae", "perplexity", or ``metric(pred, target, mask=None) -> float``, a mean over valid elements,
        which goes by its ``__name__``.

    Raises
    ------
    ValueError
        If a name is unknown or given twice.
    """

    def __init__(self, metrics: Iterable[str | Metric] = ()) -> None:
        self._metrics: dict[str, Metric] = {}
        for metric in metrics:
            name = metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)
            if isinstance(metric, str) and metric not in METRICS:
                known = ", ".join(METRICS)
                raise ValueError(f"RunningMetrics: metric is {metric!r}; expected a callable or one of {known}")
            if name in self._metrics:
                raise ValueError(f"RunningMetrics: metric {name!r} is given twice; expected distinct names")
            self._metrics[name] = METRICS[metric] if isinstance(metric, str) else metric
        self._totals = dict.fromkeys(self._metrics, 0.0)
        self._weights = dict.fromkeys(self._metrics, 0)

    def update(self, pred: Any, target: Any, mask: Any = None) -> None:
        """Add a batch."""
        for name, metric in self._metrics.items():
            weight = _valid_count(pred, target, mask)
            if weight:  # a batch without valid elements says nothing
                value = cross_entropy(pred, target, mask)[0] if metric is perplexity else metric(pred, target, mask)
                self._totals[name] += value * weight
                self._weights[name] += weight

    def values(self, prefix: str = "") -> dict[str, float]:
        """Return the values by prefix and name; 0 without a valid element."""
        result = {}
        for name, metric in self._metrics.items():
            mean = self._totals[name] / self._weights[name] if self._weights[name] else 0.0
            result[prefix + name] = _exp(mean) if metric is perplexity and self._weights[name] else mean
        return result


def _valid_count(pred: Any, target: Any, mask: Any) -> int:
    """Return the number of elements of the target that count; integers that are IGNORE_INDEX do not."""
    xp = namespace_of(target)
    labels = np.asarray(target) if xp is np else target
    counts = labels.dtype.kind in "iu" and labels.ndim < np.ndim(pred)
    if mask is None:
        return int(xp.count_nonzero(labels != IGNORE_INDEX)) if counts else labels.size
    valid = valid_elements("RunningMetrics", mask, labels.shape, xp)
    return int(xp.count_nonzero(valid & (labels != IGNORE_INDEX) if counts else valid))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # exp(710) is above the largest float
