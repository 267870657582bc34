"""Weights in 8 bits: a matrix as integers with a scale for each row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..arrays.checks import Array

_STEPS = 127  # on either side of 0


def quantized(op: str, params: Mapping[str, Array]) -> dict[str, Array]:
    """Return the parameters of a recurrent layer with int8 weights, and behind those of each direction their scales.

    Raises
    ------
    ValueError
        If weights are not finite.
    """
    made: dict[str, Array] = {}
    suffixes = dict.fromkeys(name[name.rindex("_l") :] for name in params)
    for suffix in suffixes:
        scales: dict[str, Array] = {}
        for name, array in params.items():
            if name[name.rindex("_l") :] != suffix:
                continue
            if name.startswith("weight_"):
                made[name], scales[name.replace("weight", "scale", 1)] = integers(op, name, array)
            else:
                made[name] = array
        made |= scales
    return made


def integers(op: str, name: str, weight: Array) -> tuple[Array, Array]:
    """Return the integers (rows, columns), int8, and the scales (rows,) whose product is nearest to a matrix."""
    largest = np.abs(weight).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        raise ValueError(f"{op}: {name} has values that are not finite; expected weights that can be quantized")
    scale = np.maximum(largest / np.float32(_STEPS), np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(weight / scale[:, None]).astype(np.int8), scale
