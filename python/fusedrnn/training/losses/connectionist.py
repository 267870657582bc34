"""The loss of label sequences without an alignment: connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import _core
from ...arrays.checks import Array, as_integer, as_lengths, as_real, integer
from ...arrays.namespace import empty, from_host, namespace_of, take_host, to_host
from .elements import IGNORE_INDEX, divisor, element_weights, valid_elements

_NOTHING = -1e30  # log of 0 that can be subtracted from itself
_RESCALED = 8  # time steps after which probabilities are divided by their sum


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
    logits = to_host(given)
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

    shares = _empty(*logits.shape)
    np.copyto(shares, logits)
    shares -= shares.max(axis=-1, keepdims=True, initial=_NOTHING)
    np.exp(shares, out=shares)
    sums = shares.sum(axis=-1, keepdims=True)
    shares /= sums
    inside = np.arange(steps) < lengths[:, None]
    unknown = (np.isnan(sums[..., 0]) & inside).any(axis=1)  # not to be taken for impossible, which may not count
    if unknown.any():
        shares[unknown] = 1.0 / classes
    losses, expected = _alignments(shares, logits, labels, counts, lengths, blank)

    losses[unknown] = shares[unknown] = np.nan
    possible = ~np.isinf(losses)
    factor = weight / np.maximum(counts, 1) / (divided_by or 1.0)
    valid = inside & possible[:, None]
    shares -= expected
    shares *= factor[:, None, None]
    shares[~valid] = 0.0
    grad = shares.astype(logits.dtype, copy=False)
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
    op = "ctc_labels"
    logits = to_host(as_real(op, "pred", pred, None, namespace_of(pred)))
    if logits.ndim != 3 or not logits.shape[2]:
        raise ValueError(f"{op}: pred has shape {logits.shape}; expected (batch, time, classes)")
    batch, steps, classes = logits.shape
    ends = np.full(batch, steps) if lengths is None else as_lengths(op, lengths, batch, steps)
    blank = integer(op, "blank", blank)
    if not 0 <= blank < classes:
        raise ValueError(f"{op}: blank is {blank}; expected a class below {classes}")
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


def _empty(*shape: int) -> Array:
    array: Array = empty(np, shape, np.dtype(np.float64))
    return array


def _chosen(first: Array, others: Array) -> Array:
    """Return the sums of integers as the indices of elements."""
    places = _empty(*np.broadcast_shapes(first.shape, others.shape)).view(np.int64)
    return np.add(first, others, out=places)


class _Plain:
    """Probabilities as they are, now and then divided by their sum: fast, but what is below 1e-308 is lost."""

    zero, one = 0.0, 1.0

    @staticmethod
    def sweep(emissions: Array, allowed: Array, before: Array, bordered: Array, scales: Array) -> None:
        """Write what reaches each state before and after each step, and the logarithms of what that was divided by."""
        done = _core.align((emissions, allowed, before, bordered, scales), _RESCALED)
        assert done

    @staticmethod
    def shares(a: Array, b: Array) -> tuple[Array, Array]:
        """Return in b the products over their sum, and whether that is so large that what was lost does not count."""
        product = np.multiply(a, b, out=b)
        sums = product.sum(axis=1)
        known: Array = sums > 1e-250
        sums[~known] = 1.0
        product /= sums[:, np.newaxis]
        return product, known

    @staticmethod
    def log(x: Array) -> Array:
        """Return the logarithm, _NOTHING for 0."""
        return np.log(x, where=x > 0, out=np.full(x.shape, _NOTHING))


class _Logarithmic:
    """The same with logarithms of probabilities, of any size."""

    zero, one = _NOTHING, 0.0

    @staticmethod
    def sweep(emissions: Array, allowed: Array, before: Array, bordered: Array, scales: Array) -> None:
        bordered[:, :2], before[:1], before[:1, :2], scales[:] = _NOTHING, _NOTHING, 0.0, 0.0
        for t, emission in enumerate(emissions):
            if t:
                past = bordered[t - 1]
                reached = np.logaddexp(past[2:], past[1:-1])
                np.logaddexp(reached, past[:-2] + allowed, out=before[t])
            np.maximum(before[t] + emission, _NOTHING, out=bordered[t, 2:])

    @staticmethod
    def shares(a: Array, b: Array) -> tuple[Array, Array]:
        product = np.maximum(a + b, _NOTHING)
        product -= product.max(axis=1, keepdims=True, initial=_NOTHING)
        shares = np.exp(product)
        sums = shares.sum(axis=1)
        shares /= sums[:, np.newaxis]
        return shares, np.ones(sums.shape, bool)

    @staticmethod
    def log(x: Array) -> Array:
        return x


def _alignments(shares: Array, logits: Array, labels: Array, counts: Array, lengths: Array, blank: int) -> Any:
    """Return -log p(labels) (B,), and the expected share of each class at each time step (B, T, C).

    With probabilities, and where these are too small with their logarithms. A path's share in p(labels) is the same at
    each step, so none is lost that counts as long as the sum of what is left of all paths is no tiny number.
    """
    losses, expected, known = _aligned(_Plain, shares, labels, counts, lengths, blank)
    again = np.flatnonzero(~known)
    if len(again):
        parts = (labels[again], counts[again], lengths[again])
        log_p = logits[again].astype(np.float64)
        log_p -= log_p.max(axis=-1, keepdims=True, initial=_NOTHING)
        log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
        losses[again], expected[again], _ = _aligned(_Logarithmic, log_p, *parts, blank)
    return losses, expected


def _aligned(
    algebra: Any, p: Array, labels: Array, counts: Array, lengths: Array, blank: int
) -> tuple[Array, Array, Array]:
    """Return the losses, the expected shares, and whether they are known (B,), from probabilities or their logarithms.

    The backward variables are the forward ones of the sequence read from its end, so both are computed as one batch,
    which is the last axis: what is added up lies side by side, and each sample for itself.
    """
    batch, steps, classes = p.shape
    states = 2 * labels.shape[1] + 1  # a blank, then each label and a blank
    last = 2 * counts
    rows, time, state = np.arange(batch), np.arange(steps)[:, None], np.arange(states)[:, None]
    symbols = np.full((states, batch), blank)
    symbols[1::2] = labels.T
    turned_state, turned_time = np.maximum(last - state, 0), np.maximum(lengths - 1 - time, 0)
    both = np.concatenate((symbols, np.take_along_axis(symbols, turned_state, axis=0)), axis=1)
    at = np.concatenate((np.broadcast_to(time, (steps, batch)), turned_time), axis=1) + steps * np.tile(rows, 2)
    places = _chosen((at * classes)[:, None], both)
    emissions = np.take(p, places, out=_empty(*places.shape), mode="clip")

    allowed = np.full(both.shape, algebra.zero)
    allowed[2:][(both[2:] != blank) & (both[2:] != both[:-2])] = algebra.one
    before, scales = _empty(*emissions.shape), np.zeros((steps, 2 * batch))
    bordered = _empty(steps, states + 2, 2 * batch)  # two states that nothing reaches, and those after each step
    after = bordered[:, 2:]
    algebra.sweep(emissions, allowed, before, bordered, scales)

    log_total = np.where(last == 0, 0.0, _NOTHING)
    some = np.flatnonzero(lengths)
    ends = algebra.log(after[lengths[some] - 1, :, some])
    inside = np.arange(len(some))
    one_before = np.where(last[some] > 0, ends[inside, np.maximum(last[some] - 1, 0)], _NOTHING)
    valid = time < lengths
    log_total[some] = np.logaddexp(ends[inside, last[some]], one_before)
    log_total += np.where(valid, scales[:, :batch], 0.0).sum(axis=0)
    possible = log_total > 0.5 * _NOTHING

    width = 2 * batch
    turned = _chosen((turned_time * (states + 2) * width + batch + rows)[:, None], (turned_state + 2) * width)
    backward = np.take(bordered, turned, out=_empty(*turned.shape), mode="clip")
    backward[np.broadcast_to(state > last, backward.shape)] = algebra.zero
    share, known = algebra.shares(before[:, :, :batch], backward)
    share *= (valid & possible)[:, None]
    of_labels, weight = places[:, 1::2, :batch].ravel(), share[:, 1::2].ravel()
    expected = np.bincount(of_labels, weight, minlength=p.size).astype(np.float64, copy=False).reshape(p.shape)
    expected[:, :, blank] += share[:, ::2].sum(axis=1).T
    return np.where(possible, -log_total, np.inf), expected, (known | ~valid).all(axis=0) & possible
