"""How tokens are chosen one after the other: the most likely one, a sample, or the best of several sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array, random_generator
from .options import Options, Rules

_PADDING = 0  # past the end where no token ends a sentence


class _Sentences(NamedTuple):
    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    log_probs: NDArray[np.float64]


class Generated(_Sentences):
    """Generated sentences; with ``n_best`` each array has an axis of that size after the first, best sentence first.

    Attributes
    ----------
    tokens : ndarray of int64 (B, T)
        Without the start token, with the end token; filled up with the end token (0 if there is none).
    lengths : ndarray of int64 (B,)
        Tokens of each sentence, the end token included; 0 where there are fewer than ``n_best`` sentences.
    log_probs : ndarray of float64 (B,)
        Logarithm of each sentence's probability under the model, whatever ``temperature``, ``repetition_penalty`` and
        the other options made of it; -inf where there is no sentence.
    attention : ndarray (B, T, S) or None
        With ``return_attention``: how much each token's step read of each step of the source, 0 past either end.
    """

    attention: Array | None = None


class Steps(Protocol):
    """A decoder that advances a batch of rows by one token per call."""

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
    options: Options,
    before: Array | None = None,
) -> Generated:
    """Write sentences for each of the tokens ``start`` (B,); ``steps(k)`` makes a decoder of B * k rows.

    ``before`` (B, P) are tokens that count as written already; see ``Rules``.

    Raises
    ------
    ValueError
        If ``end`` is not an output, or a rule leaves no token.
    FloatingPointError
        If all logits of a row are -inf, or one is NaN or inf: none of its tokens is the most likely one.
    """
    batch, count = len(start), options.sentences
    if batch == 0:
        shape = (0,) if options.n_best is None else (0, count)
        return Generated(np.zeros((*shape, 0), np.int64), np.zeros(shape, np.int64), np.zeros(shape))
    rules = Rules(op, options, end, before)
    # A beam of one keeps the most likely token of each step, as greedy choice does.
    if options.method == "beam" and options.beam_width > 1:
        found = _beam_search(_Checked(op, steps(options.beam_width), end), rules, start, end, options)
    else:
        rows = count if options.method == "sample" else 1
        draw = _drawing(op, options) if options.method == "sample" else lambda logits: logits.argmax(axis=1)
        found = _one_by_one(_Checked(op, steps(rows), end), rules, start, end, options.max_length, rows, draw)
    return Generated(*(each[:, 0] for each in found)) if options.n_best is None else Generated(*found)


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
    steps: Steps,
    rules: Rules,
    start: Array,
    end: int | None,
    max_length: int,
    count: int,
    choose: Callable[[Array], Array],
) -> tuple[Array, Array, Array]:
    """Write ``count`` sentences per sample, each row by itself; return (tokens, lengths, log_probs), best first."""
    samples = np.repeat(np.arange(len(start)), count)
    rows, current = np.arange(len(samples)), start[samples]
    columns: list[Array] = []
    lengths, log_probs = np.zeros(len(rows), np.int64), np.zeros(len(rows))
    going = np.ones(len(rows), bool)
    while going.any() and len(columns) < max_length:
        logits = steps(current)
        written = np.zeros((len(rows), 0), np.int64) if not columns or rules.change_nothing else np.stack(columns, 1)
        ruled = rules.apply(logits, written, samples, going)
        rules.require_choice(ruled, written, samples, going)
        current = choose(ruled)
        columns.append(np.where(going, current, _PADDING if end is None else end).astype(np.int64))
        log_probs[going] += log_softmax(logits)[rows, current][going]
        lengths[going] += 1
        if end is not None:
            going &= current != end
    found = [each.reshape(len(start), count, *each.shape[1:]) for each in (np.stack(columns, 1), lengths, log_probs)]
    best = np.argsort(-found[2], axis=1, kind="stable")
    tokens = np.take_along_axis(found[0], best[:, :, np.newaxis], axis=1)
    return tokens, np.take_along_axis(found[1], best, axis=1), np.take_along_axis(found[2], best, axis=1)


def _drawing(op: str, options: Options) -> Callable[[Array], Array]:
    """Return a function that draws a token per row of softmax(logits / temperature), within ``top_k`` and ``top_p``."""
    rng = random_generator(op, options.seed)

    def draw(logits: Array) -> Array:
        # Without the largest logit first: a small temperature would make all of them infinite.
        logits = logits.astype(np.float64)
        with np.errstate(over="ignore"):  # -inf is a probability of 0
            logits = (logits - logits.max(axis=1, keepdims=True)) / options.temperature
        if options.top_k is not None and options.top_k < logits.shape[1]:
            dropped = np.argsort(-logits, axis=1, kind="stable")[:, options.top_k :]
            np.put_along_axis(logits, dropped, -np.inf, axis=1)
        probabilities = np.exp(log_softmax(logits))
        if options.top_p is not None:
            _keep_nucleus(probabilities, options.top_p)
        cumulated = probabilities.cumsum(axis=1)
        threshold = rng.random((len(logits), 1)) * cumulated[:, -1:]
        # The first token whose share reaches above the threshold; threshold < total, so there is one.
        drawn: Array = (cumulated > threshold).argmax(axis=1)
        return drawn

    return draw


def _keep_nucleus(probabilities: Array, share: float) -> None:
    """Set to 0 all but the fewest most likely tokens that have ``share`` together (Holtzman et al. 2020)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    likeliest = np.take_along_axis(probabilities, order, axis=1)
    likeliest[likeliest.cumsum(axis=1) - likeliest >= share] = 0  # those before it have the share already
    np.put_along_axis(probabilities, order, likeliest, axis=1)


