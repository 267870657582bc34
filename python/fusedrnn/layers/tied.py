"""The affine layer that uses another one's weights the other way."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays.accumulation import add_to
from ..arrays.checks import Array, as_real, check_shape
from ..arrays.products import row_products, row_sums
from .base import Layer, Tape
from .dense import Linear
from .parameters import witness_of
from .protocol import Shape


class TiedLinear(Layer):
    r"""The map :math:`y = x W + b`, with the W (out_features, in_features) of ``linear``, which gets its gradient.

    Parameters
    ----------
    linear : Linear
        From (..., in_features) to (..., out_features); this layer goes back. It does not become a child: only b (in
        features) is a parameter here.
    """

    def __init__(self, linear: Linear) -> None:
        super().__init__(dtype=linear.dtype, device=linear.device)
        self.linear = linear
        self.in_features, self.out_features = linear.out_features, linear.in_features
        self._set_parameters({"bias": np.zeros(self.out_features, self.dtype)})

    def config(self) -> dict[str, Any]:
        """Return the sizes; the weights belong to another layer, so that this one is saved with its model only."""
        return {"in_features": self.in_features, "out_features": self.out_features}

    def __call__(self, x: Any) -> Array:
        """Compute y (..., out_features) from x (..., in_features), real."""
        x = as_real(self.op, "x", x, self.dtype, self.xp)
        check_shape(self.op, "x", x, "..., in_features", (*x.shape[:-1], self.in_features))
        y: Array = row_products(x.reshape(-1, self.in_features), self.linear._params["weight"].T)
        y += self._params["bias"]
        return y.reshape(*x.shape[:-1], self.out_features)

    def forward(self, x: Any) -> tuple[Array, Tape]:
        """Compute (y, tape)."""
        x = as_real(self.op, "x", x, self.dtype, self.xp)
        return self(x), self._witnessed(x)

    def backward(self, tape: Tape, dy: Any) -> Array:
        """Return dx for dy; add into the gradients of the shared weight and of b."""
        (x,) = self._saved(tape)
        dy = as_real(self.op, "dy", dy, self.dtype, self.xp)
        check_shape(self.op, "dy", dy, "..., out_features", (*x.shape[:-1], self.out_features))
        rows = dy.reshape(-1, self.out_features)
        # All products come first: an interrupted one leaves the gradients as they were.
        dx: Array = row_products(rows, self.linear._params["weight"]).reshape(x.shape)
        dweight = row_products(x.reshape(-1, self.in_features).T, rows.T)
        add_to(self._grads["bias"], row_sums(rows.T))
        add_to(self.linear._grads["weight"], dweight)
        return dx

    def _witness(self) -> int:
        return witness_of(self.linear)

    def input_shape(self) -> Shape:
        """Return (..., in_features)."""
        return "...", self.in_features

    def output_shape(self, x: Shape) -> Any:
        """Return x's shape with out_features."""
        return (*x[:-1], self.out_features)
