"""Additive noise."""

from __future__ import annotations

import math
from typing import Any

from ..arrays.checks import Array, as_real, check_shape, number, random_generator
from ..arrays.namespace import from_host
from .base import Layer, Tape
from .protocol import Shape
from .registry import register_layer


@register_layer
class GaussianNoise(Layer):
    """In training, add normal noise of standard deviation ``std``; in inference, nothing.

    It is drawn on the host: the same seed gives the same noise on every device.

    Parameters
    ----------
    std : float
        At least 0. May be changed.
    dtype : {"float32", "float64"}
        Type of x and y.
    device : {"cpu", "cuda"}
        Where the arrays are. RuntimeError where there is no GPU.
    seed : int, optional
        Seed for the noise.
    """

    def __init__(self, std: float, *, dtype: Any = "float32", device: str = "cpu", seed: int | None = None) -> None:
        super().__init__(dtype=dtype, device=device)
        self.std = std
        self._rng = random_generator(self.op, seed)

    @property
    def std(self) -> float:
        """Standard deviation, at least 0. May be changed."""
        return self._std

    @std.setter
    def std(self, value: float) -> None:
        std = number(self.op, "std", value)
        if not 0 <= std < math.inf:
            raise ValueError(f"{self.op}: std is {value}; expected a finite number >= 0")
        self._std = std

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"std": self.std, "dtype": self.dtype.name}

    def __call__(self, x: Any) -> Array:
        """Return x (...), real, as it is."""
        return as_real(self.op, "x", x, self.dtype, self.xp)

    def forward(self, x: Any) -> tuple[Array, Tape]:
        """Draw the noise and compute (y, tape)."""
        x = self(x)
        assert self._rng is not None
        noise = from_host(self.xp, self._rng.standard_normal(x.shape, dtype=x.dtype.type))
        y: Array = x + noise * x.dtype.type(self.std)
        return y, Tape(self, (x.shape,))

    def backward(self, tape: Tape, dy: Any) -> Array:
        """Return dx for dy, both shaped as x."""
        (shape,) = self._saved(tape)
        dx = as_real(self.op, "dy", dy, self.dtype, self.xp)
        check_shape(self.op, "dy", dx, "x.shape", shape)
        return dx

    def output_shape(self, x: Shape) -> Any:
        """Return x."""
        return x
