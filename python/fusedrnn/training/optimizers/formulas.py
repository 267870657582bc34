"""The formulas of the optimizers for arrays of any library; csrc/cpu/kernels/update.h has the same for plain ones.

Each operation stands in the order of the kernels, which round alike: the bits are the same, but for subnormal numbers,
which count as zero there. p is a parameter, g its gradient, m and v what is kept from step to step, r the numbers of
the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...arrays.checks import Array

Rates = Mapping[str, float]


def change(xp: Any, rule: str, r: Rates, p: Array, grad: Array, states: tuple[Array, ...], rows: Array | None) -> None:
    """Make a step of one parameter, or of some of its rows."""
    if rows is not None:
        parts = (p[rows], grad[rows], tuple(state[rows] for state in states))
        change(xp, rule, r, *parts, None)
        for whole, part in zip((p, *states), (parts[0], *parts[2]), strict=True):
            whole[rows] = part
        return
    p *= r.get("shrink", 1.0)
    FORMULAS[rule](xp, r, p, grad + p * r.get("decay", 0.0), *states)


def _sgd(xp: Any, r: Rates, p: Array, g: Array) -> None:
    p -= g * r["lr"]


def _momentum(xp: Any, r: Rates, p: Array, g: Array, m: Array) -> None:
    m *= r["momentum"]
    m += g
    p -= (m * r["along"] + g * r["ahead"]) * r["lr"]


def _normalized(xp: Any, r: Rates, v: Array, g: Array) -> Array:
    v *= r["square_kept"]
    v += g * g * r["square_share"]
    direction: Array = g / (xp.sqrt(v) + r["eps"])
    return direction


def _rmsprop(xp: Any, r: Rates, p: Array, g: Array, v: Array) -> None:
    p -= _normalized(xp, r, v, g) * r["lr"]


def _rmsprop_momentum(xp: Any, r: Rates, p: Array, g: Array, v: Array, m: Array) -> None:
    m *= r["momentum"]
    m += _normalized(xp, r, v, g)
    p -= m * r["lr"]


def _adam(xp: Any, r: Rates, p: Array, g: Array, m: Array, v: Array) -> None:
    m += (g - m) * r["mean_share"]
    v *= r["square_kept"]
    v += g * g * r["square_share"]
    p -= m / (xp.sqrt(v) / r["root_scale"] + r["eps"]) * r["lr"]


FORMULAS: dict[str, Callable[..., None]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "rmsprop": _rmsprop,
    "rmsprop_momentum": _rmsprop_momentum,
    "adam": _adam,
}
