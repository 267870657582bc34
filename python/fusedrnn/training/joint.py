"""Several outputs of one model: a loss, a weight and metrics for each, and what a run records of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from ..arrays.checks import Array, number
from .agreement import by_output, check_names
from .arguments import several
from .criterion import Criterion, Mean, Verdict, rank_of_steps
from .data import Batch, Samples, StepRank
from .losses import Loss
from .metrics import Metric, RunningMetrics

Metrics: TypeAlias = "str | Metric | Iterable[str | Metric] | Mapping[str, Any]"


class JointCriterion:
    """The losses of a model with several outputs, as ``fit`` and ``evaluate`` apply them: a weighted sum of means.

    Each is a ``Criterion`` of its own, with the labels of its own output; there is none for several outputs together.

    Parameters
    ----------
    names : sequence of str
        Of the outputs.
    loss, class_weight, loss_weights
        For each output by name; one loss serves all.
    ignore_nan, samples, op
        As in ``Criterion``.
    """

    by_sample = False

    def __init__(
        self,
        names: tuple[str, ...],
        loss: Any,
        class_weight: Any,
        loss_weights: Any,
        ignore_nan: bool,
        samples: Samples | None,
        op: str,
    ) -> None:
        self.op = op
        self.ignore_nan = ignore_nan
        losses = losses_of(op, names, loss)
        weights = {} if class_weight is None else _some(op, "class_weight", class_weight, names)
        factors = {} if loss_weights is None else _some(op, "loss_weights", loss_weights, names)
        self.factors = {name: number(op, f"loss_weights[{name!r}]", factors.get(name, 1.0)) for name in names}
        if not all(0 <= factor < math.inf for factor in self.factors.values()) or not any(self.factors.values()):
            raise ValueError(f"{op}: loss_weights is {loss_weights!r}; expected numbers >= 0, of which not all are 0")
        self.parts = {
            name: Criterion(
                losses[name], weights.get(name), ignore_nan, None if samples is None else samples.parts[name], op
            )
            for name in names
        }
        self.name = {name: part.name for name, part in self.parts.items()}

    def recorded(self) -> tuple[str, ...]:
        """Return under which names the losses of the outputs are recorded."""
        return tuple(f"{name}_loss" for name in self.parts)

    def measures(self, metrics: Metrics) -> Measures:
        """Return the metrics of the outputs: for each by name, or the same for all."""
        given: Any = metrics
        if isinstance(given, (tuple, list)) and all(isinstance(each, (tuple, list)) for each in given):
            given = by_output(given, self.parts)
        by_name = _some(self.op, "metrics", given, self.parts) if isinstance(given, Mapping) else None
        chosen = {
            name: several("metrics", given if by_name is None else by_name.get(name, ()), self.op)
            for name in self.parts
        }
        for name, part in self.parts.items():
            part.check_metrics(chosen[name])
        return Measures({f"{name}_": RunningMetrics(each, op=self.op) for name, each in chosen.items()})

    def mean(self) -> JointMean:
        """Return the mean loss of no batch."""
        return JointMean(self.factors)

    def described_weight(self) -> Any:
        """Return the weights of the outputs and of the classes as JSON values."""
        return {name: [self.factors[name], part.described_weight()] for name, part in self.parts.items()}

    def judge(self, pred: Any, batch: Batch, normalizer: Any = None) -> Verdict:
        """Apply the losses to a batch."""
        check_names(self.op, "the model's output", pred, self.parts)
        verdicts = {}
        for index, (name, part) in enumerate(self.parts.items()):
            verdict = part.judge(pred[name], batch.parts[name], None if normalizer is None else normalizer[index])
            factor = self.factors[name]
            d_pred = verdict.d_pred if factor == 1 else verdict.d_pred * verdict.d_pred.dtype.type(factor)
            verdicts[name] = replace(verdict, d_pred=d_pred)
        return Verdict(
            sum(self.factors[name] * verdict.total for name, verdict in verdicts.items()),
            sum(verdict.weight for verdict in verdicts.values()),
            {name: verdict.d_pred for name, verdict in verdicts.items()},
            None,
            None,
            verdicts,
        )

    def labels_in(self, batch: Batch, pred: Any) -> Array:
        """Return the number of labels of each output in a batch."""
        return np.array([part.labels_in(batch.parts[name], pred[name]) for name, part in self.parts.items()])

    def labels_of(self, samples: Samples, pred: Any, batch: Batch) -> Array:
        """Return the number of labels of each output in a data set."""
        return np.array(
            [part.labels_of(samples.parts[name], pred[name], batch.parts[name]) for name, part in self.parts.items()]
        )


class Measures:
    """Running metrics by the prefix of their names: of each output, or of one without any."""

    def __init__(self, parts: dict[str, RunningMetrics]) -> None:
        self._parts = parts

    def update(self, pred: Any, batch: Batch, verdict: Verdict) -> None:
        """Add a batch."""
        for prefix, metrics in self._parts.items():
            name = prefix[:-1]
            one = (pred[name], batch.parts[name], verdict.parts[name]) if name else (pred, batch, verdict)
            metrics.update(one[0], one[1].y, one[2].mask, one[2].sample_weight)

    def values(self, before: str = "") -> dict[str, float]:
        """Return the values by their names."""
        return {
            name: value
            for prefix, metrics in self._parts.items()
            for name, value in metrics.values(before + prefix).items()
        }


class JointMean:
    """The weighted sum of the mean losses of the outputs."""

    def __init__(self, factors: dict[str, float]) -> None:
        self._factors = factors
        self._means = {name: Mean() for name in factors}
        self._penalty = Mean()

    def add(self, verdict: Verdict, penalty: float) -> None:
        """Add a batch, and what the model adds to the loss."""
        for name, part in verdict.parts.items():
            self._means[name].add(part, 0.0)
        self._penalty.add(replace(verdict, total=0.0), penalty)

    @property
    def counts(self) -> bool:
        """Whether every output has labels that count."""
        return all(mean.counts for mean in self._means.values())

    @property
    def value(self) -> float:
        """The sum."""
        parts = sum(factor * self._means[name].value for name, factor in self._factors.items() if factor)
        return parts + (self._penalty.value if self._penalty.counts else 0.0)

    def parts(self, before: str = "") -> dict[str, float]:
        """Return the mean of each output by its recorded name."""
        return {f"{before}{name}_loss": mean.value for name, mean in self._means.items()}


AnyCriterion: TypeAlias = Criterion | JointCriterion


def losses_of(op: str, names: tuple[str, ...], loss: Any) -> dict[str, str | Loss]:
    """Return the loss of each output: one serves all."""
    loss = by_output(loss, names)
    if not isinstance(loss, Mapping):
        return dict.fromkeys(names, loss)
    check_names(op, "loss", loss, names)
    return {name: loss[name] for name in names}


def step_rank_of(model: Any, loss: Any, op: str) -> StepRank:
    """Return ``rank_of_steps`` of the loss, of a model with several outputs by their names."""
    names = model.output_names
    if names:
        return {name: rank_of_steps(each, op) for name, each in losses_of(op, names, loss).items()}
    if isinstance(loss, Mapping):
        raise TypeError(f"{op}: loss is a dict, but {model.op} has one output; expected one loss")
    return rank_of_steps(loss, op)


def make_criterion(
    model: Any, loss: Any, class_weight: Any, loss_weights: Any, ignore_nan: bool, samples: Samples | None, op: str
) -> AnyCriterion:
    """Return what judges a model: by one loss, or by one for each of its outputs."""
    if model.output_names:
        return JointCriterion(model.output_names, loss, class_weight, loss_weights, ignore_nan, samples, op)
    if loss_weights is not None:
        raise ValueError(f"{op}: loss_weights is given, but {model.op} has one output; expected None")
    return Criterion(loss, class_weight, ignore_nan, samples, op)


def listed_metrics(metrics: Metrics, op: str) -> Any:
    """Return metrics that may be read many times: a tuple, or a dictionary of tuples by output."""
    if isinstance(metrics, Mapping):
        return {name: each if callable(each) else several("metrics", each, op) for name, each in metrics.items()}
    return several("metrics", metrics, op)


def measures_of(criterion: AnyCriterion, metrics: Metrics) -> Measures:
    """Return the metrics of a run."""
    if isinstance(criterion, JointCriterion):
        return criterion.measures(metrics)
    if not isinstance(metrics, Mapping):
        chosen = several("metrics", metrics, criterion.op)
        criterion.check_metrics(chosen)
        return Measures({"": RunningMetrics(chosen, op=criterion.op)})
    named = {name: (each,) if callable(each) or isinstance(each, str) else each for name, each in metrics.items()}
    for name, each in named.items():
        if len(each) != 1:
            raise ValueError(
                f"{criterion.op}: metrics[{name!r}] has {len(each)} metrics, but the model has one output; expected a "
                "dict from names to metrics, or a list"
            )
    only = {str(name): each[0] for name, each in named.items()}
    criterion.check_metrics(tuple(only.values()))
    return Measures({"": RunningMetrics(only, op=criterion.op)})


def _some(op: str, what: str, given: Any, names: Collection[str]) -> dict[str, Any]:
    """Return an argument for some of the outputs, checked."""
    given = by_output(given, names)
    if not isinstance(given, Mapping) or given.keys() - set(names):
        raise ValueError(f"{op}: {what} is {given!r}; expected a dict with some of the outputs {', '.join(names)}")
    return dict(given)
