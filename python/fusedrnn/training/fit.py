"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

from ..arrays.checks import described, positive, positive_int, random_generator
from ..arrays.namespace import namespace_of
from ..layers.base import Layer
from ..layers.calling import call_inputs, forward_inputs
from .callbacks import Callback, Training
from .clip import clip_grad_norm, clip_grad_value
from .data import Batch, Samples, make_samples
from .feeds import SampleFeed, make_feed
from .history import History
from .losses import Loss, get_loss
from .metrics import Metric, RunningMetrics
from .optimizer import Optimizer
from .optimizers import MakeOptimizer, get_optimizer
from .progress import progress_bar, show
from .weighting import weighted_loss

RECORDED = ("loss", "lr", "seconds", "val_loss")


def fit(
    model: Layer,
    x: Any,
    y: Any = None,
    *,
    loss: str | Loss = "mse",
    optimizer: str | Optimizer | MakeOptimizer = "adam",
    epochs: int,
    batch_size: int,
    clip_norm: float | None = None,
    validation_data: tuple[Any, ...] | None = None,
    lengths: Any = None,
    callbacks: Callback | Iterable[Callback] = (),
    progress: bool = True,
    seed: int | None = None,
    bucket_by_length: bool = False,
    steps_per_epoch: int | None = None,
    metrics: str | Metric | Iterable[str | Metric] = (),
    class_weight: Any = None,
    clip_value: float | None = None,
) -> History:
    """Train a layer or model.

    Parameters
    ----------
    model : Layer
        Batch-major, on any device; a recurrent layer is judged by its y. A method ``penalty(tape)`` is added to the
        loss; its gradient is the business of the model's ``backward``.
    x : array_like (N, ...) or list of N arrays (T_n, ...), or tuple of those
        Samples; sequences of unequal length are padded to the right. A tuple holds the inputs of a model with several,
        which is called as ``model(*inputs, lengths=...)``. Without y, a source of batches (x, y) or (x, y, lengths) of
        such samples: an iterable, which an iterator goes on with in the next epoch and others start again, or a
        function from the epoch (from 0) to an iterable; see ``BatchSource``. For a model on cuda x and y are NumPy
        arrays, of which each batch is moved there, or arrays that are there already.
    y : array_like (N, ...) or list of N arrays (T_n, ...), optional
        Targets, as the loss takes them. With several inputs, their time steps are those of the last one. None if x is
        a source.
    loss : str or callable
        "mse", "mae", "huber", "cross_entropy", "binary_cross_entropy", or ``loss(pred, target, mask=None)`` that
        returns (value, d_pred); its arrays are on the model's device.
    optimizer : str, Optimizer or callable
        "sgd", "rmsprop", "adam" or "adamw" with default arguments, an optimizer of this model, or a function that
        makes one from it: ``lambda model: fr.Adam(model, lr=3e-3)``.
    epochs : int
        Passes over the samples.
    batch_size : int
        Samples a step; a batch of an epoch may be smaller. With a source, only the validation data is cut by it.
    clip_norm : float, optional
        Largest global norm of the gradients, after ``clip_value``.
    validation_data : (x, y) or (x, y, lengths), optional
        Judged after each epoch in inference mode.
    lengths : array_like of int (N,), or tuple of those, optional
        Valid time steps of each sample, where x or y is padded already; for several inputs one each, or None.
        Predictions (B, T, F) past them (past those of the last input) do not count.
    callbacks : Callback or iterable of Callback
        Called in this order.
    progress : bool
        Whether to show a progress bar on stderr.
    seed : int, optional
        Of the order of the samples and of every dropout in the model. The same seed and initial weights give the same
        bits, as far as a source gives the same batches.
    bucket_by_length : bool
        Whether a batch holds samples of similar numbers of valid time steps (with several inputs, of their sum), which
        makes the padding of ragged sequences small; see ``bucketed_order``.
    steps_per_epoch : int, optional
        Batches that an epoch takes from a source. None: until it ends.
    metrics : str, callable or iterable of those
        "accuracy", "mae", "perplexity", or ``metric(pred, target, mask=None) -> float``, a mean over valid elements,
        which goes by its ``__name__``.
    class_weight : array_like (C,) or "balanced", optional
        Of the classes in the loss "cross_entropy", for validation, too. "balanced" makes all classes of y count alike,
        its padding left out; see ``class_weights``.
    clip_value : float, optional
        Largest absolute value of a gradient's elements.

    Returns
    -------
    History
        "loss", "lr", "seconds" and the metrics of each epoch; with validation data "val_loss" and the metrics by names
        like "val_accuracy". A loss is the mean over the epoch's batches, weighted by their samples or valid time steps;
        what has no ``"val_"`` is measured while training goes on, dropout included.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, two do not go together, or a source ends early.
    KeyboardInterrupt
        On Ctrl-C, after the callbacks' ``on_train_end``; its attribute ``history`` has the finished epochs, and the
        model the weights it had reached (or the best, with ``EarlyStopping``).
    """
    _check_model("fit", model)
    epochs = positive_int("fit", "epochs", epochs)
    batch_size = positive_int("fit", "batch_size", batch_size)
    if any(not getattr(layer, "batch_first", True) for layer in model.layers()):
        raise ValueError("fit: the model has batch_first=False; expected a batch-major model")
    feed = make_feed(
        x,
        y,
        lengths,
        batch_size=batch_size,
        bucket_by_length=bucket_by_length,
        steps_per_epoch=steps_per_epoch,
        rng=random_generator("fit", seed),
    )
    held_out = None if validation_data is None else _held_out(validation_data)
    judge = weighted_loss(get_loss(loss), class_weight, feed.samples if isinstance(feed, SampleFeed) else None)
    metrics, callbacks = _several("metrics", metrics), _several("callbacks", callbacks)
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"fit: a callback is {described(callback)}; expected a fusedrnn.training.Callback")
    if taken := RunningMetrics(metrics).values().keys() & RECORDED:
        raise ValueError(f"fit: a metric's name is {min(taken)!r}; expected none of {', '.join(RECORDED)}")
    clip = partial(_clip, value=_limit("clip_value", clip_value), norm=_limit("clip_norm", clip_norm))
    training = Training(model, get_optimizer(optimizer, model), History())
    if seed is not None:
        model.reseed(seed)

    bar = progress_bar(None if feed.steps is None else epochs * feed.steps) if progress else nullcontext()
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            begun.append(callback)
            callback.on_train_begin(training)
        with bar as shown:
            for training.epoch in range(epochs):
                _run_epoch(training, feed.epoch(training.epoch), judge, RunningMetrics(metrics), clip, callbacks, shown)
                if held_out is not None:
                    measured = RunningMetrics(metrics)
                    training.values["val_loss"] = mean_loss(model, held_out, judge, batch_size, measured)
                    training.values |= measured.values("val_")
                training.history.record(training.values)
                show(shown, training, training.values)
                for callback in callbacks:
                    callback.on_epoch_end(training)
                if training.stop:
                    training.history.stopped = training.stop
                    break
    except KeyboardInterrupt as interrupt:
        training.history.stopped = "interrupted"
        interrupt.history = training.history  # type: ignore[attr-defined]
        raise
    finally:
        _end(begun, training)
    return training.history