class _Finished:
    """The best ``count`` finished sentences of each sample; a sentence counts log p / length^penalty."""

    def __init__(self, batch: int, count: int, fill: int, penalty: float) -> None:
        self._fill, self._penalty, self._count = fill, penalty, count
        self.tokens = np.full((batch, count, 0), fill, np.int64)
        self.lengths = np.zeros((batch, count), np.int64)
        self.values = np.full((batch, count), -np.inf)
        self.log_probs = np.full((batch, count), -np.inf)

    def add(self, scores: Array, log_probs: Array, sentences: Array) -> None:
        """Take in sentences (B, width, t), which count as ``scores`` (B, width) before the penalty."""
        batch, width, length = sentences.shape
        missing = ((0, 0), (0, 0), (0, length - self.tokens.shape[2]))
        tokens = np.concatenate((np.pad(self.tokens, missing, constant_values=self._fill), sentences), axis=1)
        lengths = np.concatenate((self.lengths, np.full((batch, width), length)), axis=1)
        values = np.concatenate((self.values, scores / length**self._penalty), axis=1)
        both = np.concatenate((self.log_probs, log_probs), axis=1)
        best = np.argsort(-values, axis=1, kind="stable")[:, : self._count]
        self.values = np.take_along_axis(values, best, axis=1)
        none = self.values == -np.inf
        self.lengths = np.where(none, 0, np.take_along_axis(lengths, best, axis=1))
        self.log_probs = np.where(none, -np.inf, np.take_along_axis(both, best, axis=1))
        self.tokens = np.take_along_axis(tokens, best[:, :, np.newaxis], axis=1)
        self.tokens[none] = self._fill


def _beam_search(
    steps: Steps, rules: Rules, start: Array, end: int | None, options: Options
) -> tuple[Array, Array, Array]:
    """Keep the ``beam_width`` best unfinished sentences of each sample."""
    batch, width, max_length = len(start), options.beam_width, options.max_length
    samples = np.arange(batch)[:, np.newaxis]
    rows_of = np.repeat(np.arange(batch), width)
    tokens = np.zeros((batch, width, 0), np.int64)
    scores = np.full((batch, width), -np.inf)  # what beams are compared by: log p, with what the rules made of it
    scores[:, 0] = 0  # all beams of a sample start alike, so only one of them counts
    log_probs = np.zeros((batch, width))
    current = np.repeat(start, width)
    done = _Finished(batch, options.sentences, _PADDING if end is None else end, options.length_penalty)

    for step in range(max_length):
        logits = steps(current)
        own = log_softmax(logits).reshape(batch, width, -1)
        ruled = rules.apply(logits, tokens.reshape(batch * width, step), rows_of, scores.ravel() > -np.inf)
        rated = own if rules.change_nothing else _rated(logits, ruled).reshape(own.shape)
        total, own = scores[:, :, np.newaxis] + rated, log_probs[:, :, np.newaxis] + own
        stuck = (total.max(axis=(1, 2)) == -np.inf) & (done.values[:, 0] == -np.inf)
        rules.require_choice(ruled, tokens.reshape(batch * width, step), rows_of, np.repeat(stuck, width))
        if end is not None:
            ended = np.full((batch, width, 1), end)
            done.add(total[:, :, end], own[:, :, end], np.concatenate((tokens, ended), axis=2))
            total[:, :, end] = -np.inf
        size = total.shape[2]
        scores, parents, chosen = _best_candidates(total.reshape(batch, -1), width, size)
        log_probs = own[samples, parents, chosen]
        tokens = np.concatenate((tokens[samples, parents], chosen[:, :, np.newaxis]), axis=2)
        # No unfinished sentence can end better than this: scores only fall, and no length is above max_length.
        if (done.values[:, -1] >= scores[:, 0] / max_length**options.length_penalty).all():
            break
        if step + 1 == max_length:
            done.add(scores, log_probs, tokens)
            break
        steps.reorder((samples * width + parents).ravel())
        current = chosen.ravel()
    return done.tokens[:, :, : done.lengths.max()], done.lengths, done.log_probs


def _rated(logits: Array, ruled: Array) -> Array:
    """Return log p of each token (rows, V) after the rules; a row without a token, which counts nothing, all -inf."""
    some = ruled.max(axis=1, keepdims=True) > -np.inf
    penalised = np.where(ruled == -np.inf, logits, ruled)  # what is forbidden takes its share: p is not made larger
    return np.where(some & (ruled > -np.inf), log_softmax(penalised), -np.inf)


def _best_candidates(total: Array, width: int, size: int) -> tuple[Array, Any, Any]:
    """Return the scores, beams and tokens (B, width) of the largest elements of (B, width * size), best first."""
    part = np.argpartition(-total, width - 1, axis=1)[:, :width]
    order = np.lexsort((part, -np.take_along_axis(total, part, axis=1)), axis=1)
    part = np.take_along_axis(part, order, axis=1)
    return np.take_along_axis(total, part, axis=1), part // size, part % size
