"""A trained model on data: its loss and metrics, and its predictions in batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..arrays.checks import flag, positive_int
from ..arrays.namespace import namespace_of
from ..layers.base import Layer
from ..layers.calling import call_inputs
from .arguments import check_inputs, check_model, several
from .criterion import Criterion, rank_of_steps
from .data import make_inputs, make_samples
from .loop import judged
from .losses import Loss
from .metrics import Metric, RunningMetrics


def evaluate(
    model: Layer,
    x: Any,
    y: Any,
    *,
    loss: str | Loss = "mse",
    batch_size: int = 256,
    lengths: Any = None,
    metrics: str | Metric | Iterable[str | Metric] = (),
    sample_weight: Any = None,
    class_weight: Any = None,
    ignore_nan: bool = False,
) -> dict[str, float]:
    """Judge a layer or model in inference mode, as ``fit`` does with its validation data.

    Parameters
    ----------
    model, x, y, loss, lengths, metrics, sample_weight, class_weight, ignore_nan
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
    check_model("evaluate", model)
    samples = make_samples(x, y, lengths, sample_weight, op="evaluate", step_rank=rank_of_steps(loss, "evaluate"))
    check_inputs("evaluate", type(model), len(samples.inputs))
    metrics = several("metrics", metrics, "evaluate")
    measured = RunningMetrics(metrics, op="evaluate")
    size = positive_int("evaluate", "batch_size", batch_size)
    criterion = Criterion(loss, class_weight, flag("evaluate", "ignore_nan", ignore_nan), samples, op="evaluate")
    criterion.check_metrics(metrics)
    value = judged(model, [samples], criterion, size, measured)
    return {"loss": value, **measured.values()}


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
        The outputs, of a recurrent layer its y. A list where x is one and the outputs have time steps.

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit.
    """
    check_model("predict", model)
    size = positive_int("predict", "batch_size", batch_size)
    samples = make_inputs(x, lengths, op="predict")
    check_inputs("predict", type(model), len(samples.inputs))
    ends = samples.inputs[-1].lengths
    parts, as_list = [], samples.inputs[-1].ragged
    for start in range(0, len(samples), size):
        batch = samples.batch(slice(start, start + size)).for_layer(model)
        pred = call_inputs(model, batch.inputs, batch.lengths)
        if as_list and pred.ndim >= 3:
            assert ends is not None
            parts += [row[:end].copy() for row, end in zip(pred, ends[start : start + size].tolist(), strict=True)]
        else:
            as_list = False
            parts.append(pred)
    return parts if as_list else namespace_of(parts[0]).concatenate(parts)
