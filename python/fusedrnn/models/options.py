"""What a caller may ask of ``generate``, checked once and before anything is computed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from ..arrays.checks import Array, check_takes, described, number, positive_int

METHODS = ("greedy", "sample", "beam")
_READ_BY = {"sample": ("temperature", "top_k", "top_p"), "beam": ("beam_width", "length_penalty")}
_LARGEST_EXPONENT = 700  # exp(710) is above the largest float

Constraint: TypeAlias = Callable[[int, Array], Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How sentences are written; see :meth:`EncoderDecoder.generate`."""

    max_length: int
    method: str = "greedy"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    beam_width: int = 4
    length_penalty: float = 0.0
    n_best: int | None = None
    min_length: int = 0
    repetition_penalty: float = 1.0
    constraint: Constraint | None = None

    @property
    def sentences(self) -> int:
        """Sentences written for each sample."""
        return 1 if self.n_best is None else self.n_best


def checked_options(op: str, max_length: Any, given: dict[str, Any]) -> Options:
    """Return the options of a call.

    Raises
    ------
    TypeError
        If a name is unknown, or a value of the wrong type.
    ValueError
        If a value is outside its range, or two do not go together.

    Warns
    -----
    UserWarning
        For an option that the method does not read.
    """
    known = [each.name for each in fields(Options) if each.name != "max_length"]
    for name in given:
        if name not in known:
            raise TypeError(f"{op}: generate got {name!r}; expected options among {', '.join(known)}")
    options = Options(max_length=positive_int(op, "max_length", max_length), **given)
    method, penalty, width = options.method, options.length_penalty, options.beam_width
    if method not in METHODS:
        raise ValueError(f"{op}: method is {method!r}; expected one of {', '.join(map(repr, METHODS))}")
    for name in ("temperature", "repetition_penalty"):
        value = getattr(options, name)
        if not 0 < number(op, name, value) < math.inf:
            raise ValueError(f"{op}: {name} is {value}; expected a positive number")
    if not number(op, "length_penalty", penalty) >= 0:
        raise ValueError(f"{op}: length_penalty is {penalty}; expected a number >= 0")
    if penalty * math.log(options.max_length) > _LARGEST_EXPONENT:
        raise ValueError(f"{op}: length_penalty is {penalty}; expected max_length^length_penalty to be a float")
    if options.top_k is not None:
        positive_int(op, "top_k", options.top_k)
    if options.top_p is not None and not 0 < number(op, "top_p", options.top_p) <= 1:
        raise ValueError(f"{op}: top_p is {options.top_p}; expected a probability, 0 < top_p <= 1")
    if positive_int(op, "beam_width", width) and options.n_best is not None:
        most = {"greedy": 1, "beam": width, "sample": math.inf}[method]
        if positive_int(op, "n_best", options.n_best) > most:
            expected = "1 with method 'greedy'" if method == "greedy" else f"at most beam_width = {width}"
            raise ValueError(f"{op}: n_best is {options.n_best}; expected {expected}")
    if options.min_length != 0 and positive_int(op, "min_length", options.min_length) > options.max_length:
        raise ValueError(f"{op}: min_length is {options.min_length}; expected at most max_length = {max_length}")
    constraint: Any = options.constraint
    if constraint is not None and not callable(constraint):
        got = described(constraint)
        raise TypeError(f"{op}: constraint is {got}; expected a function (sample, tokens) -> allowed tokens")
    if constraint is not None:
        check_takes(op, "constraint", constraint, "constraint(sample, tokens)")
    for reader, names in _READ_BY.items():
        unread = [name for name in names if reader != method and getattr(options, name) != getattr(Options, name)]
        if unread:
            note = f"{op}: {unread[0]} has no effect with method {method!r}; method={reader!r} reads it"
            warnings.warn(note, UserWarning, stacklevel=3)
    return options


class Rules:
    """What the options make of the logits of a step, given the sentences so far.

    ``before`` (samples, P), or None, are tokens that were written before the first step: those of a prompt.
    """

    def __init__(self, op: str, options: Options, end: int | None, before: Array | None) -> None:
        self._op, self._options, self._end, self._before = op, options, end, before
        self.change_nothing = options.constraint is None and options.min_length == 0 and options.repetition_penalty == 1

    def apply(self, logits: Array, sentences: Array, samples: Array, going: Array) -> Array:
        """Return the logits (rows, V) by which the rows choose that have written ``sentences`` (rows, t).

        ``samples`` (rows,) are the numbers of their samples; rows that are not ``going`` may be anything.
        """
        if self.change_nothing:
            return logits
        options, ruled = self._options, logits.astype(np.float64)
        if options.repetition_penalty != 1:
            # Keskar et al. 2019, section 4.1: what was written becomes less likely, whatever the sign of its logit.
            written = np.zeros(logits.shape, bool)
            np.put_along_axis(written, sentences, True, axis=1)
            if self._before is not None:
                np.put_along_axis(written, self._before[samples], True, axis=1)
            factor = np.where(ruled > 0, 1 / options.repetition_penalty, options.repetition_penalty)
            ruled = np.where(written, ruled * factor, ruled)
        if self._end is not None and sentences.shape[1] < options.min_length:
            ruled[:, self._end] = -np.inf
        if options.constraint is not None:
            for row in np.flatnonzero(going):
                allowed = self._allowed(options.constraint, int(samples[row]), sentences[row], logits.shape[1])
                ruled[row, ~allowed] = -np.inf
        return ruled

    def require_choice(self, ruled: Array, sentences: Array, samples: Array, rows: Array) -> None:
        """Raise ValueError for the first of these ``rows`` (a mask) that has no token left."""
        for row in np.flatnonzero(rows & (ruled.max(axis=1) == -np.inf)):
            raise ValueError(
                f"{self._op}: no token is left for sample {samples[row]} after {sentences[row].tolist()}; "
                "expected constraint and min_length to allow one"
            )

    def _allowed(self, constraint: Constraint, sample: int, sentence: Array, count: int) -> Array:
        """Return which of ``count`` tokens the constraint allows, as a mask (V,)."""
        answer = constraint(sample, sentence.copy())
        if answer is None:
            return np.ones(count, bool)
        tokens = np.asarray(list(answer) if isinstance(answer, (Set, Iterator)) else answer)
        if tokens.dtype == bool and tokens.shape == (count,):
            return tokens
        if tokens.size == 0:
            return np.zeros(count, bool)
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            expected = f"tokens, a mask ({count},) of bool or None"
            raise TypeError(f"{self._op}: constraint returned {described(answer)}; expected {expected}")
        outside = tokens[(tokens < 0) | (tokens >= count)]
        if outside.size:
            raise ValueError(f"{self._op}: constraint returned {outside[0]}; expected tokens, 0 <= token < {count}")
        mask = np.zeros(count, bool)
        mask[tokens] = True
        return mask
