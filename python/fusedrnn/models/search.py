"""How tokens are chosen one after the other: the most likely one, a sample, or the best of several sentences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array, number, positive_int, random_generator

METHODS = ("greedy", "sample", "beam")
_LARGEST_EXPONENT = 700  # exp(710) is above the largest float
_PADDING = 0  # past the end where no token ends a sentence


class Generated(NamedTuple):
    """Generated sentences.

    Attributes
    ----------
    tokens : ndarray of int64 (B, T)
        Without the start token, with the end token; filled up with the end token (0 if there is none).
    lengths : ndarray of int64 (B,)
        Tokens of each sentence, the end token included.
    log_probs : ndarray of float64 (B,)
        Logarithm of each sentence's probability under the model.
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    log_probs: NDArray[np.float64]


class Steps(Protocol):
    """A decoder that advances a batch of rows by one token a call."""

    def __call__(self, tokens: Array, /) -> Array:
        """Return the logits (rows, V) after these tokens (rows,)."""
        ...

    def reorder(self, rows: Array) -> None:
        """Let row i go on from the state of row ``rows[i]``."""
        ...


def search(
    op: str,
    steps: Callable[[int], Steps],
    start: Array,
    end: int | None,
    max_length: int,
    method: str = "greedy",
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int | None = None,
    beam_width: int = 4,
    length_penalty: float = 0.0,
) -> Generated:
    """Generate one sentence for each of the tokens ``start`` (B,); ``steps(k)`` makes a decoder of B * k rows.

    See :meth:`EncoderDecoder.generate` for the other arguments.

    Raises
    ------
    ValueError, TypeError
        If an argument is outside its range, or ``end`` is no output.
    FloatingPointError
        If all logits of a row are -inf, or one is NaN or inf: none of its tokens is the most likely one.
    """
    max_length = positive_int(op, "max_length", max_length)
    if method not in METHODS:
        raise ValueError(f"{op}: method is {method!r}; expected one of {', '.join(map(repr, METHODS))}")
    if not number(op, "temperature", temperature) > 0:
        raise ValueError(f"{op}: temperature is {temperature}; expected a positive number")
    if not number(op, "length_penalty", length_penalty) >= 0:
        raise ValueError(f"{op}: length_penalty is {length_penalty}; expected a number >= 0")
    if length_penalty * math.log(max_length) > _LARGEST_EXPONENT:
        raise ValueError(f"{op}: length_penalty is {length_penalty}; expected max_length^length_penalty to be a float")
    width = positive_int(op, "beam_width", beam_width)
    kept = None if top_k is None else positive_int(op, "top_k", top_k)
    if len(start) == 0:
        return Generated(np.zeros((0, 0), np.int64), np.zeros(0, np.int64), np.zeros(0))
    checked = _Checked(op, steps(width if method == "beam" else 1), end)
    if method == "beam":
        return _beam_search(checked, start, end, max_length, width, length_penalty)
    if method == "greedy":
        return _one_by_one(checked, start, end, max_length, lambda logits: logits.argmax(axis=1))
    rng = random_generator(op, seed)
    return _one_by_one(checked, start, end, max_length, lambda logits: _draw(logits, temperature, kept, rng))


class _Checked:
    """Steps whose logits are checked."""

    def __init__(self, op: str, steps: Steps, end: int | None) -> None:
        self._op, self._steps, self._end = op, steps, end
        self.reorder = steps.reorder

    def __call__(self, tokens: Array, /) -> Array:
        logits = self._steps(tokens)
        if self._end is not None and not 0 <= self._end < logits.shape[1]:
            expected = f"a token, 0 <= end < {logits.shape[1]}"
            raise ValueError(f"{self._op}: end is {self._end}; expected {expected}")
        largest = logits.max(axis=1)
        if not np.isfinite(largest).all():
            row = int(np.isfinite(largest).argmin())
            got = f"outputs have {largest[row]} as the largest logit of row {row}"
            raise FloatingPointError(f"{self._op}: {got}; expected a finite one (are weights and inputs finite?)")
        return logits


