"""Inverted dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays.checks import Array, as_real, check_shape, parse_dtype, probability, random_generator
from ..arrays.namespace import from_host
from .base import Layer, Tape
from .protocol import Shape
from .registry import register_layer


@register_layer
class Dropout(Layer):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p); in inference, nothing.

    The masks come from a generator of the layer's own, on the host: the same seed gives the same sequence of masks on
    every device. Srivastava et al. 2014.

    Parameters
    ----------
    p : float
        Probability in [0, 1]. May be changed.
    dtype : {"float32", "float64"}, optional
        Type of x and y. None keeps the input's type if it is one of these and converts to float32 otherwise.
    device : {"cpu", "cuda"}
        Where the arrays are. RuntimeError where there is no GPU.
    seed : int, optional
        Seed for the masks.
    """

    def __init__(self, p: float = 0.5, *, dtype: Any = None, device: str = "cpu", seed: int | None = None) -> None:
        super().__init__(device=device)
        self.p = p
        self._kept_dtype = None if dtype is None else parse_dtype(self.op, dtype)
        self._rng = random_generator(self.op, seed)

    @property
    def p(self) -> float:
        """Probability with which, in training, an element is zeroed. May be changed."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        self._p = probability(self.op, "p", value)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"p": self.p, "dtype": None if self._kept_dtype is None else self._kept_dtype.name}

    def __call__(self, x: Any) -> Array:
        """Return x (...), real, as it is."""
        return as_real(self.op, "x", x, self._kept_dtype, self.xp)

    def forward(self, x: Any) -> tuple[Array, Tape]:
        """Draw a mask and compute (y, tape)."""
        x = self(x)
        mask = dropout_mask(x.shape, self.p, x.dtype, self._rng, self.xp)
        return x * mask, Tape(self, (mask,))

    def output_shape(self, x: Shape) -> Any:
        """Return x."""
        return x

    def backward(self, tape: Tape, dy: Any) -> Array:
        """Return dx for dy, both shaped as x."""
        (mask,) = self._saved(tape)
        dy = as_real(self.op, "dy", dy, mask.dtype, self.xp)
        check_shape(self.op, "dy", dy, "x.shape", mask.shape)
        dx: Array = dy * mask
        return dx


def dropout_mask(
    shape: tuple[int, ...], p: float, dtype: np.dtype[Any], rng: np.random.Generator | None, xp: Any = np
) -> Array:
    """Draw an array of the namespace with 0 (with probability p) and 1 / (1 - p)."""
    if rng is None:
        raise ValueError("dropout_mask: rng is None; expected a random generator")
    keep = from_host(xp, rng.random(shape, dtype=np.float32) >= p)
    mask: Array = keep.astype(dtype)
    mask *= 0.0 if p == 1 else 1.0 / (1.0 - p)
    return mask
