"""Inputs of a decoder that is taught with the true sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers.arrays import Array
from ..layers.namespace import namespace_of, on_gpu


def shift_right(targets: Any, start: int | float = 0) -> Any:
    """Return the decoder's inputs for these targets: each sequence delayed by one step, ``start`` first.

    Parameters
    ----------
    targets : array_like (N, T) or (N, T, F), or list of N arrays (T_n,) or (T_n, F)
        Tokens or values, samples first. Unequal lengths stay as they are.
    start : int or float
        The start token, or the value of all features at the first step.

    Returns
    -------
    ndarray or list of ndarray
        Shaped as ``targets``, on their device.
    """
    if isinstance(targets, (list, tuple)):
        return [_delayed(np.asarray(target)[np.newaxis], start)[0] for target in targets]
    return _delayed(targets if on_gpu(targets) else np.asarray(targets), start)


def _delayed(target: Array, start: int | float) -> Array:
    if target.ndim < 2:
        raise ValueError(f"shift_right: targets has shape {target.shape}; expected (samples, time, ...)")
    inputs: Array = namespace_of(target).full_like(target, start)
    inputs[:, 1:] = target[:, :-1]
    return inputs
