"""The loss of one class out of many, from logits, and weights that make rare classes count."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import _core
from ...arrays.checks import Array, as_integer, as_real, check_shape
from ...arrays.namespace import empty, from_host, take_host, to_host
from .elements import IGNORE_INDEX, class_numbers, common_namespace, divisor, element_weights, mean, valid_elements

_CACHED = 1 << 16  # logits that go through softmax and gradient together: they stay in a core's cache meanwhile


def cross_entropy(
    pred: Any,
    target: Any,
    mask: Any = None,
    *,
    ignore_index: int = IGNORE_INDEX,
    weight: Any = None,
    sample_weight: Any = None,
    normalizer: float | None = None,
) -> tuple[float, Array]:
    r"""Mean of :math:`-\log \mathrm{softmax}(x)_y`, from logits x and the class y.

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
        Weights of the classes; the mean is the weighted one, as in torch.
    sample_weight : array_like, optional
        How much the elements count, shaped as leading axes of ``target``; the mean is the weighted one.
    normalizer : float, optional
        What the sum is divided by instead of the sum of the weights.
    """
    op = "cross_entropy"
    xp = common_namespace(op, pred, target)
    logits = as_real(op, "pred", pred, None, xp)
    if logits.ndim == 0:
        raise ValueError(f"{op}: pred has shape (); expected (..., classes)")
    classes = class_numbers(op, target, logits, xp)
    valid = classes != ignore_index
    if mask is not None:
        valid &= valid_elements(op, mask, classes.shape, xp)
    size = logits.shape[-1]
    wrong = valid & ((classes < 0) | (classes >= size))
    if wrong.any():
        raise ValueError(f"{op}: target has {int(classes[wrong][0])}; expected 0 <= class < {size} or {ignore_index}")
    valid = valid.reshape(-1)
    rows = xp.arange(len(valid))[valid]
    chosen = classes.reshape(-1)[rows].astype(np.intp)
    factors = None
    if weight is not None:
        weights = from_host(xp, as_real(op, "weight", to_host(weight), logits.dtype))
        check_shape(op, "weight", weights, "classes", (size,))
        factors = weights[chosen]
    if sample_weight is not None:
        by_sample = element_weights(op, sample_weight, classes.shape, logits.dtype, xp).reshape(-1)[rows]
        factors = by_sample if factors is None else factors * by_sample
    total = float(len(rows)) if factors is None else float(factors.sum(dtype=np.float64))
    divided_by = divisor(op, normalizer, total)
    losses, grad = _softmax_losses(xp, logits, rows, chosen, factors, divided_by)
    return mean(losses if factors is None else losses * factors, divided_by), grad


def _softmax_losses(
    xp: Any, logits: Array, rows: Array, chosen: Array, factors: Array | None, divided_by: float
) -> tuple[Array, Array]:
    """Return -log softmax of the chosen class in each of the rows, and the gradient of the whole.

    On the cpu a few rows at a time, so that what one pass has written is in the cache when the next one reads it; the
    gradient is the only array as large as the logits.
    """
    size, count = logits.shape[-1], len(rows)
    losses = xp.empty((count,), dtype=logits.dtype)
    if count == 0:
        return losses, xp.zeros(logits.shape, dtype=logits.dtype)
    flat = logits.reshape(-1, size)
    everything = count == len(flat)
    grad = empty(xp, flat.shape, logits.dtype)
    if not everything:
        grad.fill(0)
    scale = logits.dtype.type(1.0 / divided_by if divided_by else 0.0)
    step = max(1, _CACHED // size) if xp is np else count
    for start in range(0, count, step):
        piece = slice(start, min(start + step, count))
        at = piece if everything else rows[piece]
        block = grad[at] if everything else flat[at]  # a view, or a copy that goes back below
        source, loss, classes = flat[at] if everything else block, losses[piece], chosen[piece]
        weights = None if factors is None else factors[piece]
        if xp is np:
            source = source if source.flags.carray else np.array(source, order="C")
            done = _core.begin_softmax((block, classes, loss, source), 0)
            np.exp(block, out=block)
            done &= _core.end_softmax((block, classes, loss, weights), scale)
            assert done
        else:
            taken = xp.arange(len(block)), classes
            xp.subtract(source, source.max(axis=-1, keepdims=True), out=block)
            shifted = block[taken]
            xp.exp(block, out=block)
            sums = block.sum(axis=-1)
            loss[...] = xp.log(sums) - shifted
            share = scale if weights is None else weights * scale
            block *= (1 / sums * share)[:, None]
            block[taken] -= share
        if not everything:
            grad[at] = block
    return losses, grad.reshape(logits.shape)


def class_weights(target: Any, classes: int | None = None, *, ignore_index: int = IGNORE_INDEX) -> Array:
    """Return the ``weight`` of ``cross_entropy`` that makes all classes count equally: N / (classes * N of the class).

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
    return balanced(np.bincount(labels, minlength=size))


def balanced(counts: Array) -> Array:
    """Return the weights (C,) that make classes count alike which occur so often; 1 where one does not occur."""
    present = counts > 0
    number = counts.sum() / max(1, np.count_nonzero(present))
    weights: Array = np.divide(number, counts, where=present, out=np.ones(len(counts)))
    return weights
