"""Metrics of a model's outputs, for people to read; ``mask`` and ``sample_weight`` as in the losses."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ..arrays.checks import Array, as_real, check_takes, described, number, one_of
from ..arrays.namespace import namespace_of
from .losses import (
    IGNORE_INDEX,
    class_numbers,
    common_namespace,
    cross_entropy,
    element_weights,
    mae,
    mse,
    valid_elements,
)

Metric: TypeAlias = Callable[..., float]


def accuracy(
    pred: Any, target: Any, mask: Any = None, *, ignore_index: int = IGNORE_INDEX, sample_weight: Any = None
) -> float:
    """Return the share of valid elements whose largest logit is the target's; pred (..., C), target (...) of int.

    For two classes with one logit, as in ``binary_cross_entropy``, pred and target are (..., 1). Then a positive logit
    means class 1, as does a target above 0.5.
    """
    op = "accuracy"
    xp = common_namespace(op, pred, target)
    logits = as_real(op, "pred", pred, None, xp)
    if logits.ndim and logits.shape[-1] == 1 and np.shape(target) == logits.shape:
        labels = as_real(op, "target", target, None, xp)
        valid: Any = None if mask is None else valid_elements(op, mask, labels.shape, xp)
        return _mean(op, xp, (logits > 0) == (labels > 0.5), valid, sample_weight)
    if logits.ndim == 0:
        raise ValueError("accuracy: pred has shape (); expected (..., classes)")
    classes = class_numbers(op, target, logits, xp)
    valid = classes != ignore_index
    if mask is not None:
        valid &= valid_elements(op, mask, classes.shape, xp)
    if logits.size == 0:
        return 0.0
    return _mean(op, xp, logits.argmax(axis=-1) == classes, valid, sample_weight)


def mean_absolute_error(pred: Any, target: Any, mask: Any = None, *, sample_weight: Any = None) -> float:
    """Return the mean of abs(pred - target) over the valid elements."""
    return mae(pred, target, mask, sample_weight=sample_weight)[0]


def mean_squared_error(pred: Any, target: Any, mask: Any = None, *, sample_weight: Any = None) -> float:
    """Return the mean of (pred - target)^2 over the valid elements."""
    return mse(pred, target, mask, sample_weight=sample_weight)[0]


def perplexity(
    pred: Any, target: Any, mask: Any = None, *, ignore_index: int = IGNORE_INDEX, sample_weight: Any = None
) -> float:
    """Return exp of the mean cross-entropy: the number of equally likely classes that the model hesitates between."""
    return _exp(cross_entropy(pred, target, mask, ignore_index=ignore_index, sample_weight=sample_weight)[0])


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "mae": mean_absolute_error,
    "mse": mean_squared_error,
    "perplexity": perplexity,
}
RISING = {"accuracy"}  # better when higher


class RunningMetrics:
    """Metrics over many batches, as if these were one.

    Parameters
    ----------
    metrics : iterable of str or callable, or dict of those
        "accuracy", "mae", "mse", "perplexity", or ``metric(pred, target, mask=None) -> float``, a mean over valid
        elements, recorded under its ``__name__`` or its key. One that takes ``sample_weight``, as the built-in ones
        do, gets it.
    op : str
        Who asks, for messages.

    Raises
    ------
    ValueError
        If a name is unknown or given twice.
    """

    def __init__(
        self, metrics: Iterable[str | Metric] | Mapping[str, str | Metric] = (), *, op: str = "RunningMetrics"
    ) -> None:
        self._metrics: dict[str, Metric] = {}
        named = metrics.items() if isinstance(metrics, Mapping) else ((_name_of(metric), metric) for metric in metrics)
        for name, metric in named:
            if isinstance(metric, str) and metric not in METRICS:
                raise ValueError(f"{op}: metric is {metric!r}; expected a callable or {one_of(metric, METRICS)}")
            if not isinstance(metric, str) and not callable(metric):
                raise TypeError(f"{op}: a metric is {described(metric)}; expected a name or a function")
            if name in self._metrics:
                raise ValueError(f"{op}: metric {name!r} is given twice; expected distinct names")
            if not isinstance(metric, str):
                check_takes(op, f"metric {name}", metric, f"{name}(pred, target, mask)")
            self._metrics[name] = METRICS[metric] if isinstance(metric, str) else metric
        self._weighted = {name for name, metric in self._metrics.items() if _takes_weights(metric)}
        self._totals = dict.fromkeys(self._metrics, 0.0)
        self._weights = dict.fromkeys(self._metrics, 0.0)

    def update(self, pred: Any, target: Any, mask: Any = None, sample_weight: Any = None) -> None:
        """Add a batch."""
        for name, metric in self._metrics.items():
            given = sample_weight if name in self._weighted else None
            weight = _valid_weight(pred, target, mask, given)
            if weight:  # a batch in which nothing counts says nothing
                options = {} if given is None else {"sample_weight": given}
                if metric is perplexity:
                    value = cross_entropy(pred, target, mask, **options)[0]
                else:
                    value = metric(pred, target, mask, **options)
                self._totals[name] += number("RunningMetrics", f"the value of metric {name}", value) * weight
                self._weights[name] += weight

    def values(self, prefix: str = "") -> dict[str, float]:
        """Return the values by prefix and name; 0 without a valid element."""
        result = {}
        for name, metric in self._metrics.items():
            mean = self._totals[name] / self._weights[name] if self._weights[name] else 0.0
            result[prefix + name] = _exp(mean) if metric is perplexity and self._weights[name] else mean
        return result


def _valid_weight(pred: Any, target: Any, mask: Any, sample_weight: Any) -> float:
    """Return what the valid elements of the target weigh; integers that are IGNORE_INDEX do not count."""
    xp = namespace_of(target)
    labels = np.asarray(target) if xp is np else target
    valid = labels != IGNORE_INDEX if labels.dtype.kind in "iu" and labels.ndim < np.ndim(pred) else None
    if mask is not None:
        shown = valid_elements("RunningMetrics", mask, labels.shape, xp)
        valid = shown if valid is None else valid & shown
    if sample_weight is None:
        return float(labels.size if valid is None else xp.count_nonzero(valid))
    weights = element_weights("RunningMetrics", sample_weight, labels.shape, None, xp)
    return float((weights if valid is None else weights[valid]).sum(dtype=np.float64))


def _mean(op: str, xp: Any, right: Array, valid: Any, sample_weight: Any) -> float:
    """Return the weighted share of what is right among what is valid; 0 without any."""
    shown = slice(None) if valid is None else valid
    if sample_weight is None:
        chosen = right[shown]
        return float(chosen.mean()) if chosen.size else 0.0
    weights = element_weights(op, sample_weight, right.shape, None, xp)[shown]
    total = float(weights.sum(dtype=np.float64))
    return float((weights * right[shown]).sum(dtype=np.float64)) / total if total else 0.0


def _name_of(metric: str | Metric) -> str:
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def _takes_weights(metric: Metric) -> bool:
    try:
        return "sample_weight" in inspect.signature(metric).parameters
    except (TypeError, ValueError):  # of what is not written in Python
        return False


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # exp(710) is above the largest float
