"""The loss of a run: masks, weights of classes and samples, unknown targets, and by what each batch is divided."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_real, check_shape, integer, number
from ..arrays.namespace import from_host, namespace_of, take_host, to_host
from .data import Batch, Samples
from .losses import IGNORE_INDEX, LOSSES, UNALIGNED, Loss, balanced, cross_entropy, get_loss, sequence_mask, spread


@dataclass(frozen=True)
class Verdict:
    """What a loss says of a batch.

    Attributes
    ----------
    total, weight : float
        The sum of the weighted losses, and that of their weights: what the mean over many batches is made of.
    d_pred : ndarray
        Gradient of the sum over what it was divided by; of several outputs a dictionary.
    mask, sample_weight : ndarray or None
        Which elements counted, and how much the samples did, for metrics.
    parts : mapping of str to Verdict
        What the losses of several outputs say.
    """

    total: float
    weight: float
    d_pred: Any
    mask: Any
    sample_weight: Any
    parts: Mapping[str, Verdict] = field(default_factory=dict)


class Mean:
    """A weighted mean that grows; NaN as long as nothing counts."""

    def __init__(self) -> None:
        self._total = 0.0
        self._weight = 0.0

    def add(self, verdict: Verdict, penalty: float) -> None:
        """Add a batch, and what the model adds to its loss."""
        if verdict.weight:  # a batch in which nothing counts says nothing
            self._total += verdict.total + penalty * verdict.weight
            self._weight += verdict.weight

    @property
    def counts(self) -> bool:
        """Whether anything does."""
        return self._weight > 0

    @property
    def value(self) -> float:
        """The mean."""
        return self._total / self._weight if self._weight else math.nan

    def parts(self, before: str = "") -> dict[str, float]:
        """Return nothing: there is one output."""
        return {}


def rank_of_steps(loss: str | Loss, op: str) -> int:
    """Return how many axes a target has at least if it has the prediction's time steps; 0 for a time of its own."""
    function = get_loss(loss, op)
    whole = function.func if isinstance(function, partial) else function
    return 0 if whole in UNALIGNED else 2 if whole is cross_entropy else 3


