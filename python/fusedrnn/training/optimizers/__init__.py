"""The optimizers: what they share is in ``base``, their formulas are in ``rules``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ...arrays.checks import check_takes, described, one_of
from ...layers.base import Layer
from .base import Optimizer
from .rules import SGD, Adam, AdamW, RMSprop

__all__ = ["OPTIMIZERS", "SGD", "Adam", "AdamW", "MakeOptimizer", "Optimizer", "RMSprop", "get_optimizer"]

MakeOptimizer: TypeAlias = Callable[[Layer], Optimizer]

OPTIMIZERS: dict[str, MakeOptimizer] = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def get_optimizer(optimizer: str | Optimizer | MakeOptimizer, layer: Layer, op: str) -> Optimizer:
    """Return an optimizer of ``layer``: by name with default arguments, made by a callable, or as it is.

    Raises
    ------
    ValueError
        If the name is unknown or the optimizer belongs to another layer.
    TypeError
        If it is none of these.
    """
    if isinstance(optimizer, str):
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"{op}: optimizer is {optimizer!r}; expected {one_of(optimizer, OPTIMIZERS)}")
        return OPTIMIZERS[optimizer](layer)
    if not isinstance(optimizer, Optimizer) and not callable(optimizer):
        raise TypeError(
            f"{op}: optimizer is {described(optimizer)}; expected an Optimizer, a callable that makes one, or "
            f"one of {', '.join(OPTIMIZERS)}"
        )
    if not isinstance(optimizer, Optimizer):
        check_takes(op, "optimizer", optimizer, "optimizer(layer)")
    result: Any = optimizer if isinstance(optimizer, Optimizer) else optimizer(layer)
    if not isinstance(result, Optimizer) or result.layer is not layer:
        raise ValueError(f"{op}: optimizer belongs to another layer; expected one made for this model")
    return result
