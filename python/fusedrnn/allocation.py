"""How much parameters may take: a fixed bound always, what a file holds while one is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

# 1 TiB. A request above it is a mistake; some systems would promise that memory and kill the process when it is used.
LARGEST_BYTES = 2**40
DEEPEST = 64  # layers inside layers


class Bounds:
    """What a file may ask for.

    Parameters
    ----------
    size : int
        Bytes of all parameters.
    names : int
        Names of parameters: of one layer that occurs twice there are two.
    parts : int
        Layers, each occurrence counted.
    """

    def __init__(self, size: float, names: float, parts: float) -> None:
        self.left = size
        self.names = names
        self.parts = parts


_bounds: ContextVar[Bounds | None] = ContextVar("fusedrnn_bounds", default=None)


def claim_parameters(op: str, count: int, dtype: np.dtype[Any]) -> None:
    """Announce ``count`` parameters before they are allocated.

    Raises
    ------
    ValueError
        If they are too many: for any machine, or for the file that is being loaded.
    """
    check_parameters(op, count, dtype)
    bounds = _bounds.get()
    if bounds is not None:
        bounds.left -= count * dtype.itemsize


def check_parameters(op: str, count: int, dtype: np.dtype[Any]) -> None:
    """Raise the ValueError of ``claim_parameters`` without a claim, for what is claimed in parts."""
    size = count * dtype.itemsize
    if size > LARGEST_BYTES:
        raise ValueError(f"{op}: {count} parameters need {size} bytes; expected at most {LARGEST_BYTES}")
    bounds = _bounds.get()
    if bounds is not None and size > bounds.left:
        raise ValueError(f"{op}: {count} parameters need {size} bytes; the file has {bounds.left} left for them")


class Extent(NamedTuple):
    """How large a layer is, each occurrence of one inside it counted: its parameters, itself and its layers, levels."""

    names: int = 0
    parts: int = 1
    depth: int = 1

    def around(self, inner: Extent) -> Extent:
        """Return the extent with another layer inside."""
        return Extent(self.names + inner.names, self.parts + inner.parts, max(self.depth, inner.depth + 1))


def check_extent(op: str, extent: Extent) -> None:
    """Raise ValueError if a layer is larger than the file that is being loaded speaks of."""
    bounds = _bounds.get()
    if bounds is None:
        return
    if extent.names > bounds.names:
        raise ValueError(
            f"{op}: the configuration names {extent.names} parameters or more; the file has {bounds.names}"
        )
    if extent.parts > bounds.parts:
        raise ValueError(f"{op}: the configuration has {extent.parts} layers or more; expected at most {bounds.parts}")
    if extent.depth > DEEPEST:
        raise ValueError(f"{op}: the configuration is nested too deeply; expected at most {DEEPEST} layers deep")


@contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """Inside, layers may take what a file holds, and their random initialisation is skipped."""
    token = _bounds.set(bounds)
    try:
        yield
    finally:
        _bounds.reset(token)


def unbounded() -> AbstractContextManager[None]:
    """Inside, the random initialisation of layers is skipped."""
    return bounded(Bounds(LARGEST_BYTES, float("inf"), float("inf")))


def initialisation_is_skipped() -> bool:
    """Return whether parameters are about to be overwritten from a file."""
    return _bounds.get() is not None
