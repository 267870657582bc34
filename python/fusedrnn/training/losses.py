"""Losses with their gradients: ``loss(pred, target, mask=None) -> (value, d_pred)``.

Each is the mean over the valid elements (0 if there are none), summed in float64. ``mask`` is boolean, shaped as the
leading axes of ``pred``: (B, T) for ``pred`` (B, T, F), and says which elements are valid; what ``pred`` and ``target``
hold elsewhere, NaN included, has no influence. ``d_pred`` has the shape, dtype and device of ``pred`` and is 0 where
not valid. All raise ValueError for wrong shapes, TypeError for wrong dtypes, and RuntimeError if ``target`` is not on
the device of ``pred``; masks and class weights may be on any.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array, as_integer, as_mask, as_real, check_shape
from ..arrays.lengths import valid_steps
from ..arrays.namespace import from_host, namespace_of, on_gpu, subtract_where, take_host, to_host
from ..layers.activation import sigmoid

Loss: TypeAlias = Callable[..., tuple[float, Array]]
IGNORE_INDEX = -100


def mse(pred: Any, target: Any, mask: Any = None) -> tuple[float, Array]:
    """Mean of (pred - target)^2; both (..., F) of any real dtype."""
    _, difference, count = _difference("mse", pred, target, mask)
    return _mean(difference * difference, count), difference * _weight(2.0, count, difference)


def mae(pred: Any, target: Any, mask: Any = None) -> tuple[float, Array]:
    """Mean of abs(pred - target); the gradient at 0 is 0."""
    xp, difference, count = _difference("mae", pred, target, mask)
    return _mean(xp.abs(difference), count), xp.sign(difference) * _weight(1.0, count, difference)


def huber(pred: Any, target: Any, mask: Any = None, *, delta: float = 1.0) -> tuple[float, Array]:
    """Mean of d^2 / 2 where abs(d) <= delta and delta (abs(d) - delta / 2) elsewhere, with d = pred - target.

    Huber 1964; as torch.nn.HuberLoss.
    """
    if not delta > 0:
        raise ValueError(f"huber: delta is {delta}; expected a positive number")
    xp, difference, count = _difference("huber", pred, target, mask)
    # With the clipped c, c (d - c / 2) is both branches, and c is the gradient.
    clipped = xp.clip(difference, -delta, delta)
    return _mean(clipped * (difference - 0.5 * clipped), count), clipped * _weight(1.0, count, difference)


def cross_entropy(
    pred: Any, target: Any, mask: Any = None, *, ignore_index: int = IGNORE_INDEX, weight: Any = None
) -> tuple[float, Array]:
    """Mean of -log softmax(pred)[target], from logits.

    Parameters
    ----------
    pred : array_like (..., C)
        Logits.
    target : array_like of int (...)
        Classes in [0, C). Elements that are ``ignore_index`` are not valid.
    mask : array_like of bool, optional
        Valid elements, shaped as leading axes of ``target``.
    ignore_index : int
        For padding.
    weight : array_like (C,), optional
        Of the classes; the mean is the weighted one, as in torch.
    """
    op = "cross_entropy"
    xp = common_namespace(op, pred, target)
    logits = as_real(op, "pred", pred, None, xp)
    classes = as_integer(op, "target", target, xp)
    if logits.ndim == 0:
        raise ValueError(f"{op}: pred has shape (); expected (..., classes)")
    check_shape(op, "target", classes, "pred.shape[:-1]", logits.shape[:-1])
    valid = classes != ignore_index
    if mask is not None:
        valid &= valid_elements(op, mask, classes.shape, xp)
    size = logits.shape[-1]
    wrong = valid & ((classes < 0) | (classes >= size))
    if wrong.any():
        raise ValueError(f"{op}: target has {int(classes[wrong][0])}; expected 0 <= class < {size} or {ignore_index}")
    grad = xp.zeros(logits.shape, dtype=logits.dtype)
    rows, chosen = logits[valid], classes[valid].astype(np.intp)
    if rows.size == 0:
        return 0.0, grad
    targets = xp.arange(len(rows)), chosen
    rows = rows - rows.max(axis=-1, keepdims=True)
    log_sum = xp.log(xp.exp(rows).sum(axis=-1, keepdims=True))
    losses = log_sum[:, 0] - rows[targets]
    d_rows = xp.exp(rows - log_sum)
    d_rows[targets] -= 1
    if weight is None:
        total = float(len(rows))
        scale: Any = _weight(1.0, total, rows)
    else:
        weights = from_host(xp, as_real(op, "weight", to_host(weight), logits.dtype))
        check_shape(op, "weight", weights, "classes", (size,))
        factors = weights[chosen]
        total = float(factors.sum(dtype=np.float64))
        losses = factors * losses
        scale = (factors * _weight(1.0, total, rows))[:, None]
    grad[valid] = d_rows * scale
    return _mean(losses, total), grad


def class_weights(target: Any, classes: int | None = None, *, ignore_index: int = IGNORE_INDEX) -> Array:
    """Return the ``weight`` of ``cross_entropy`` that makes all classes count alike: N / (classes * N of the class).

    Parameters
    ----------
    target : array_like of int
        All labels. Those that are ``ignore_index`` do not count.
    classes : int, optional
        C; by default the largest label and one more.
    ignore_index : int
        For padding.

    Returns
    -------
    ndarray (C,) of float64
        1 for a class that does not occur.

    Raises
    ------
    ValueError
        If there are no labels, or one is outside [0, C).
    """
    labels = as_integer("class_weights", "target", take_host(target)).ravel()
    labels = labels[labels != ignore_index]
    size = int(labels.max(initial=-1)) + 1 if classes is None else classes
    if labels.size == 0 or labels.min() < 0 or labels.max() >= size:
        got = f"labels from {labels.min()} to {labels.max()}" if labels.size else "no labels"
        raise ValueError(f"class_weights: target has {got}; expected 0 <= class < {size}, and at least one")
    counts = np.bincount(labels, minlength=size)
    present = counts > 0
    weights: Array = np.divide(labels.size / np.count_nonzero(present), counts, where=present, out=np.ones(size))
    return weights


def binary_cross_entropy(pred: Any, target: Any, mask: Any = None) -> tuple[float, Array]:
    """Mean of -(z log s + (1 - z) log(1 - s)) with s = sigmoid(pred), from logits; target z in [0, 1], shaped as pred.

    Computed as max(x, 0) - x z + log(1 + exp(-abs(x))), which neither overflows nor cancels.
    """
    op = "binary_cross_entropy"
    xp, logits, labels, valid, count = _pair(op, pred, target, mask)
    if valid is not None:
        logits, labels = xp.where(valid, logits, 0), xp.where(valid, labels, 0)
    if not ((labels >= 0) & (labels <= 1)).all():
        raise ValueError(f"{op}: target has values outside [0, 1]; expected probabilities")
    losses = xp.maximum(logits, 0) - logits * labels + xp.log1p(xp.exp(-xp.abs(logits)))
    grad = (sigmoid(logits, xp) - labels) * _weight(1.0, count, logits)
    if valid is not None:
        losses, grad = xp.where(valid, losses, 0), xp.where(valid, grad, 0)
    return _mean(losses, count), grad


LOSSES: dict[str, Loss] = {
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def get_loss(loss: str | Loss) -> Loss:
    """Return the loss of that name, or the callable as it is."""
    if callable(loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"get_loss: loss is {loss!r}; expected a callable or one of {', '.join(LOSSES)}")
    return LOSSES[loss]


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


def _pair(op: str, pred: Any, target: Any, mask: Any) -> tuple[Any, Array, Array, Array | None, int]:
    """Return the namespace, pred and target of one dtype and shape, the mask broadcast to them, and what it counts."""
    xp = common_namespace(op, pred, target)
    p = as_real(op, "pred", pred, None, xp)
    t = as_real(op, "target", target, p.dtype, xp)
    check_shape(op, "target", t, "pred.shape", p.shape)
    if mask is None:
        return xp, p, t, None, p.size
    valid = valid_elements(op, mask, p.shape, xp)
    return xp, p, t, valid, int(xp.count_nonzero(valid))


def _difference(op: str, pred: Any, target: Any, mask: Any) -> tuple[Any, Array, int]:
    """Return the namespace, pred - target, 0 where not valid, and the number of valid elements."""
    xp, p, t, valid, count = _pair(op, pred, target, mask)
    return xp, p - t if valid is None else subtract_where(xp, p, t, valid), count


def valid_elements(op: str, mask: Any, shape: tuple[int, ...], xp: Any = np) -> NDArray[np.bool_]:
    """Return ``mask`` (all True for None), a boolean array of leading axes of ``shape``, broadcast to ``shape``."""
    if mask is None:
        return np.broadcast_to(np.True_, shape)
    array = as_mask(op, mask, xp)
    check_shape(op, "mask", array, "leading axes of pred", shape[: array.ndim])
    spread: NDArray[np.bool_] = xp.broadcast_to(array.reshape(array.shape + (1,) * (len(shape) - array.ndim)), shape)
    return spread


def _mean(losses: Array, count: float) -> float:
    return float(losses.sum(dtype=np.float64)) / count if count else 0.0


def _weight(numerator: float, count: float, like: Array) -> Any:
    return like.dtype.type(numerator / count if count else 0.0)
