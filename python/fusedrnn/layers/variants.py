"""Cells with other gate functions, peepholes, a coupled forget gate, a clip, the other reset; noise inside of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arrays.checks import Array, brief, described, flag, number, probability
from .dropout import dropout_mask

# The gate functions of ONNX's recurrent operators by name, with their alpha and beta where none are given; None: there
# is no such number. "hard_sigmoid" is Keras's first one; its present one has alpha = 1/6.
FUNCTIONS: dict[str, tuple[float | None, float | None]] = {
    "sigmoid": (None, None),
    "tanh": (None, None),
    "relu": (None, None),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01, None),
    "thresholded_relu": (1.0, None),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0, None),
    "softsign": (None, None),
    "softplus": (None, None),
}
_DERIVATIVE_NEEDS = {"leaky_relu": 0.0, "thresholded_relu": 0.0, "elu": 0.0}  # least alpha: y tells the slope then
_ROLES = {"lstm": ("gates", "candidate", "output"), "gru": ("gates", "candidate"), "rnn": ("state",)}


class GateFunction(NamedTuple):
    """One function of a cell with its parameters."""

    name: str
    alpha: float
    beta: float


_ZERO = GateFunction("affine", 0.0, 0.0)


class Variant(NamedTuple):
    """How a cell differs from the one of the books.

    Attributes
    ----------
    activations : tuple of GateFunction
        Of an LSTM for i, f, o, for g and for c; of a GRU for r, z and for n; of an RNN for h. None: those of the books.
    clip : float or None
        What the gate functions read is clipped to [-clip, clip], but for c.
    coupled : bool
        f = 1 - i.
    peephole : bool
        i and f see c(t-1), o sees c(t).
    reset_after : bool
        Of a GRU: r multiplies W_hn h, and not the h that W_hn reads.
    recurrent_dropout : float
        Probability with which, in training, a value is dropped inside.
    recurrent_dropout_on : {"h", "candidate"}
        Of h where W_hh reads it, one mask a sequence; or of the candidate (g, n), at every step.
    zoneout : tuple of float
        Probability with which h, and c of an LSTM, stay what they were.
    layer_norm : bool
        W_ih x, W_hh h, and c of an LSTM where h reads it, are normalised.
    """

    activations: tuple[GateFunction, ...] | None = None
    clip: float | None = None
    coupled: bool = False
    peephole: bool = False
    reset_after: bool = True
    recurrent_dropout: float = 0.0
    recurrent_dropout_on: str = "h"
    zoneout: tuple[float, float] = (0.0, 0.0)
    layer_norm: bool = False

    @property
    def draws(self) -> bool:
        """Whether there is noise in training."""
        return self.recurrent_dropout > 0 or any(self.zoneout)

    @property
    def in_inference(self) -> Variant:
        """The cell without what only training draws; of zoneout inference takes the mean."""
        return self._replace(recurrent_dropout=0.0, recurrent_dropout_on="h")

    @property
    def plain(self) -> bool:
        """Whether this is the cell of the books."""
        return self == Variant()

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments that are not the default."""
        config: dict[str, Any] = {}
        if self.activations is not None:
            config["activations"] = [list(function) for function in self.activations]
        if self.clip is not None:
            config["clip"] = self.clip
        books = Variant()
        flags = ("coupled", "peephole", "reset_after", "recurrent_dropout", "recurrent_dropout_on", "layer_norm")
        if any(self.zoneout):
            config["zoneout"] = list(self.zoneout)
        return config | {name: getattr(self, name) for name in flags if getattr(self, name) != getattr(books, name)}

    def __str__(self) -> str:
        named = (f"{name}=False" if value is False else name for name, value in self.config().items())
        return " and ".join(named)

    def kernel(self, cell: str) -> str:
        """Return the name of the kernels of this variant of a cell, itself named as the kernels do."""
        return f"{cell.partition('_')[0]}_{'varied' if self.reset_after else 'before'}"

    def kernel_options(self, books: tuple[str, ...]) -> tuple[Any, ...]:
        """Return what the kernels are told.

        That is ((gate, candidate, output), clip, coupled, peephole, zoneout of h and c, layer_norm). ``books`` are the
        names of the cell's functions where no others are given.
        """
        functions = self.activations or tuple(GateFunction(name, 0.0, 0.0) for name in books)
        # 0 tanh(...) is 0 whatever it reads; its slope in the value divides by alpha.
        functions = tuple(_ZERO if f.name == "scaled_tanh" and f.alpha == 0 else f for f in functions)
        unused = GateFunction("tanh", 0.0, 0.0)
        gate, candidate, output = {1: (unused, *functions, unused), 2: (*functions, unused), 3: functions}[len(books)]
        clip = math.inf if self.clip is None else self.clip
        chosen = tuple(gate), tuple(candidate), tuple(output)
        return chosen, clip, self.coupled, self.peephole, *self.zoneout, self.layer_norm

    def factors(
        self, slabs: int, steps: int, batch: int, hidden: int, dtype: np.dtype[Any], rng: np.random.Generator | None
    ) -> tuple[Array | None, ...]:
        """Draw what the kernels are told in training: factors of h and of the candidate, where h and c stay."""
        h_factor = g_factor = None
        by_step = (slabs, steps, batch, hidden)
        if self.recurrent_dropout > 0:
            if self.recurrent_dropout_on == "h":
                h_factor = dropout_mask((slabs, batch, hidden), self.recurrent_dropout, dtype, rng)
            else:
                g_factor = dropout_mask(by_step, self.recurrent_dropout, dtype, rng)
        zones = (None if p == 0 or rng is None else _zone(by_step, p, dtype, rng) for p in self.zoneout)
        return h_factor, g_factor, *zones