def evaluate(
    model: Layer,
    x: Any,
    y: Any,
    *,
    loss: str | Loss = "mse",
    batch_size: int = 256,
    lengths: Any = None,
    metrics: str | Metric | Iterable[str | Metric] = (),
) -> dict[str, float]:
    """Judge a layer or model in inference mode, as ``fit`` does with its validation data.

    Parameters
    ----------
    model, x, y, loss, lengths, metrics
        As in ``fit``.
    batch_size : int
        Samples a call.

    Returns
    -------
    dict
        "loss", and the metrics by name: means over all samples or valid time steps.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.
    """
    _check_model("evaluate", model)
    samples = make_samples(x, y, lengths, op="evaluate")
    measured = RunningMetrics(_several("metrics", metrics, "evaluate"))
    value = mean_loss(model, samples, get_loss(loss), positive_int("evaluate", "batch_size", batch_size), measured)
    return {"loss": value, **measured.values()}


def mean_loss(
    model: Layer, samples: Samples, loss: Loss, batch_size: int, metrics: RunningMetrics | None = None
) -> float:
    """Return the mean loss of a model in inference mode, and add the batches to the metrics."""
    mean = _Mean()
    for batch in samples.batches(batch_size):
        batch = batch.for_layer(model)
        pred = call_inputs(model, batch.inputs, batch.lengths)
        mask = batch.mask(pred)
        mean.add(loss(pred, batch.y, mask)[0], _count(batch, mask))
        if metrics is not None:
            metrics.update(pred, batch.y, mask)
    return mean.value