def log_softmax(logits: Array) -> NDArray[np.float64]:
    """Return log softmax over the last axis in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def _one_by_one(
    steps: Steps, start: Array, end: int | None, max_length: int, choose: Callable[[Array], Array]
) -> Generated:
    batch = len(start)
    tokens = np.full((batch, max_length), _PADDING if end is None else end, np.int64)
    lengths, log_probs = np.zeros(batch, np.int64), np.zeros(batch)
    going, current = np.ones(batch, bool), start
    for step in range(max_length):
        logits = steps(current)
        current = choose(logits)
        tokens[going, step] = current[going]
        log_probs[going] += log_softmax(logits)[np.arange(batch), current][going]
        lengths[going] += 1
        if end is not None:
            going &= current != end
        if not going.any():
            break
    return Generated(tokens[:, : lengths.max()], lengths, log_probs)


def _draw(logits: Array, temperature: float, top_k: int | None, rng: np.random.Generator) -> Array:
    """Draw a token a row from softmax(logits / temperature), restricted to the ``top_k`` largest."""
    logits = logits.astype(np.float64) / temperature
    if top_k is not None and top_k < logits.shape[1]:
        dropped = np.argsort(-logits, axis=1, kind="stable")[:, top_k:]
        np.put_along_axis(logits, dropped, -np.inf, axis=1)
    cumulated = np.exp(log_softmax(logits)).cumsum(axis=1)
    threshold = rng.random((len(logits), 1)) * cumulated[:, -1:]
    # The first token whose share reaches above the threshold; threshold < total, so there is one.
    drawn: Array = (cumulated > threshold).argmax(axis=1)
    return drawn


def _beam_search(
    steps: Steps, start: Array, end: int | None, max_length: int, width: int, length_penalty: float
) -> Generated:
    """Keep the ``width`` best unfinished sentences of each sample; a sentence counts log p / length^penalty."""
    batch, samples = len(start), np.arange(len(start))[:, np.newaxis]
    tokens = np.zeros((batch, width, 0), np.int64)
    scores = np.full((batch, width), -np.inf)
    scores[:, 0] = 0  # all beams of a sample start alike, so only one of them counts
    current = np.repeat(start, width)
    best, best_tokens = np.full(batch, -np.inf), np.full((batch, max_length), _PADDING if end is None else end)
    lengths, log_probs = np.zeros(batch, np.int64), np.full(batch, -np.inf)

    def finish(values: Array, sentences: Array) -> None:
        """Take sentences (B, width, length) with log p ``values`` where they beat the best ones so far."""
        length, at = sentences.shape[2], values.argmax(axis=1)
        value = values[np.arange(batch), at]
        better = np.flatnonzero(value / length**length_penalty > best)
        best[better] = value[better] / length**length_penalty
        log_probs[better], lengths[better] = value[better], length
        best_tokens[better] = _PADDING if end is None else end
        best_tokens[better, :length] = sentences[better, at[better]]

    for step in range(max_length):
        total = scores[:, :, np.newaxis] + log_softmax(steps(current)).reshape(batch, width, -1)
        if end is not None:
            ended = np.full((batch, width, 1), end)
            finish(total[:, :, end], np.concatenate((tokens, ended), axis=2))
            total[:, :, end] = -np.inf
        size = total.shape[2]
        scores, parents, chosen = _best_candidates(total.reshape(batch, -1), width, size)
        tokens = np.concatenate((tokens[samples, parents], chosen[:, :, np.newaxis]), axis=2)
        # No unfinished sentence can end better than this: log p only falls, and no length is above max_length.
        if (best >= scores[:, 0] / max_length**length_penalty).all():
            break
        if step + 1 == max_length:
            finish(scores, tokens)
            break
        steps.reorder((samples * width + parents).ravel())
        current = chosen.ravel()
    return Generated(best_tokens[:, : lengths.max()].astype(np.int64), lengths, log_probs)


def _best_candidates(total: Array, width: int, size: int) -> tuple[Array, Any, Any]:
    """Return the scores, beams and tokens (B, width) of the largest elements of (B, width * size), best first."""
    part = np.argpartition(-total, width - 1, axis=1)[:, :width]
    order = np.lexsort((part, -np.take_along_axis(total, part, axis=1)), axis=1)
    part = np.take_along_axis(part, order, axis=1)
    return np.take_along_axis(total, part, axis=1), part // size, part % size
