"""The loss of label sequences without an alignment: connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.checks import Array, as_integer, as_real, integer
from ...arrays.namespace import from_host, namespace_of, take_host, to_host
from .elements import IGNORE_INDEX, divisor, element_weights, valid_elements

_NOTHING = -1e30  # log of 0 that can be subtracted from itself


def ctc(
    pred: Any,
    target: Any,
    mask: Any = None,
    *,
    blank: int = 0,
    ignore_index: int = IGNORE_INDEX,
    zero_infinity: bool = False,
    sample_weight: Any = None,
    normalizer: float | None = None,
) -> tuple[float, Array]:
    """Mean over the samples of -log p(labels) / number of labels, from logits: connectionist temporal classification.

    p sums over all paths of T classes that give the labels once repeats are merged and then blanks are left out. Graves
    et al. 2006, equations 5 to 16, in log space and float64; as torch.nn.CTCLoss. On a GPU it is computed on the host.

    Parameters
    ----------
    pred : array_like (B, T, C)
        Logits.
    target : array_like of int (B, S)
        Labels in [0, C) other than the blank, padded on the right with ``ignore_index``.
    mask : array_like of bool (B, T), optional
        Valid time steps of pred: a sample's first ones.
    blank : int
        The class that stands for no label.
    ignore_index : int
        For padding.
    zero_infinity : bool
        Whether samples with more labels than their time steps can give do not count; otherwise the loss is infinite.
    sample_weight : array_like (B,), optional
        How much the samples count; the mean is the weighted one.
    normalizer : float, optional
        What the sum is divided by instead of the sum of the weights.
    """
    op, xp = "ctc", namespace_of(pred)
    given = as_real(op, "pred", pred, None, xp)
    if given.ndim != 3:
        raise ValueError(f"{op}: pred has shape {given.shape}; expected (batch, time, classes)")
    logits = to_host(given).astype(np.float64)
    batch, steps, classes = logits.shape
    blank = integer(op, "blank", blank)
    if not 0 <= blank < classes:
        raise ValueError(f"{op}: blank is {blank}; expected 0 <= blank < {classes}")
    labels, counts = _labels(op, target, batch, classes, blank, ignore_index)
    lengths = np.full(batch, steps) if mask is None else _lengths(op, take_host(mask), (batch, steps))
    weight = np.ones(batch)
    if sample_weight is not None:
        weight = element_weights(op, take_host(sample_weight), (batch,), np.dtype(np.float64))
    divided_by = divisor(op, normalizer, float(weight.sum()))

    logits -= logits.max(axis=-1, keepdims=True, initial=_NOTHING)
    shares = np.exp(logits)
    sums = shares.sum(axis=-1, keepdims=True)
    shares /= sums
    logits -= np.log(sums)
    losses, expected = _alignments(logits, labels, counts, lengths, blank)

    possible = np.isfinite(losses)
    factor = weight / np.maximum(counts, 1) / (divided_by or 1.0)
    valid = (np.arange(steps) < lengths[:, None]) & possible[:, None]
    shares -= expected
    grad = np.where(valid[..., None], shares * factor[:, None, None], 0.0).astype(given.dtype)
    counted = np.where(possible, losses, 0.0) if zero_infinity else losses
    with np.errstate(invalid="ignore"):  # infinity times a weight of 0
        value = float(np.where(factor > 0, counted * factor, 0.0).sum())
    return value, from_host(xp, grad)


def ctc_labels(pred: Any, lengths: Any = None, *, blank: int = 0) -> list[NDArray[np.int64]]:
    """Return the labels of the most likely path of each sample: the largest logits, repeats merged, blanks left out.

    Parameters
    ----------
    pred : array_like (B, T, C)
        Logits.
    lengths : array_like of int (B,), optional
        Valid time steps.
    blank : int
        The class that stands for no label.
    """
    logits = to_host(pred)
    if logits.ndim != 3:
        raise ValueError(f"ctc_labels: pred has shape {logits.shape}; expected (batch, time, classes)")
    ends = np.full(len(logits), logits.shape[1]) if lengths is None else as_integer("ctc_labels", "lengths", lengths)
    found = []
    for row, end in zip(logits.argmax(axis=-1), ends.tolist(), strict=True):
        path = row[:end]
        kept = np.ones(len(path), bool)
        kept[1:] = path[1:] != path[:-1]
        found.append(path[kept & (path != blank)].astype(np.int64))
    return found


def steps_needed(labels: Array, ignore_index: int = IGNORE_INDEX) -> NDArray[np.int64]:
    """Return how many time steps labels (B, S) need at least, (B,): one each, and a blank between repeated ones."""
    shown = labels != ignore_index
    repeats = shown[:, 1:] & (labels[:, 1:] == labels[:, :-1])
    needed: NDArray[np.int64] = shown.sum(axis=1) + repeats.sum(axis=1)
    return needed


def _labels(op: str, target: Any, batch: int, classes: int, blank: int, ignore: int) -> tuple[Array, Array]:
    """Return the labels, with the blank as padding, and their numbers (B,)."""
    given = to_host(target)
    labels = (as_integer(op, "target", given) if given.size else given).astype(np.int64)
    if labels.ndim != 2 or len(labels) != batch:
        raise ValueError(f"{op}: target has shape {labels.shape}; expected (batch, labels) = ({batch}, labels)")
    shown = labels != ignore
    counts = shown.sum(axis=1)
    if not np.array_equal(shown, np.arange(labels.shape[1]) < counts[:, None]):
        raise ValueError(f"{op}: target has {ignore} in front of a label; expected padding on the right")
    wrong = shown & ((labels < 0) | (labels >= classes) | (labels == blank))
    if wrong.any():
        got = labels[wrong][0]
        raise ValueError(
            f"{op}: target has {got}; expected 0 <= class < {classes}, {ignore}, and not the blank {blank}"
        )
    return np.where(shown, labels, blank), counts


def _lengths(op: str, mask: Any, shape: tuple[int, int]) -> Array:
    valid = valid_elements(op, mask, shape)
    lengths: Array = valid.sum(axis=1)
    if not np.array_equal(valid, np.arange(shape[1]) < lengths[:, None]):
        raise ValueError(f"{op}: mask has a gap; expected the first time steps of each sample")
    return lengths


def _alignments(log_p: Array, labels: Array, counts: Array, lengths: Array, blank: int) -> tuple[Array, Array]:
    """Return -log p(labels) (B,), and the expected share of each class at each time step (B, T, C).

    The backward variables are the forward ones of the sequence read from its end, so both are computed as one batch.
    """
    batch, steps, classes = log_p.shape
    states = 2 * labels.shape[1] + 1  # a blank, then each label and a blank
    last = 2 * counts
    rows, time, state = np.arange(batch), np.arange(steps), np.arange(states)
    symbols = np.full((batch, states), blank)
    symbols[:, 1::2] = labels
    turned_state = np.maximum(last[:, None] - state, 0)
    turned_time = np.maximum(lengths[:, None] - 1 - time, 0)
    turned = np.take_along_axis(symbols, turned_state, axis=1)
    seen = np.take_along_axis(log_p, np.broadcast_to(symbols[:, None], (batch, steps, states)), axis=2)
    seen_turned = seen[rows[:, None, None], turned_time[:, :, None], turned_state[:, None, :]]
    emitted = np.maximum(np.concatenate((seen, seen_turned)).transpose(1, 0, 2), _NOTHING)

    both = np.concatenate((symbols, turned))
    skips = np.zeros(both.shape)
    skips[:, :2] = _NOTHING
    skips[:, 2:][(both[:, 2:] == blank) | (both[:, 2:] == both[:, :-2])] = _NOTHING
    paths = np.empty((steps, 2 * batch, states))
    before = np.full((2 * batch, states + 2), _NOTHING)
    for t in range(steps):
        now = before[:, 2:]
        if t == 0:
            now[:, :2] = emitted[0, :, :2]
        else:
            stay, step, skip = now, before[:, 1:-1], before[:, :-2] + skips
            most = np.maximum(np.maximum(stay, step), skip)
            total = np.exp(stay - most)
            total += np.exp(step - most)
            total += np.exp(skip - most)
            np.log(total, out=total)
            total += most
            total += emitted[t]
            now[...] = total
        paths[t] = now

    log_total = np.where(last == 0, 0.0, _NOTHING)
    some = lengths > 0
    ends = paths[lengths[some] - 1, rows[some]]
    at = np.arange(len(ends))
    without_label = np.where(last[some] > 0, ends[at, np.maximum(last[some] - 1, 0)], _NOTHING)
    log_total[some] = np.logaddexp(ends[at, last[some]], without_label)
    losses = np.where(log_total < 0.5 * _NOTHING, np.inf, -log_total)

    forward = paths[:, :batch].transpose(1, 0, 2)
    backward = paths[turned_time[:, :, None], batch + rows[:, None, None], turned_state[:, None, :]]
    inside = (state <= last[:, None])[:, None, :] & (time < lengths[:, None])[:, :, None]
    # Each has the emission of its own step, so the two together have it twice.
    log_share = np.where(inside, forward + backward - seen - log_total[:, None, None], _NOTHING)
    share = np.exp(np.minimum(log_share, 0.0))
    places = (rows[:, None, None] * steps + time[:, None]) * classes + symbols[:, None, :]
    expected = np.bincount(places.ravel(), share.ravel(), minlength=batch * steps * classes)
    return losses, expected.reshape(batch, steps, classes)