def _run_epoch(
    training: Training,
    batches: Iterable[Batch],
    loss: Loss,
    metrics: RunningMetrics,
    clip: Callable[[Layer], None],
    callbacks: tuple[Callback, ...],
    bar: Any,
) -> None:
    """Make a step for each batch, and leave the results in ``training.values``."""
    model, optimizer = training.model, training.optimizer
    penalty = getattr(model, "penalty", None)
    mean, start = _Mean(), time.perf_counter()
    for callback in callbacks:
        callback.on_epoch_begin(training)
    for batch in batches:
        batch = batch.for_layer(model)
        for callback in callbacks:
            callback.on_step_begin(training)
        model.zero_grad()
        pred, tape = forward_inputs(model, batch.inputs, batch.lengths)
        mask = batch.mask(pred)
        value, d_pred = loss(pred, batch.y, mask)
        metrics.update(pred, batch.y, mask)
        if penalty is not None:
            value += penalty(tape)
        model.backward(tape, d_pred)
        clip(model)
        optimizer.step()
        training.step += 1
        mean.add(value, _count(batch, mask))
        if bar is not None:
            show(bar, training, {"loss": mean.value, **metrics.values()}, refresh=False)
            bar.update()
    training.values = {"loss": mean.value, "lr": optimizer.lr, "seconds": time.perf_counter() - start}
    training.values |= metrics.values()


def _end(callbacks: list[Callback], training: Training) -> None:
    """Call each ``on_train_end`` in order, whatever the others raise."""
    with ExitStack() as stack:
        for callback in reversed(callbacks):  # the stack begins with the last
            stack.callback(callback.on_train_end, training)


def _check_model(op: str, model: Any) -> None:
    if not isinstance(model, Layer):
        raise TypeError(f"{op}: model is {described(model)}; expected a Layer")


def _limit(name: str, value: Any) -> float | None:
    return None if value is None else positive("fit", name, value)


def _held_out(data: Any) -> Samples:
    """Return the samples of ``validation_data``."""
    if not isinstance(data, (tuple, list)):
        raise TypeError(f"fit: validation_data is {described(data)}; expected (x, y) or (x, y, lengths)")
    if len(data) not in (2, 3):
        raise ValueError(f"fit: validation_data has {len(data)} parts; expected (x, y) or (x, y, lengths)")
    return make_samples(*data, op="fit: validation_data")


def _several(name: str, value: Any, op: str = "fit") -> tuple[Any, ...]:
    """Return an argument of several things, or of one, as a tuple."""
    if isinstance(value, type) or not (isinstance(value, (Callback, Iterable)) or callable(value)):
        raise TypeError(f"{op}: {name} is {described(value)}; expected one or an iterable of them")
    one = isinstance(value, (str, Callback)) or callable(value)
    return (value,) if one else tuple(value)


def _clip(model: Layer, value: float | None, norm: float | None) -> None:
    if value is not None:
        clip_grad_value(model, value)
    if norm is not None:
        clip_grad_norm(model, norm)


class _Mean:
    """A weighted mean that grows."""

    def __init__(self) -> None:
        self._total = 0.0
        self._weight = 0

    def add(self, value: float, weight: int) -> None:
        if weight:  # a batch without valid elements says nothing
            self._total += value * weight
            self._weight += weight

    @property
    def value(self) -> float:
        return self._total / self._weight if self._weight else 0.0


def _count(batch: Batch, mask: Any) -> int:
    return len(batch) if mask is None else int(namespace_of(mask).count_nonzero(mask))
