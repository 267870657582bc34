"""An epoch of training, and the judgement of a model on data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from ..layers.base import Layer
from ..layers.calling import call_inputs, forward_inputs
from .arguments import check_inputs
from .callbacks import Callback, Training
from .carrying import Carrier
from .criterion import Mean
from .data import Batch, Samples, check_steps
from .faults import not_finite
from .feeds import Feed, in_pieces
from .gradients import Gradients
from .joint import AnyCriterion, JointMean, Measures


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
        Called with the gradients of a step.
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
    criterion: AnyCriterion
    clip: Callable[[Gradients], None]
    accumulate: int
    check_finite: bool
    callbacks: tuple[Callback, ...]
    carrier: Carrier | None = None

    def run_epoch(self, metrics: Measures, bar: Any) -> None:
        """Make the steps of the next epoch, and leave the results in ``training.values``."""
        training, mean, start = self.training, self.criterion.mean(), time.perf_counter()
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
                show(bar, training, {"loss": mean.value, **mean.parts(), **metrics.values()}, refresh=False)
                bar.update(len(batches))
        if self.feed.samples is not None and not mean.counts:
            raise nothing_counts("fit", "y")
        seconds = time.perf_counter() - start
        told = {"loss": mean.value, "lr": training.optimizer.lr, "seconds": seconds}
        training.values = told | mean.parts() | metrics.values()

    def _step(self, pieces: list[Batch], mean: Mean | JointMean, metrics: Measures, done: int) -> None:
        """Change the weights by the gradient of some batches."""
        training, model = self.training, self.training.model
        penalty = getattr(model, "penalty", None)
        check_inputs("fit", type(model), len(pieces[0].inputs))
        model.zero_grad()
        normalizer: Any = None
        for piece in pieces:
            batch = piece.for_layer(model)
            with nullcontext() if self.carrier is None else self.carrier.carried(batch.rows):
                pred, tape = forward_inputs(model, batch.inputs, batch.lengths)
            if normalizer is None:
                normalizer = self._normalizer(pred, pieces)
            verdict = self.criterion.judge(pred, batch, normalizer)
            metrics.update(pred, batch, verdict)
            added = 0.0 if penalty is None else penalty(tape)
            total = verdict.total + added * verdict.weight
            if self.check_finite and not math.isfinite(total):
                self._refuse(f"the loss is {total / (verdict.weight or 1.0)}", batch, done)
            model.backward(tape, verdict.d_pred)
            gradients = Gradients(model)
            if self.check_finite and (name := gradients.wrong()):
                self._refuse(f"the gradient of {name} is not finite", batch, done)
            mean.add(verdict, added)
        self.clip(gradients)
        training.optimizer.step()
        training.step += 1

    def _refuse(self, what: str, batch: Batch, done: int) -> None:
        training = self.training
        place = f"{what} in epoch {training.epoch + 1}, batch {done + 1}"
        raise not_finite(place, training.model, batch, self.feed.samples, self.criterion)

    def _normalizer(self, pred: Any, pieces: list[Batch]) -> Any:
        """Return how many labels so many samples have on average, which a step's gradient is divided by.

        Of several outputs it is an array, with the number for each.
        """
        criterion, first = self.criterion, pieces[0]
        if self.feed.samples is not None:
            check_steps("fit", self.feed.samples, pred)
        samples = sum(map(len, pieces))
        a_sample = self.feed.labels_per_sample(
            lambda: (sum(map(partial(criterion.labels_in, pred=pred), pieces)), samples),
            lambda all_samples: criterion.labels_of(all_samples, pred, first),
        )
        if self.feed.samples is not None and not np.all(a_sample):
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
    criterion: AnyCriterion,
    batch_size: int,
    metrics: Measures | None = None,
    check_finite: bool = False,
    name: str = "y",
) -> Mean | JointMean:
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
    mean = criterion.mean()
    for samples in data:
        for start in range(0, len(samples), batch_size):
            for piece in in_pieces(samples, slice(start, start + batch_size)):
                batch = piece.for_layer(model)
                pred = call_inputs(model, batch.inputs, batch.lengths)
                check_steps(criterion.op, samples, pred)
                verdict = criterion.judge(pred, batch)
                if check_finite and not math.isfinite(verdict.total):
                    what = f"the loss is {verdict.total / (verdict.weight or 1.0)} in {name}"
                    raise not_finite(what, model, batch, samples, criterion)
                mean.add(verdict, 0.0)
                if metrics is not None:
                    metrics.update(pred, batch, verdict)
    if not mean.counts:
        raise nothing_counts(criterion.op, name)
    return mean


def show(bar: Any, training: Training, values: dict[str, float], refresh: bool = True) -> None:
    """Put this epoch's values on the progress bar, and the last known ones of the validation data."""
    if bar is None:
        return
    known = values | {name: column[-1] for name, column in training.history.items() if name.startswith("val_")}
    shown = {name: f"{value:.4g}" for name, value in known.items() if name not in ("lr", "seconds")}
    bar.set_postfix({"epoch": training.epoch + 1, **shown}, refresh=refresh)
