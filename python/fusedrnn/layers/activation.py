"""Elementwise functions as layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_real, check_shape, parse_dtype
from ..arrays.products import row_sums
from .base import Layer, Tape
from .protocol import Shape
from .registry import register_layer


def sigmoid(x: Array, xp: Any = np) -> Array:
    """1 / (1 + exp(-x)), without overflow: tanh saturates where exp would not."""
    y: Array = xp.tanh(0.5 * x)
    y += 1
    y *= 0.5
    return y


def softmax(x: Array, xp: Any = np, valid: Array | None = None) -> Array:
    """exp(x) / sum(exp(x)) over the last axis; the maximum is taken off first, so that nothing overflows.

    Where ``valid``, which broadcasts to x, is False, y is 0, whatever x; so is a row that has nothing valid.
    """
    if x.size == 0:
        return xp.exp(x)  # type: ignore[no-any-return]
    if valid is not None:
        x = xp.where(valid, x, -np.inf)
    largest = x.max(axis=-1, keepdims=True)
    if valid is not None:
        largest = xp.where(largest == -np.inf, 0, largest)
    y: Array = xp.exp(x - largest)
    total = row_sums(y)[..., np.newaxis]
    y /= total if valid is None else xp.where(total == 0, 1, total)
    return y


# y from x and the namespace that computes with it.
FUNCTIONS: dict[str, Callable[[Array, Any], Array]] = {
    "identity": lambda x, xp: x,
    "tanh": lambda x, xp: xp.tanh(x),
    "sigmoid": sigmoid,
    "relu": lambda x, xp: xp.maximum(x, 0),
    "softmax": softmax,
}
# dx from the output y and dy: none of these functions needs its input again.
DERIVATIVES: dict[str, Callable[[Array, Array], Array]] = {
    "identity": lambda y, dy: dy,
    "tanh": lambda y, dy: dy * (1 - y * y),
    "sigmoid": lambda y, dy: dy * y * (1 - y),
    "relu": lambda y, dy: dy * (y > 0),
    "softmax": lambda y, dy: y * (dy - row_sums(dy * y)[..., np.newaxis]),
}


@register_layer
class Activation(Layer):
    """y = f(x).

    Parameters
    ----------
    function : {"identity", "tanh", "sigmoid", "relu", "softmax"}
        softmax is over the last axis; relu has derivative 0 at 0.
    dtype : {"float32", "float64"}, optional
        Type of x and y. None keeps the input's type if it is one of these and converts to float32 otherwise.
    device : {"cpu", "cuda"}
        Where the arrays are. RuntimeError where there is no GPU.
    """

    _fixed = frozenset({"function"})

    def __init__(self, function: str, *, dtype: Any = None, device: str = "cpu") -> None:
        super().__init__(device=device)
        if function not in FUNCTIONS:
            raise ValueError(f"{self.op}: function is {function!r}; expected one of {', '.join(FUNCTIONS)}")
        self.function = function
        self._kept_dtype = None if dtype is None else parse_dtype(self.op, dtype)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"function": self.function, "dtype": None if self._kept_dtype is None else self._kept_dtype.name}

    def __call__(self, x: Any) -> Array:
        """Compute y, shaped as x (...), real; softmax needs at least one axis."""
        x = as_real(self.op, "x", x, self._kept_dtype, self.xp)
        if self.function == "softmax" and x.ndim == 0:
            raise ValueError(f"{self.op}: x has shape (); expected (..., features)")
        y = FUNCTIONS[self.function](x, self.xp)
        return y if x.ndim else self.xp.asarray(y)  # of no axes, NumPy makes a number

    def forward(self, x: Any) -> tuple[Array, Tape]:
        """Compute (y, tape). The tape refers to y: leave y as it is until ``backward`` (on the cpu it is read-only)."""
        y = self(x)
        tape = Tape(self, (y,))
        if self.device == "cpu":
            y = y.view()
            y.flags.writeable = False
        return y, tape

    def output_shape(self, x: Shape) -> Any:
        """Return x."""
        return x

    def backward(self, tape: Tape, dy: Any) -> Array:
        """Return dx for dy, both shaped as x."""
        (y,) = self._saved(tape)
        dy = as_real(self.op, "dy", dy, y.dtype, self.xp)
        check_shape(self.op, "dy", dy, "x.shape", y.shape)
        return DERIVATIVES[self.function](y, dy)
