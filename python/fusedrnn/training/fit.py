"""The training loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np

from ..layers.arrays import positive_int
from ..layers.base import Layer
from ..layers.calling import call_inputs, forward_inputs
from .callbacks import Callback, Training
from .clip import clip_grad_norm
from .data import Batch, Samples, make_samples
from .history import History
from .losses import Loss, get_loss
from .optimizer import Optimizer
from .optimizers import MakeOptimizer, get_optimizer


def fit(
    model: Layer,
    x: Any,
    y: Any,
    *,
    loss: str | Loss = "mse",
    optimizer: str | Optimizer | MakeOptimizer = "adam",
    epochs: int,
    batch_size: int,
    clip_norm: float | None = None,
    validation_data: tuple[Any, ...] | None = None,
    lengths: Any = None,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    seed: int | None = None,
) -> History:
    """Train a layer or model.

    Parameters
    ----------
    model : Layer
        Batch-major; a recurrent layer is judged by its y. A method ``penalty(tape)`` is added to the loss; its gradient
        is the business of the model's ``backward``.
    x : array_like (N, ...) or list of N arrays (T_n, ...), or tuple of those
        Samples; sequences of unequal length are padded to the right. A tuple holds the inputs of a model with several,
        which is called as ``model(*inputs, lengths=...)``.
    y : array_like (N, ...) or list of N arrays (T_n, ...)
        Targets, as the loss takes them. With several inputs, their time steps are those of the last one.
    loss : str or callable
        "mse", "mae", "huber", "cross_entropy", "binary_cross_entropy", or ``loss(pred, target, mask=None)`` that
        returns (value, d_pred).
    optimizer : str, Optimizer or callable
        "sgd", "rmsprop", "adam" or "adamw" with default arguments, an optimizer of this model, or a function that
        makes one from it: ``lambda model: fr.Adam(model, lr=3e-3)``.
    epochs : int
        Passes over the samples.
    batch_size : int
        Samples a step; the last batch of an epoch may be smaller.
    clip_norm : float, optional
        Largest global norm of the gradients.
    validation_data : (x, y) or (x, y, lengths), optional
        Judged after each epoch in inference mode.
    lengths : array_like of int (N,), or tuple of those, optional
        Valid time steps of each sample, where x or y is padded already; for several inputs one each, or None.
        Predictions (B, T, F) past them (past those of the last input) do not count.
    callbacks : iterable of Callback
        Called in this order.
    progress : bool
        Whether to show a progress bar on stderr.
    seed : int, optional
        Of the order of the samples and of every dropout in the model. The same seed and initial weights give the same
        bits.

    Returns
    -------
    History
        "loss", "lr" and "seconds" of each epoch, and "val_loss" with validation data. A loss is the mean over the
        epoch's batches, weighted by their samples or valid time steps; "loss" is measured while training goes on.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.
    KeyboardInterrupt
        On Ctrl-C, after the callbacks' ``on_train_end``; its attribute ``history`` has the finished epochs, and the
        model the weights it had reached (or the best, with ``EarlyStopping``).
    """
    epochs = positive_int("fit", "epochs", epochs)
    batch_size = positive_int("fit", "batch_size", batch_size)
    if any(not getattr(layer, "batch_first", True) for layer in model.layers()):
        raise ValueError("fit: the model has batch_first=False; expected a batch-major model")
    samples = make_samples(x, y, lengths)
    held_out = None if validation_data is None else make_samples(*validation_data)
    judge = get_loss(loss)
    callbacks = tuple(callbacks)
    training = Training(model, get_optimizer(optimizer, model), History())
    rng = np.random.default_rng(seed)
    if seed is not None:
        model.reseed(seed)

    bar = _progress_bar(epochs * -(-len(samples) // batch_size)) if progress else nullcontext()
    for callback in callbacks:
        callback.on_train_begin(training)
    try:
        with bar as shown:
            for training.epoch in range(epochs):
                order = rng.permutation(len(samples))
                _run_epoch(training, samples.batches(batch_size, order), judge, clip_norm, callbacks, shown)
                if held_out is not None:
                    training.values["val_loss"] = evaluate(model, held_out, judge, batch_size)
                training.history.record(training.values)
                _show(shown, training)
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
        for callback in callbacks:
            callback.on_train_end(training)
    return training.history


def evaluate(model: Layer, samples: Samples, loss: Loss, batch_size: int) -> float:
    """Return the mean loss of a model in inference mode."""
    mean = _Mean()
    for batch in samples.batches(batch_size):
        pred = call_inputs(model, batch.inputs, batch.lengths)
        mask = batch.mask(pred)
        mean.add(loss(pred, batch.y, mask)[0], _count(batch, mask))
    return mean.value


def _run_epoch(
    training: Training,
    batches: Iterable[Batch],
    loss: Loss,
    clip_norm: float | None,
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
        for callback in callbacks:
            callback.on_step_begin(training)
        model.zero_grad()
        pred, tape = forward_inputs(model, batch.inputs, batch.lengths)
        mask = batch.mask(pred)
        value, d_pred = loss(pred, batch.y, mask)
        if penalty is not None:
            value += penalty(tape)
        model.backward(tape, d_pred)
        if clip_norm is not None:
            clip_grad_norm(model, clip_norm)
        optimizer.step()
        training.step += 1
        mean.add(value, _count(batch, mask))
        if bar is not None:
            bar.set_postfix(_postfix(training, {"loss": mean.value}), refresh=False)
            bar.update()
    training.values = {"loss": mean.value, "lr": optimizer.lr, "seconds": time.perf_counter() - start}


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
    return len(batch) if mask is None else int(np.count_nonzero(mask))


def _progress_bar(steps: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=steps, unit="step", file=sys.stderr, dynamic_ncols=True)


def _show(bar: Any, training: Training) -> None:
    if bar is not None:
        bar.set_postfix(_postfix(training, training.values))


def _postfix(training: Training, values: dict[str, float]) -> dict[str, Any]:
    """Return what the bar shows: this epoch's values, and the last known validation loss."""
    shown: dict[str, Any] = {"epoch": training.epoch + 1, "loss": f"{values['loss']:.4g}"}
    known = [*training.history.get("val_loss", []), *([values["val_loss"]] if "val_loss" in values else [])]
    return shown | ({"val_loss": f"{known[-1]:.4g}"} if known else {})
