"""The training loop, and the judgement of a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any

from ..arrays.checks import flag, positive_int, random_generator
from ..layers.base import Layer
from .arguments import check_inputs, check_model, check_monitors, check_recorded, clipping, several, watched
from .callbacks import Callback, Training
from .carrying import Carrier
from .data import Samples
from .feeds import make_feed
from .history import History
from .joint import Metrics, listed_metrics, make_criterion, measures_of, step_rank_of
from .loop import Loop, judged, show
from .losses import Loss
from .optimizers import MakeOptimizer, Optimizer, get_optimizer
from .resume import Record, described_run
from .validation import held_out, is_share, make_validation


def fit(
    model: Layer,
    x: Any,
    y: Any = None,
    *,
    loss: str | Loss | Mapping[str, str | Loss] = "mse",
    optimizer: str | Optimizer | MakeOptimizer = "adam",
    epochs: int,
    batch_size: int,
    clip_norm: float | None = None,
    validation_data: Any = None,
    lengths: Any = None,
    callbacks: Callback | Iterable[Callback] = (),
    progress: bool = True,
    seed: int | None = None,
    bucket_by_length: bool = False,
    steps_per_epoch: int | None = None,
    metrics: Metrics = (),
    class_weight: Any = None,
    clip_value: float | None = None,
    sample_weight: Any = None,
    accumulate: int = 1,
    resume: str | os.PathLike[str] | None = None,
    check_finite: bool = True,
    ignore_nan: bool = False,
    validation: str = "random",
    stateful: bool | int = False,
    loss_weights: Mapping[str, float] | None = None,
) -> History:
    """Train a layer or model.

    Parameters
    ----------
    model : Layer
        Batch-major, on any device; a recurrent layer is judged by its y. The value of a method ``penalty(tape)`` is
        added to the loss; its gradient comes from the model's ``backward``.
    x : array_like (N, ...) or list of N arrays (T_n, ...), or tuple of those
        Samples; sequences of unequal length are padded to the right, a batch at a time. A tuple holds the inputs of a
        model with several, which is called as ``model(*inputs, lengths=...)``. Without y, a source of batches (x, y),
        (x, y, lengths) or (x, y, lengths, sample_weight) of such samples: an iterable, which an iterator goes on with
        in the next epoch and others start again, or a function from the epoch (from 0) to an iterable; see
        ``BatchSource``. For a model on cuda x and y are NumPy arrays, of which each batch is moved there, or arrays
        that are there already.
    y : array_like (N, ...) or list of N arrays (T_n, ...), optional
        Targets, as the loss takes them; booleans count as 0 and 1. With several inputs, their time steps are those of
        the last one. None if x is a source.
    loss : str or callable
        "mse", "mae", "huber", "cross_entropy", "binary_cross_entropy", "ctc", or ``loss(pred, target, mask=None)`` that
        returns (value, d_pred), a mean over what is valid and its gradient; its arrays are on the model's device. The
        mask is (B, T), and has the target's shape with ``ignore_nan``; with sample_weight, the loss takes that, too.
    optimizer : str, Optimizer or callable
        "sgd", "rmsprop", "adam" or "adamw" with default arguments, an optimizer of this model, or a function that
        makes one from it: ``lambda model: fr.Adam(model, lr=3e-3)``.
    epochs : int
        Passes over the samples.
    batch_size : int
        Samples per step; a batch of an epoch may be smaller. With a source, only the validation data is cut by it.
    clip_norm : float, optional
        Largest global norm of the gradients, after ``clip_value``.
    validation_data : tuple, source or float, optional
        Judged after each epoch in inference mode: (x, y), (x, y, lengths) or (x, y, lengths, sample_weight); a source
        of such batches that can be started again; or a share of the samples, in (0, 1), that is held out.
    lengths : array_like of int (N,), or tuple of those, optional
        Valid time steps of each sample, where x or y is padded already; for several inputs one each, or None.
        Predictions (B, T, F) past them (past those of the last input) do not count.
    callbacks : Callback or iterable of Callback
        Called in this order.
    progress : bool
        Whether to show a progress bar on stderr.
    seed : int, optional
        Seed for the order of the samples and every dropout in the model. The same seed and initial weights give the
        same bits, as far as a source gives the same batches.
    bucket_by_length : bool
        Whether a batch holds samples of similar numbers of valid time steps (with several inputs, of their sum), which
        makes the padding of ragged sequences small; see ``bucketed_order``.
    steps_per_epoch : int, optional
        Batches that an epoch takes from a source. None: until it ends.
    metrics : str, callable, iterable or dict of those
        "accuracy", "mae", "mse", "perplexity", or ``metric(pred, target, mask=None) -> float``, a mean over valid
        elements, recorded under its ``__name__`` or its key.
    class_weight : array_like (C,), dict or "balanced", optional
        Weights of the classes in the loss "cross_entropy", in validation too: an array, or a dictionary in which a
        class that is not named has weight 1. "balanced" makes all classes of y count equally, padding left out; see
        ``class_weights``.
    clip_value : float, optional
        Largest absolute value of a gradient's elements.
    sample_weight : array_like (N,) or (N, T), or list of N arrays (T_n,), optional
        How much each sample, or each of its time steps, counts, >= 0: one of weight 2 as if it were there twice.
    accumulate : int
        Batches whose gradients make one step, as if they were one batch.
    resume : path, optional
        A file that holds the state of the run after each epoch. If it is there when training begins, training goes on
        from it, to the same bits as if it had never ended: weights, optimizer, random numbers, order of the samples,
        history and callbacks. The other arguments must be those of the first call; ``epochs`` may be larger.
    check_finite : bool
        Whether the first loss that is not finite ends training, before it reaches the weights.
    ignore_nan : bool
        Whether targets that are NaN are unknown and do not count.
    validation : {"random", "last"}
        Which samples are held out where ``validation_data`` is a share. "last" are those that come last, as the future
        of a series does; windows that overlap are better cut apart by hand.
    stateful : bool or int
        Truncated backpropagation through time, for models of recurrent layers of one direction. A number: the samples
        are long sequences, of which ``batch_size`` at a time go on side by side, so many steps a batch; the next one
        takes the row of one that ends. True: a batch goes on where the one before ended, row by row; samples are not
        shuffled, and a source may give (x, y, lengths, sample_weight, resets), booleans (B,) of rows that begin anew.
        States are carried as values, without a gradient, and begin with zeros in each epoch. Validation data is judged
        whole.
    loss_weights : dict of str to float, optional
        Of a model with several outputs (``models.Heads``), the factor of each loss in their sum; 1 by default. There y
        is a dictionary by the outputs' names or a tuple in their order, as loss, metrics, class_weight and
        sample_weight may be, and "name_loss" and metrics like "name_accuracy" are recorded for each.

    Returns
    -------
    History
        "loss", "lr", "seconds" and the metrics of each epoch; with validation data "val_loss" and the metrics by names
        like "val_accuracy". A loss is the weighted mean over all labels of the epoch, whatever the batches; what has no
        ``"val_"`` is measured while training goes on, dropout included.

    Notes
    -----
    A step's gradient is the sum of its labels' gradients, each times the weights of its class and sample, over the
    number of labels that so many samples have on average: a label counts the same however many labels its batch has.
    The mean over the steps is the gradient of one batch of all samples. A source that is not a list is
    divided by the mean of what it has given so far.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, two do not go together, no label counts, or a source ends early.
    FloatingPointError
        If a loss is not finite; the message says where and what from. As with an interrupt, ``history`` is there, and
        the model has the weights before that step.
    KeyboardInterrupt
        On Ctrl-C, after the callbacks' ``on_train_end``; its attribute ``history`` has the finished epochs, and the
        model the weights it had reached (or the best, with ``EarlyStopping``).
    """
    check_model("fit", model, None if y is None else x)
    epochs, batch_size = positive_int("fit", "epochs", epochs), positive_int("fit", "batch_size", batch_size)
    accumulate = positive_int("fit", "accumulate", accumulate)
    check_finite, ignore_nan = flag("fit", "check_finite", check_finite), flag("fit", "ignore_nan", ignore_nan)
    if validation not in ("random", "last"):
        raise ValueError(f"fit: validation is {validation!r}; expected 'random' or 'last'")
    if accumulate > 1 and hasattr(model, "penalty"):
        raise ValueError(f"fit: accumulate is {accumulate}, but {model.op} has a penalty on each batch; expected 1")
    record = None if resume is None else Record(resume)
    rng = random_generator("fit", seed)
    if record is not None and record.start is not None:
        rng.bit_generator.state = record.start
    start, step_rank = rng.bit_generator.state, step_rank_of(model, loss, "fit")
    feed = make_feed(
        x,
        y,
        lengths,
        sample_weight,
        batch_size=batch_size,
        bucket_by_length=bucket_by_length,
        steps_per_epoch=steps_per_epoch,
        rng=rng,
        step_rank=step_rank,
        stateful=stateful,
    )
    judge_on: Iterable[Samples] | None = None
    if is_share(validation_data):
        if feed.samples is None:
            raise ValueError("fit: validation_data is a share with a source of batches; expected data or a source")
        feed.samples, rest = held_out(feed.samples, validation_data, validation, rng)
        judge_on = [rest]
    elif validation_data is not None:
        judge_on = make_validation(validation_data, step_rank)
    if feed.samples is not None:
        check_inputs("fit", type(model), len(feed.samples.inputs))
    elif record is not None and feed.source.goes_on:
        raise ValueError("fit: resume is given with an iterator, which cannot start again; expected a function or list")
    carrier = Carrier(model) if stateful else None
    criterion = make_criterion(model, loss, class_weight, loss_weights, ignore_nan, feed.samples, "fit")
    metrics, callbacks = listed_metrics(metrics, "fit"), several("callbacks", callbacks)
    measured = measures_of(criterion, metrics)
    names = check_recorded((*criterion.recorded(), *measured.values()), judge_on is not None)
    check_monitors(callbacks, names)
    clip = clipping(clip_value, clip_norm)
    training = Training(model, get_optimizer(optimizer, model, "fit"), History())
    training.history.watched = watched(callbacks)
    if seed is not None:
        model.reseed(seed)
    loop = Loop(training, feed, criterion, clip, accumulate, check_finite, callbacks, carrier)
    sizes: dict[str, Any] = {"batch_size": batch_size, "accumulate": accumulate, "bucket_by_length": bucket_by_length}
    sizes |= {"stateful": stateful, "loss": criterion.name, "class_weight": criterion.described_weight()}
    run = described_run(training, feed, start, **sizes) if record is not None else {}
    if record is not None:
        record.check(callbacks, run)

    finished = 0 if record is None else record.epochs
    bar = _progress_bar(feed.steps, epochs, finished) if progress else nullcontext()
    begun: list[Callback] = []
    try:
        for callback in callbacks:
            begun.append(callback)
            callback.on_train_begin(training)
        if record is not None:
            record.restore(training, feed, callbacks, rng)
        remaining = range(training.epoch, 0 if training.history.stopped else epochs)
        with bar as shown:
            for training.epoch in remaining:
                loop.run_epoch(measures_of(criterion, metrics), shown)
                for callback in callbacks:
                    callback.on_validation_begin(training)
                if judge_on is not None:
                    measured = measures_of(criterion, metrics)
                    mean = judged(model, judge_on, criterion, batch_size, measured, check_finite, "validation_data")
                    training.values["val_loss"] = mean.value
                    training.values |= mean.parts("val_") | measured.values("val_")
                training.history.record(training.values)
                show(shown, training, training.values)
                for callback in callbacks:
                    callback.on_epoch_end(training)
                training.history.add(training.values)
                training.history.stopped = training.stop
                if record is not None:
                    record.save(training, feed, callbacks, rng, run)
                if training.stop:
                    break
    except (KeyboardInterrupt, FloatingPointError) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        training.history.stopped = "interrupted" if interrupted else "the loss was not finite"
        error.history = training.history  # type: ignore[union-attr]
        raise
    finally:
        _end(begun, training)
    return training.history


def _end(callbacks: list[Callback], training: Training) -> None:
    """Call each ``on_train_end`` in order, whatever the others raise."""
    with ExitStack() as stack:
        for callback in reversed(callbacks):  # the stack begins with the last
            stack.callback(callback.on_train_end, training)


def _progress_bar(steps: int | None, epochs: int, finished: int) -> Any:
    """Return a bar of so many batches an epoch, some finished in an earlier run; or one that only counts them."""
    from tqdm import tqdm

    total, initial = (None, 0) if steps is None else (epochs * steps, finished * steps)
    return tqdm(total=total, initial=initial, unit="step", file=sys.stderr, dynamic_ncols=True)
