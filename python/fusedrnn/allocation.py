"""How much memory parameters may take: a fixed bound always, the size of the file while one is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

# 1 TiB. A request above it is a mistake; some systems would promise that memory and kill the process when it is used.
LARGEST_BYTES = 2**40


class _Budget:
    def __init__(self, size: int) -> None:
        self.left = size


_budget: ContextVar[_Budget | None] = ContextVar("fusedrnn_parameter_budget", default=None)


def claim_parameters(op: str, count: int, dtype: np.dtype[Any]) -> None:
    """Announce ``count`` parameters before they are allocated.

    Raises
    ------
    ValueError
        If they are too many: for any machine, or for the file that is being loaded.
    """
    check_parameters(op, count, dtype)
    budget = _budget.get()
    if budget is not None:
        budget.left -= count * dtype.itemsize


def check_parameters(op: str, count: int, dtype: np.dtype[Any]) -> None:
    """Raise the ValueError of ``claim_parameters`` without a claim, for what is claimed in parts."""
    size = count * dtype.itemsize
    if size > LARGEST_BYTES:
        raise ValueError(f"{op}: {count} parameters need {size} bytes; expected at most {LARGEST_BYTES}")
    budget = _budget.get()
    if budget is not None and size > budget.left:
        raise ValueError(f"{op}: {count} parameters need {size} bytes; the file has {budget.left} left for them")


@contextmanager
def parameters_from_file(size_bytes: int) -> Iterator[None]:
    """Inside, layers may claim at most ``size_bytes`` in all, and their random initialisation is skipped."""
    token = _budget.set(_Budget(size_bytes))
    try:
        yield
    finally:
        _budget.reset(token)


def initialisation_is_skipped() -> bool:
    """Say whether parameters are about to be overwritten from a file."""
    return _budget.get() is not None
