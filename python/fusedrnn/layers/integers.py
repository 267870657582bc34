"""Weights in 8 bits: a matrix as integers with a scale for each row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import numpy as np

from ..arrays.checks import Array, brief
from .base import Layer
from .parameters import Parameters
from .variants import Variant

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


class IntegerWeights(Layer):
    """A recurrent layer whose weights may become integers; it then computes, and does not learn."""

    variant: Variant
    proj_size: int
    _quantized_inputs: str | None = None  # what x becomes in a layer whose weights are int8

    @property
    def quantized(self) -> str | None:
        """What the weights are in a copy that ``fusedrnn.quantize`` made, "int8"; else None."""
        return "int8" if self._quantized_inputs else None

    @property
    def quantization(self) -> dict[str, str] | None:
        """How: {"weights": "int8", "inputs": what x becomes}, or None."""
        return {"weights": "int8", "inputs": self._quantized_inputs} if self._quantized_inputs else None

    def _set_quantization(self, quantization: Any) -> None:
        """Do to this layer what ``quantization`` says of another."""
        if quantization is None:
            return
        made = [{"weights": "int8", "inputs": inputs} for inputs in ("int8", "int16")]
        if quantization not in made or not self.variant.plain or self.proj_size or self.dtype != np.float32:
            raise ValueError(
                f"{self.op}: quantized is {brief(quantization)}; expected {made[0]} and a plain float32 cell"
            )
        self._set_quantized(quantization["inputs"])

    def _set_quantized(self, inputs: str) -> None:
        """Turn the weights into integers, for inference from now on."""
        params = quantized(self.op, self._params)
        self._quantized_inputs = inputs
        self._params = Parameters(params)
        self._grads = {}
        self._in_order = itemgetter(*params)
        self._trainable = False
        self._make_kernels()

    def _refuse_training(self, what: str) -> None:
        raise RuntimeError(
            f"{self.op}: {what} is for training, and these weights are {self.quantized}; expected the float32 layer "
            "that fusedrnn.quantize was given"
        )

    @abstractmethod
    def _make_kernels(self) -> None:
        """Make the kernels for what the weights are now."""
