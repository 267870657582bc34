"""Time steps that a value marks as missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array, as_array, as_real, check_shape, flag, number
from ..arrays.lengths import valid_steps
from ..layers import Layer, Tape, register_layer
from ..layers.calling import first, run
from ..layers.protocol import Shape, output_of
from ..layers.registry import layer_from_spec, layer_spec
from .model import Model


@register_layer
class Masked(Model):
    """Leave time steps out, wherever they are, whose token or whose features all are ``mask_value``.

    The layer gets the other steps of each sample, moved together, with their number as its lengths: its state passes
    over what is left out. Its outputs go back to their steps.

    Parameters
    ----------
    layer : Layer
        From (B, T, I) or tokens (B, T), to (B, T, F) or (B, F). It takes lengths.
    mask_value : float
        The token, or the value of all features, of a step to leave out.
    repeat : bool
        What y is at a step that is left out: the y of the last step before it that is not (0 without one), or 0.

    Raises
    ------
    TypeError
        If ``layer`` takes no lengths.
    """

    takes = frozenset({"lengths"})
    _fixed = frozenset({"mask_value", "repeat"})

    def __init__(self, layer: Layer, mask_value: float = 0.0, *, repeat: bool = False) -> None:
        super().__init__(layer=layer)
        if "lengths" not in layer.takes:
            raise TypeError(f"{self.op}: layer is {layer!r}; expected a layer that takes lengths")
        self._needs_cpu("it")
        self.layer = layer
        self.mask_value = number(self.op, "mask_value", mask_value)
        self.repeat = flag(self.op, "repeat", repeat)

    def config(self) -> dict[str, Any]:
        """Return the layer's specification and the other arguments."""
        return {"layer": layer_spec(self.layer), "mask_value": self.mask_value, "repeat": self.repeat}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Masked:
        """Make a model from what ``config`` returned."""
        return cls(layer_from_spec(config["layer"]), config["mask_value"], repeat=config["repeat"])

    def __call__(self, x: Any, lengths: Any = None) -> Array:
        """Compute y, without a state, in inference mode.

        Parameters
        ----------
        x : array_like (B, T, I), or integers (B, T) where the layer reads tokens
            The input.
        lengths : array_like of int (B,), optional
            Steps past these are left out as well.
        """
        return self._run(False, x, lengths)[0]

    def forward(self, x: Any, lengths: Any = None) -> tuple[Array, Tape]:
        """Compute (y, tape) in training mode; arguments as in ``__call__``."""
        return self._run(True, x, lengths)

    def backward(self, tape: Tape, dy: Any) -> Array | None:
        """Return dx for dy, shaped as y; 0 at the steps that were left out; None for tokens."""
        layer_tape, mask, order, shape = self._saved(tape)
        d = as_real(self.op, "dy", dy, self.dtype)
        check_shape(self.op, "dy", d, "y.shape", shape)
        if len(shape) == 3:
            at, some = self._sources(mask)
            together = np.zeros(shape, self.dtype)
            np.add.at(together, (np.arange(len(at))[:, None], at), np.where(some[..., None], d, 0))
            d = together
        dx = first(self.layer.backward(layer_tape, d))
        if dx is None:
            return None
        apart = np.zeros_like(dx)
        np.put_along_axis(apart, order[..., None], dx, axis=1)
        kept: Array = np.where(mask[..., None], apart, dx.dtype.type(0))
        return kept

    def input_shape(self) -> Shape:
        """Return what the layer reads."""
        return self.layer.input_shape()

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the layer."""
        return {"layer": x}

    def output_shape(self, x: Shape) -> Any:
        """Return the shape of the layer's y."""
        return output_of(self.layer, x)

    def _run(self, training: bool, x: Any, lengths: Any) -> tuple[Array, Tape]:
        self._needs_cpu("it")
        tokens = len(self.layer.input_shape()) == 2
        x = as_array(self.op, "x", x) if tokens else as_real(self.op, "x", x, self.dtype)
        if x.ndim != 3 - tokens:
            expected = "(batch, time)" if tokens else "(batch, time, features)"
            raise ValueError(f"{self.op}: x has shape {x.shape}; expected {expected}")
        mask: NDArray[np.bool_] = x != self.mask_value if tokens else (x != self.mask_value).any(axis=2)
        if lengths is not None:
            mask = mask & valid_steps(self.op, lengths, *x.shape[:2])
        order = np.argsort(~mask, axis=1, kind="stable")
        together = np.take_along_axis(x, order if tokens else order[..., None], axis=1)
        outputs, layer_tape = run(self.layer, training, together, lengths=mask.sum(axis=1))
        y: Array = first(outputs)
        if y.ndim == 3:
            at, some = self._sources(mask)
            y = np.where(some[..., None], np.take_along_axis(y, at[..., None], axis=1), y.dtype.type(0))
        return y, Tape(self, (layer_tape, mask, order, y.shape))

    def _sources(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return for each step which of the steps moved together its y is, and whether it is one at all."""
        at = mask.cumsum(axis=1) - 1
        some = at >= 0 if self.repeat else mask
        return np.maximum(at, 0), some
