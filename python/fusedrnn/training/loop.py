"""An epoch of training, and the judgement of a model on data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..layers.base import Layer
from ..layers.calling import call_inputs, forward_inputs
from .arguments import check_inputs
from .callbacks import Callback, Training
from .carrying import Carrier
from .criterion import Criterion
from .data import Batch, Samples, check_steps
from .faults import not_finite, wrong_gradient
from .feeds import Feed, in_pieces
from .metrics import RunningMetrics


class Mean:
    """A weighted mean that grows; NaN as long as nothing counts."""

    def __init__(self) -> None:
        self._total = 0.0
        self._weight = 0.0

    def add(self, total: float, weight: float) -> None:
        """Add a sum of weighted values and that of their weights."""
        if weight:  # a batch in which nothing counts says nothing
            self._total += total
            self._weight += weight

    @property
    def counts(self) -> bool:
        """Whether anything does."""
        return self._weight > 0

    @property
    def value(self) -> float:
        """The mean."""
        return self._total / self._weight if self._weight else math.nan


@dataclass
class Loop:
    """What the epochs of a run have in common.

    Attributes
    ----------
    training : Training
        The run, as callbacks see it.
    feed : Feed
        What it trains on.
    criterion : Criterion
        By which it is judged.
    clip : callable
        Called with the model when its gradients are there.
    accumulate : int
        Batches per step.
    check_finite : bool
        Whether a loss that is not finite ends training.
    callbacks : tuple of Callback
        Called in this order.
    carrier : Carrier, optional
        Keeps the states that go on from batch to batch.
    """

    training: Training
    feed: Feed
    criterion: Criterion
    clip: Callable[[Layer], None]
    accumulate: int
    check_finite: bool
    callbacks: tuple[Callback, ...]
    carrier: Carrier | None = None

    def run_epoch(self, metrics: RunningMetrics, bar: Any) -> None:
        """Make the steps of the next epoch, and leave the results in ``training.values``."""
        training, mean, start = self.training, Mean(), time.perf_counter()
        for callback in self.callbacks:
            callback.on_epoch_begin(training)
        done = 0
        if self.carrier is not None:
            self.carrier.forget()
        for batches in grouped(self.feed.epoch(training.epoch), self.accumulate):
            for callback in self.callbacks:
                callback.on_step_begin(training)
            self._step([piece for batch in batches for piece in batch], mean, metrics, done)
            done += len(batches)
            if bar is not None:
                show(bar, training, {"loss": mean.value, **metrics.values()}, refresh=False)
                bar.update(len(batches))
        if self.feed.samples is not None and not mean.counts:
            raise nothing_counts("fit", "y")
        seconds = time.perf_counter() - start
        training.values = {"loss": mean.value, "lr": training.optimizer.lr, "seconds": seconds, **metrics.values()}

    def _step(self, pieces: list[Batch], mean: Mean, metrics: RunningMetrics, done: int) -> None:
        """Change the weights by the gradient of some batches."""
        training, model = self.training, self.training.model
        penalty = getattr(model, "penalty", None)
        check_inputs("fit", type(model), len(pieces[0].inputs))
        model.zero_grad()
        normalizer: float | None = None
        for piece in pieces:
            batch = piece.for_layer(model)
            with nullcontext() if self.carrier is None else self.carrier.carried(batch.rows):
                pred, tape = forward_inputs(model, batch.inputs, batch.lengths)
            if normalizer is None:
                normalizer = self._normalizer(pred, pieces)
            verdict = self.criterion.judge(pred, batch, normalizer)
            metrics.update(pred, batch.y, verdict.mask, verdict.sample_weight)
            total = verdict.total + (0.0 if penalty is None else penalty(tape) * verdict.weight)
            if self.check_finite and not math.isfinite(total):
                self._refuse(f"the loss is {total / (verdict.weight or 1.0)}", batch, done)
            model.backward(tape, verdict.d_pred)
            if self.check_finite and (name := wrong_gradient(model)):
                self._refuse(f"the gradient of {name} is not finite", batch, done)
            mean.add(total, verdict.weight)
        self.clip(model)
        training.optimizer.step()
        training.step += 1

    def _refuse(self, what: str, batch: Batch, done: int) -> None:
        training = self.training
        place = f"{what} in epoch {training.epoch + 1}, batch {done + 1}"
        raise not_finite(place, training.model, batch, self.feed.samples, self.criterion)

    def _normalizer(self, pred: Any, pieces: list[Batch]) -> float:
        """Return how many labels so many samples have on average, which a step's gradient is divided by."""
        criterion, first = self.criterion, pieces[0]
        if self.feed.samples is not None:
            check_steps("fit", self.feed.samples, pred.ndim >= 3)
        samples = sum(map(len, pieces))
        a_sample = self.feed.labels_per_sample(
            lambda: (sum(criterion.labels_in(piece, pred) for piece in pieces), samples),
            lambda all_samples: criterion.labels_of(all_samples, pred, first),
        )
        if not a_sample and self.feed.samples is not None:
            raise nothing_counts("fit", "y")
        return a_sample * samples


def nothing_counts(op: str, what: str) -> ValueError:
    """Return the error of data of which a loss can say nothing."""
    return ValueError(
        f"{op}: no label of {what} counts: each is ignored, unknown, padding or of weight 0; expected one that does"
    )


def grouped(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of ``size`` batches, the last one shorter."""
    while group := list(islice(batches, size)):
        yield group


def judged(
    model: Layer,
    data: Iterable[Samples],
    criterion: Criterion,
    batch_size: int,
    metrics: RunningMetrics | None = None,
    check_finite: bool = False,
    name: str = "y",
) -> float:
    """Return the mean loss of a model in inference mode, and add the batches to the metrics.

    Parameters
    ----------
    data : iterable of Samples
        Data sets, or the batches of a source.
    check_finite : bool
        Whether a loss that is not finite is an error.
    name : str
        What to call the data in an error.

    Raises
    ------
    ValueError
        If no label counts.
    """
    mean = Mean()
    for samples in data:
        for start in range(0, len(samples), batch_size):
            for piece in in_pieces(samples, slice(start, start + batch_size)):
                batch = piece.for_layer(model)
                pred = call_inputs(model, batch.inputs, batch.lengths)
                check_steps(criterion.op, samples, pred.ndim >= 3)
                verdict = criterion.judge(pred, batch)
                if check_finite and not math.isfinite(verdict.total):
                    what = f"the loss is {verdict.total / (verdict.weight or 1.0)} in {name}"
                    raise not_finite(what, model, batch, samples, criterion)
                mean.add(verdict.total, verdict.weight)
                if metrics is not None:
                    metrics.update(pred, batch.y, verdict.mask, verdict.sample_weight)
    if not mean.counts:
        raise nothing_counts(criterion.op, name)
    return mean.value


def show(bar: Any, training: Training, values: dict[str, float], refresh: bool = True) -> None:
    """Put this epoch's values on the progress bar, and the last known ones of the validation data."""
    if bar is None:
        return
    known = values | {name: column[-1] for name, column in training.history.items() if name.startswith("val_")}
    shown = {name: f"{value:.4g}" for name, value in known.items() if name not in ("lr", "seconds")}
    bar.set_postfix({"epoch": training.epoch + 1, **shown}, refresh=refresh)
