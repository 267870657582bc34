"""Which elements of a prediction count in a loss, and by how much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...arrays.checks import Array, as_array, as_integer, as_mask, as_real, check_shape, positive
from ...arrays.lengths import valid_steps
from ...arrays.namespace import from_host, namespace_of, on_gpu

Loss: TypeAlias = Callable[..., tuple[float, Array]]
IGNORE_INDEX = -100


def sequence_mask(lengths: Any, steps: int) -> NDArray[np.bool_]:
    """Return the mask (B, T) that is True at the first ``lengths[b]`` of ``steps`` time steps."""
    return valid_steps("sequence_mask", lengths, len(lengths), steps)


def common_namespace(op: str, pred: Any, target: Any) -> Any:
    """Return the namespace that computes with both; RuntimeError if there is none."""
    xp = namespace_of(pred)
    if (xp is not np) != on_gpu(target):
        pred_at, target_at = ("cpu", "cuda") if xp is np else ("cuda", "cpu")
        raise RuntimeError(f"{op}: target is on {target_at}; expected {pred_at}, where pred is")
    return xp


def check_target(op: str, target: Array, names: str, expected: tuple[int, ...], *, each_step: bool) -> None:
    """Raise the ValueError of a target of wrong shape, which knows of an axis too many and one too few.

    ``each_step`` says that the prediction is one for each time step.
    """
    if target.shape == expected:
        return
    hint = ""
    if target.shape == (*expected, 1):
        hint = ": target[..., 0]"
    elif (*target.shape, 1) == expected:
        hint = ": target[..., None]"
    elif each_step and target.shape in (expected[:1], expected[:1] + expected[2:]):
        hint = "; the model predicts at each step: for one target a sequence make it a SequenceToVector"
    raise ValueError(f"{op}: target has shape {target.shape}; expected ({names}) = {expected}{hint}")


def class_numbers(op: str, target: Any, logits: Array, xp: Any) -> Array:
    """Return the target of logits (..., C) as integers (...); an error knows of shares of classes and of floats."""
    given = as_array(op, "target", target, xp)
    if given.ndim and given.shape == logits.shape and given.shape != logits.shape[:-1] and logits.shape[-1] > 1:
        raise ValueError(
            f"{op}: target has the shape of pred, {given.shape}; expected numbers of classes, (pred.shape[:-1]) = "
            f"{logits.shape[:-1]}: target.argmax(axis=-1)"
        )
    if given.dtype.kind == "f" and given.size:
        raise TypeError(f"{op}: target has dtype {given.dtype}; expected an integer dtype: target.astype(int)")
    classes = as_integer(op, "target", target, xp)
    check_target(op, classes, "pred.shape[:-1]", logits.shape[:-1], each_step=logits.ndim == 3)
    return classes


def valid_elements(op: str, mask: Any, shape: tuple[int, ...], xp: Any = np) -> NDArray[np.bool_]:
    """Return ``mask`` (all True for None), a boolean array of leading axes of ``shape``, broadcast to ``shape``."""
    if mask is None:
        return np.broadcast_to(np.True_, shape)
    array = as_mask(op, mask, xp)
    check_shape(op, "mask", array, "leading axes of pred", shape[: array.ndim])
    valid: NDArray[np.bool_] = spread(array, shape, xp)
    return valid


def element_weights(
    op: str, sample_weight: Any, shape: tuple[int, ...], dtype: np.dtype[Any] | None, xp: Any = np
) -> Array:
    """Return ``sample_weight``, a real array of leading axes of ``shape``, broadcast to ``shape``.

    Raises
    ------
    ValueError
        If its shape is another one, or a weight is negative or not finite.
    """
    if not on_gpu(sample_weight):
        sample_weight = from_host(xp, as_real(op, "sample_weight", sample_weight, dtype))
    array = as_real(op, "sample_weight", sample_weight, dtype, xp)
    check_shape(op, "sample_weight", array, "leading axes of target", shape[: array.ndim])
    if not (xp.isfinite(array) & (array >= 0)).all():
        raise ValueError(f"{op}: sample_weight has elements that are negative or not finite; expected numbers >= 0")
    weights: Array = spread(array, shape, xp)
    return weights


def divisor(op: str, normalizer: Any, total: float) -> float:
    """Return by what a loss divides its sum: ``normalizer``, or for None the ``total`` of what counts."""
    return total if normalizer is None else positive(op, "normalizer", normalizer)


def mean(losses: Array, divided_by: float) -> float:
    """Return the sum of the losses, in float64, over what it is divided by; 0 where nothing counts."""
    return float(losses.sum(dtype=np.float64)) / divided_by if divided_by else 0.0


def share(numerator: float, divided_by: float, like: Array) -> Any:
    """Return the factor of a gradient, in its dtype; 0 where nothing counts."""
    return like.dtype.type(numerator / divided_by if divided_by else 0.0)


def spread(array: Any, shape: tuple[int, ...], xp: Any = np) -> Any:
    """Return an array of leading axes of ``shape`` broadcast to ``shape``."""
    return xp.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)