class Criterion:
    """A loss as ``fit`` and ``evaluate`` apply it.

    The loss of an epoch is the sum of w l over the sum of w, whatever the batches; w is the weight of a label's class
    times that of its sample. In training, a step's sum of w dl is divided by the number of labels that so many samples
    have on average over the epoch (each as often as its sample's weight says): so a label counts the same whether its
    batch has few or many, and the mean over the steps is the gradient of one batch of all samples.

    Parameters
    ----------
    loss, class_weight, ignore_nan
        As ``fit`` takes them.
    samples : Samples, optional
        Those that "balanced" is about; None for a source.
    op : str
        For messages.
    """

    def __init__(
        self,
        loss: str | Loss,
        class_weight: Any = None,
        ignore_nan: bool = False,
        samples: Samples | None = None,
        op: str = "fit",
    ) -> None:
        self.op = op
        function = get_loss(loss, op)
        options = dict(function.keywords) if isinstance(function, partial) else {}
        whole = function.func if isinstance(function, partial) else function
        self.name = getattr(whole, "__name__", type(whole).__name__)
        self.built_in = whole in LOSSES.values()
        self.by_sample = whole in UNALIGNED
        self.ignore_index = options.get("ignore_index", IGNORE_INDEX)
        self.ignore_nan = ignore_nan
        if class_weight is not None and (whole is not cross_entropy or options.get("weight") is not None):
            raise ValueError(f"{op}: class_weight is given with another loss; expected cross_entropy")
        if whole is cross_entropy:  # the classes' weights are multiplied with the samples'
            class_weight = options.pop("weight", None) if class_weight is None else class_weight
            function = partial(cross_entropy, **options)
        self.function = function
        self._takes = {"mask", "sample_weight"} if self.built_in else _arguments(op, self.name, function)
        self.class_weight = None if class_weight is None else _class_weight(op, class_weight, samples)
        self._samples = samples
        self._by_class: Array | None = None

    def recorded(self) -> tuple[str, ...]:
        """Return under which names more than the loss is recorded: none."""
        return ()

    def mean(self) -> Mean:
        """Return the mean loss of no batch."""
        return Mean()

    def check_metrics(self, metrics: tuple[Any, ...]) -> None:
        """Raise ValueError if a built-in metric would compare step by step what has different time steps."""
        names = [metric for metric in metrics if isinstance(metric, str)]
        if self.by_sample and names:
            raise ValueError(
                f"{self.op}: metrics has {names[0]!r}, which compares each time step with a label; expected metrics of "
                f"your own with loss {self.name}, such as a distance of ctc_labels"
            )

    def described_weight(self) -> Any:
        """Return the weights of the classes as JSON values."""
        given = self.class_weight
        if isinstance(given, dict):
            return {str(key): given[key] for key in sorted(given)}
        return given.tolist() if isinstance(given, np.ndarray) else given

    def judge(self, pred: Array, batch: Batch, normalizer: float | None = None) -> Verdict:
        """Apply the loss to a batch, and divide the gradient by ``normalizer``, or by what counts."""
        mask = self._mask(pred, batch)
        labels = self.is_label(pred, batch.y)
        weight = batch.weight
        if self.class_weight is not None and labels:
            factors = self._of_classes(pred, batch.y)
            weight = (
                factors if weight is None else factors * from_host(namespace_of(pred), spread(weight, factors.shape))
            )
        options = {} if weight is None else {"sample_weight": weight}
        if self.built_in:
            value, d_pred = self.function(pred, batch.y, mask, normalizer=normalizer or None, **options)
            counted = self.count(batch.y, labels, mask, weight)
            return Verdict(value * (normalizer or counted), counted, d_pred, mask, batch.weight)
        value, d_pred = self._own(pred, batch.y, mask, options)
        counted = self.count(batch.y, labels, mask, weight)
        if normalizer and counted != normalizer:
            d_pred = d_pred * d_pred.dtype.type(counted / normalizer)
        return Verdict(value * counted, counted, d_pred, mask, batch.weight)

    def is_label(self, pred: Array, y: Array) -> bool:
        """Return whether the target is the numbers of classes, of which some may be padding."""
        return y.dtype.kind in "iu" and y.ndim < pred.ndim

    def count(self, y: Array, labels: bool, mask: Any, weight: Any) -> float:
        """Return the number of elements of a target that count, each as often as its weight says."""
        xp = namespace_of(y)
        if self.by_sample:
            return float(len(y) if weight is None else take_host(weight).sum(dtype=np.float64))
        valid: Any = None
        if labels:
            valid = y != self.ignore_index
        elif self.ignore_nan and y.dtype.kind == "f":
            valid = ~xp.isnan(y)
        if mask is not None and mask.shape == y.shape[: mask.ndim]:  # otherwise the loss says what is wrong
            shown = spread(mask, y.shape, xp)
            valid = shown if valid is None else shown & valid
        if weight is None:
            return float(y.size if valid is None else xp.count_nonzero(valid))
        weight = weight if xp is not np and type(weight) is not np.ndarray else from_host(xp, weight)
        weights = spread(weight, y.shape, xp)
        if valid is not None:
            weights = xp.where(valid, weights, weights.dtype.type(0))
        return float(weights.sum(dtype=np.float64))

    def labels_in(self, batch: Batch, pred: Array) -> float:
        """Return the number of labels in a batch; the prediction may be that of another batch."""
        mask = None
        if batch.y_lengths is not None and pred.ndim >= 3:
            mask = from_host(namespace_of(batch.y), sequence_mask(batch.y_lengths, batch.y.shape[1]))
        return self.count(batch.y, self.is_label(pred, batch.y), mask, batch.weight)

    def labels_of(self, samples: Samples, pred: Array, batch: Batch) -> float:
        """Return the number of labels in a data set, as its first batch and prediction tell where to look."""
        if self.by_sample:
            return float(len(samples) if samples.weight is None else samples.weight.values.sum(dtype=np.float64))
        labels, by_step = self.is_label(pred, batch.y), batch.y_lengths is not None and pred.ndim >= 3
        return sum(self.count(y, labels, None, weight) for y, weight in samples.labels(by_step))

    def _mask(self, pred: Array, batch: Batch) -> Any:
        """Return which elements of a target count: the valid steps, and of those the ones that are known."""
        mask = batch.mask(pred)
        if not self.ignore_nan or batch.y.dtype.kind != "f":
            return mask
        xp = namespace_of(pred)
        known = ~xp.isnan(batch.y)
        if mask is None:
            return known
        return known & spread(mask, known.shape, xp) if mask.shape == known.shape[: mask.ndim] else mask

    def _of_classes(self, pred: Array, y: Array) -> Array:
        """Return the weight of the class of each label; 1 for those that do not count, whatever they are."""
        if self._by_class is None or len(self._by_class) != pred.shape[-1]:
            self._by_class = self._weights_of_classes(pred.shape[-1])
        xp = namespace_of(pred)
        inside = (y >= 0) & (y < pred.shape[-1])
        table = from_host(xp, self._by_class.astype(pred.dtype))
        factors: Array = table[xp.where(inside, y, 0)]
        factors = xp.where(inside, factors, factors.dtype.type(1))
        return factors

    def _weights_of_classes(self, classes: int) -> Array:
        given: Any = self.class_weight
        if isinstance(given, str):
            assert self._samples is not None
            counts = np.zeros(classes)
            by_step = self._samples.target.ndim > 1 and self._samples.target.lengths is not None
            for y, weight in self._samples.labels(by_step):
                flat = to_host(y).ravel()
                valid = (flat != self.ignore_index) & (flat >= 0) & (flat < classes)
                often = None if weight is None else spread(weight, y.shape).ravel()[valid]
                counts += np.bincount(flat[valid], often, minlength=classes)
            return balanced(counts)
        if isinstance(given, dict):
            if max(given, default=0) >= classes:
                raise ValueError(f"{self.op}: class_weight has class {max(given)}; expected 0 <= class < {classes}")
            weights = np.array([given.get(index, 1.0) for index in range(classes)])
            if not weights.any():
                raise ValueError(f"{self.op}: class_weight is {given!r}; expected weights that are not all 0")
            return weights
        check_shape(self.op, "class_weight", given, "classes,", (classes,))
        result: Array = given
        return result

    def _own(self, pred: Array, y: Array, mask: Any, options: dict[str, Any]) -> tuple[float, Array]:
        """Apply a user's loss, and judge what it returns."""
        given = {"mask": mask} if "mask" in self._takes else {}
        if mask is not None and not given and "third" not in self._takes:
            raise ValueError(
                f"{self.op}: loss {self.name} takes no mask, but some time steps do not count; expected "
                f"{self.name}(pred, target, mask=None)"
            )
        if options and "sample_weight" not in self._takes:
            raise ValueError(
                f"{self.op}: loss {self.name} takes no sample_weight; expected "
                f"{self.name}(pred, target, mask=None, sample_weight=None)"
            )
        third = () if given or "third" not in self._takes else (mask,)
        result: Any = self.function(pred, y, *third, **given, **options)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            got = f"{len(result)} values" if isinstance(result, (tuple, list)) else f"a {type(result).__name__}"
            raise TypeError(f"{self.op}: loss {self.name} returned {got}; expected (value, d_pred)")
        value, d_pred = result
        d_pred = as_real(f"{self.op}: loss {self.name}", "d_pred", d_pred, pred.dtype, namespace_of(pred))
        check_shape(f"{self.op}: loss {self.name}", "d_pred", d_pred, "pred.shape", pred.shape)
        return number(f"{self.op}: loss {self.name}", "value", value), d_pred


