"""A trained model on data: its loss and metrics, and its predictions in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import flag, positive_int
from ..arrays.namespace import namespace_of
from ..layers.base import Layer
from ..layers.calling import call_inputs
from .arguments import check_inputs, check_model
from .data import make_inputs, make_samples
from .joint import Metrics, make_criterion, measures_of, step_rank_of
from .loop import judged
from .losses import Loss


def evaluate(
    model: Layer,
    x: Any,
    y: Any,
    *,
    loss: str | Loss | Mapping[str, str | Loss] = "mse",
    batch_size: int = 256,
    lengths: Any = None,
    metrics: Metrics = (),
    sample_weight: Any = None,
    class_weight: Any = None,
    ignore_nan: bool = False,
    loss_weights: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Judge a layer or model in inference mode, as ``fit`` does with its validation data.

    Parameters
    ----------
    model, x, y, loss, lengths, metrics, sample_weight, class_weight, ignore_nan, loss_weights
        As in ``fit``.
    batch_size : int
        Samples a call; the results do not depend on it.

    Returns
    -------
    dict
        "loss", and the metrics by name: weighted means over all samples or valid time steps.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit, or no label counts.
    """
    check_model("evaluate", model, x)
    samples = make_samples(x, y, lengths, sample_weight, op="evaluate", step_rank=step_rank_of(model, loss, "evaluate"))
    check_inputs("evaluate", type(model), len(samples.inputs))
    size = positive_int("evaluate", "batch_size", batch_size)
    ignore_nan = flag("evaluate", "ignore_nan", ignore_nan)
    criterion = make_criterion(model, loss, class_weight, loss_weights, ignore_nan, samples, "evaluate")
    measured = measures_of(criterion, metrics)
    mean = judged(model, [samples], criterion, size, measured)
    return {"loss": mean.value, **mean.parts(), **measured.values()}


def predict(model: Layer, x: Any, *, batch_size: int = 256, lengths: Any = None) -> Any:
    """Compute the outputs of a layer or model in inference mode, a batch at a time.

    Parameters
    ----------
    model, x, lengths
        As in ``fit``; a list of sequences of unequal length is padded a batch at a time.
    batch_size : int
        Samples per call.

    Returns
    -------
    ndarray (N, ...), or list of N arrays (T_n, F)
        The outputs, of a recurrent layer its y. A list where x is one and the outputs have time steps. Of a model with
        several outputs a dictionary of those.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.
    """
    check_model("predict", model, x)
    size = positive_int("predict", "batch_size", batch_size)
    samples = make_inputs(x, lengths, op="predict")
    check_inputs("predict", type(model), len(samples.inputs))
    ends = samples.inputs[-1].lengths
    preds: list[Any] = []
    for start in range(0, len(samples), size):
        batch = samples.batch(slice(start, start + size)).for_layer(model)
        preds.append(call_inputs(model, batch.inputs, batch.lengths))
    ends = ends if samples.inputs[-1].ragged else None
    if not model.output_names:
        return _together(preds, ends)
    return {name: _together([pred[name] for pred in preds], ends) for name in preds[0]}


def _together(preds: list[Any], ends: NDArray[np.int64] | None) -> Any:
    """Return the predictions of all batches: for each time step as a list, if samples end at various ones."""
    if ends is None or preds[0].ndim < 3:
        return namespace_of(preds[0]).concatenate(preds)
    rows = [row for pred in preds for row in pred]
    return [row[:end].copy() for row, end in zip(rows, ends.tolist(), strict=True)]
