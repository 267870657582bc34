"""Which windows of one series follow each other, and what that means for the samples that validate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array

VALIDATION = ("auto", "last", "random")
_ROUNDING = 1e-6  # share of the largest value within which a target is the next value of a series


def stride_of(windows: Array) -> int:
    """Return by how many steps each window (N, T, F) starts after the one before; 0 if most do not overlap so."""
    steps = windows.shape[1]
    for stride in range(1, steps):
        if len(windows) > 1 and np.array_equal(windows[-1, :-stride], windows[-2, stride:]):
            alike: Array = (windows[1:, :-stride] == windows[:-1, stride:]).all(axis=(1, 2))
            if 2 * np.count_nonzero(alike) > len(alike):
                return stride
    return 0


def targets_continue(windows: Any, target: Array, stride: int) -> bool:
    """Return whether most targets (N, K, F) are what follows their window (N, T, F), as the next window shows."""
    shown = min(stride, target.shape[1])
    if not shown:
        return False
    steps = windows.shape[1]
    following = windows[1:, steps - stride : steps - stride + shown]
    near = np.abs(following - target[:-1, :shown]) <= _ROUNDING * np.abs(windows).max()
    alike = near.all(axis=(1, 2))
    return bool(alike[-1]) and bool(2 * np.count_nonzero(alike) > len(alike))


def split(
    op: str, count: int, fraction: float, validation: str, gap: int, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the samples to learn from, and those that validate: the last ones, or random ones.

    Parameters
    ----------
    op : str
        For messages.
    count : int
        Samples.
    fraction : float
        Share that validates, in [0, 1).
    validation : {"last", "random"}
        Which ones.
    gap : int
        Samples before the last ones that are left out, as they overlap with them.
    rng : numpy.random.Generator
        For random ones.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"{op}: validation_fraction is {fraction}; expected a number in [0, 1)")
    held = int(fraction * count)
    if fraction and not held:
        raise ValueError(f"{op}: validation_fraction is {fraction}, none of {count} samples; expected at least 1")
    if not held:
        return np.arange(count), np.arange(0)
    if validation == "random":
        order = rng.permutation(count)
        return np.sort(order[held:]), order[:held]
    if count - held - gap < 1:
        raise ValueError(
            f"{op}: validation_fraction is {fraction}, {held} of {count} samples, and {gap} before them overlap with "
            "them; expected samples that are left to learn from"
        )
    return np.arange(count - held - gap), np.arange(count - held, count)
