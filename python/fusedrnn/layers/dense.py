"""The affine layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..allocation import claim_parameters
from ..arrays.accumulation import add_to
from ..arrays.checks import Array, as_real, check_shape, flag, positive_int, random_generator
from ..arrays.products import row_products, row_sums
from ..init import check_init, glorot_uniform, torch_uniform
from .base import Layer, Tape
from .protocol import Shape
from .registry import register_layer


@register_layer
class Linear(Layer):
    r"""An affine map of the last axis: :math:`y = x W^T + b`.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of x and y.
    bias : bool
        Whether to add a bias b.
    dtype : {"float32", "float64"}
        Type of parameters, x and y.
    device : {"cpu", "cuda"}
        Where the arrays are. RuntimeError where there is no GPU.
    init : {"default", "torch"}
        default: Glorot weights and b = 0; torch: everything from U(-1/sqrt(in), 1/sqrt(in)).
    seed : int, optional
        Seed for the initial weights.

    Attributes
    ----------
    params : dict
        weight (out_features, in_features), and with ``bias`` bias (out_features,).

    Raises
    ------
    ValueError
        If a size is not positive or ``init`` unknown.
    """

    _fixed = frozenset({"in_features", "out_features", "bias", "dtype"})

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = "float32",
        device: str = "cpu",
        init: str = "default",
        seed: int | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.in_features = positive_int(self.op, "in_features", in_features)
        self.out_features = positive_int(self.op, "out_features", out_features)
        self.bias = flag(self.op, "bias", bias)
        check_init(self.op, init)
        claim_parameters(self.op, self.out_features * (self.in_features + self.bias), self.dtype)
        rng = random_generator(self.op, seed)
        shape = (self.out_features, self.in_features)
        if init == "torch":
            params = {"weight": torch_uniform(shape, self.in_features, self.dtype, rng)}
            if self.bias:
                params["bias"] = torch_uniform(shape[:1], self.in_features, self.dtype, rng)
        else:
            params = {"weight": glorot_uniform(shape, self.dtype, rng)}
            if self.bias:
                params["bias"] = np.zeros(shape[:1], self.dtype)
        self._set_parameters(params)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "dtype": self.dtype.name,
        }

    def __call__(self, x: Any) -> Array:
        """Compute y (..., out_features) from x (..., in_features), real."""
        return self._apply(self._input(x))

    def forward(self, x: Any) -> tuple[Array, Tape]:
        """Compute (y, tape). The tape refers to x: leave it as it is. ``backward`` reads the weight again."""
        x = self._input(x)
        return self._apply(x), self._witnessed(x)

    def backward(self, tape: Tape, dy: Any) -> Array:
        """Add into the gradients of weight and bias; return dx (..., in_features) for dy (..., out_features).

        Raises
        ------
        ValueError
            If ``tape`` or the shape of ``dy`` does not fit; on the cpu also if the parameters have changed since then.
        """
        (x,) = self._saved(tape)
        dy = as_real(self.op, "dy", dy, self.dtype, self.xp)
        check_shape(self.op, "dy", dy, "..., out_features", (*x.shape[:-1], self.out_features))
        rows = dy.reshape(-1, self.out_features)
        dx: Array = row_products(rows, self._params["weight"].T).reshape(x.shape)
        if self.trainable:  # all products come first: an interrupted one leaves the gradients as they were
            dweight = row_products(rows.T, x.reshape(-1, self.in_features).T)
            if self.bias:
                add_to(self._grads["bias"], row_sums(rows.T))
            add_to(self._grads["weight"], dweight)
        return dx

    def input_shape(self) -> Shape:
        """Return (..., in_features)."""
        return "...", self.in_features

    def output_shape(self, x: Shape) -> Any:
        """Return x's shape with out_features."""
        return (*x[:-1], self.out_features)

    def _input(self, x: Any) -> Array:
        array = as_real(self.op, "x", x, self.dtype, self.xp)
        if array.ndim == 0 or array.shape[-1] != self.in_features:
            expected = f"(..., in_features) = (..., {self.in_features})"
            raise ValueError(f"{self.op}: x has shape {array.shape}; expected {expected}")
        return array

    def _apply(self, x: Array) -> Array:
        rows = row_products(x.reshape(-1, self.in_features), self._params["weight"])
        if self.bias:
            bias = self._params["bias"]
            check_shape(self.op, "bias", bias, "out_features,", (self.out_features,))  # not one that NumPy stretches
            rows += bias
        y: Array = rows.reshape(*x.shape[:-1], self.out_features)
        return y