def read_variant(
    op: str,
    cell: str,
    activations: Any,
    clip: Any,
    *,
    coupled: Any = False,
    peephole: Any = False,
    reset_after: Any = True,
    recurrent_dropout: Any = 0.0,
    recurrent_dropout_on: Any = "h",
    zoneout: Any = 0.0,
    layer_norm: Any = False,
) -> Variant:
    """Return the variant that these arguments describe; ``cell`` is "rnn", "lstm" or "gru".

    Raises
    ------
    ValueError, TypeError
        If a name is unknown, a number outside its range, or there are too few or many functions.
    """
    if clip is not None and not 0 < number(op, "clip", clip) < math.inf:
        raise ValueError(f"{op}: clip is {clip}; expected a positive number or None")
    variant = Variant(
        None if activations is None else _functions(op, cell, activations),
        None if clip is None else float(clip),
        flag(op, "coupled", coupled),
        flag(op, "peephole", peephole),
        flag(op, "reset_after", reset_after),
        probability(op, "recurrent_dropout", recurrent_dropout),
        _place(op, cell, recurrent_dropout_on),
        _zoneout(op, cell, zoneout, bool(peephole)),
        flag(op, "layer_norm", layer_norm),
    )
    if variant.layer_norm:
        _check_norm(op, variant)
    return variant


def _zone(shape: tuple[int, ...], p: float, dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    zone: Array = (rng.random(shape, dtype=np.float32) < p).astype(dtype)
    return zone


def _check_norm(op: str, variant: Variant) -> None:
    others = {
        "peephole": variant.peephole,
        "reset_after=False": not variant.reset_after,
        "zoneout": any(variant.zoneout),
        "recurrent_dropout on h": variant.recurrent_dropout > 0 and variant.recurrent_dropout_on == "h",
    }
    for name, there in others.items():
        if there:
            raise ValueError(f"{op}: layer_norm is True with {name}; expected one of them")


def _place(op: str, cell: str, given: Any) -> str:
    places = ("h",) if cell == "rnn" else ("h", "candidate")
    if given not in places:
        expected = " or ".join(map(repr, places))
        raise ValueError(f"{op}: recurrent_dropout_on is {brief(given)}; expected {expected}")
    return str(given)


def _zoneout(op: str, cell: str, given: Any, peephole: bool) -> tuple[float, float]:
    """Return the probabilities of h and c: one for both, or a pair."""
    if isinstance(given, (tuple, list)):
        if len(given) != 2 or (cell != "lstm" and given[1] != 0):
            expected = "a number, or a pair of them for h and c" if cell == "lstm" else "a number"
            raise ValueError(f"{op}: zoneout is {brief(given)}; expected {expected}")
        h, c = given
    else:
        h, c = given, given if cell == "lstm" else 0.0
    rates = probability(op, "zoneout", h), probability(op, "zoneout", c)
    if any(rates) and peephole:
        raise ValueError(f"{op}: zoneout is {brief(given)} with peephole; expected one of them")
    return rates


def _functions(op: str, cell: str, given: Any) -> tuple[GateFunction, ...]:
    roles = _ROLES[cell]
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"{op}: activations is {described(given)}; expected a sequence of {len(roles)}")
    if len(given) != len(roles):
        raise ValueError(f"{op}: activations has {len(given)} functions; expected {len(roles)}, for {', '.join(roles)}")
    return tuple(_function(op, f"activations[{i}]", each) for i, each in enumerate(given))


def _function(op: str, argument: str, given: Any) -> GateFunction:
    """Return a function given as its name, or as (name, alpha, beta), of which the last may be left out."""
    parts = (given,) if isinstance(given, str) else given
    name, *numbers = parts if isinstance(parts, (tuple, list)) and parts else ("",)
    if not isinstance(name, str) or name not in FUNCTIONS or len(numbers) > 2:
        known = ", ".join(map(repr, FUNCTIONS))
        raise ValueError(f"{op}: {argument} is {brief(given)}; expected a name or (name, alpha, beta), of {known}")
    values = []
    for which, default, value in zip(("alpha", "beta"), FUNCTIONS[name], [*numbers, None, None], strict=False):
        if value is None or default is None:
            values.append(default or 0.0)
        elif not math.isfinite(number(op, f"{which} of {argument}", value)):
            raise ValueError(f"{op}: {which} of {argument} is {value}; expected a finite number")
        else:
            values.append(float(value))
    if values[0] < _DERIVATIVE_NEEDS.get(name, -math.inf):
        raise ValueError(f"{op}: alpha of {argument} is {values[0]}; expected a number >= 0 for {name!r}")
    return GateFunction(name, *values)