def _arguments(op: str, name: str, function: Any) -> set[str]:
    """Return what a user's loss takes: mask and sample_weight by name, or the mask as a third argument."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of what is not written in Python
        return {"third"}
    kinds = [p.kind for p in parameters]
    places = sum(kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        places = max(places, 3)
    if places < 2:
        raise TypeError(f"{op}: loss {name} takes {places} arguments; expected {name}(pred, target, mask=None)")
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    known = {"mask", "sample_weight"}
    taken = known if inspect.Parameter.VAR_KEYWORD in kinds else known & named
    return taken | ({"third"} if places > 2 and "mask" not in taken else set())


def _class_weight(op: str, given: Any, samples: Samples | None) -> Any:
    """Return the weights of classes, checked: an array, a dictionary, or "balanced"."""
    if isinstance(given, str):
        if given != "balanced" or samples is None:
            arrays = "an array (classes,) or a dict {class: weight}"
            expected = f"'balanced', {arrays}" if samples else f"{arrays}, as a source of batches has no last one"
            raise ValueError(f"{op}: class_weight is {given!r}; expected {expected}")
        return given
    if isinstance(given, Mapping):
        weights = {
            integer(op, "a class of class_weight", key): number(op, "class_weight", value)
            for key, value in given.items()
        }
        if not all(0 <= value < np.inf for value in weights.values()) or min(weights, default=0) < 0:
            raise ValueError(f"{op}: class_weight is {given!r}; expected classes and weights that are not negative")
        return weights
    weight = as_real(op, "class_weight", take_host(given), np.dtype(np.float64))
    if weight.ndim != 1 or not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise ValueError(
            f"{op}: class_weight is {given!r}; expected (classes,) numbers that are not negative, nor all 0"
        )
    return weight
