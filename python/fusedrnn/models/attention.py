"""Attention over the steps of an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays.accumulation import add_to
from ..arrays.checks import Array, as_lengths, as_real, check_shape, positive_int, seed_sequence
from ..arrays.namespace import from_host
from ..arrays.products import row_products
from ..init import glorot_uniform
from ..layers import Linear, Tape, register_layer
from ..layers.activation import DERIVATIVES, softmax
from ..layers.protocol import Shape
from .model import Model

SCORES = ("dot", "general")


@register_layer
class Attention(Model):
    r"""Global attention of Luong et al. 2015: what each query h(t) reads from the memory m(1) ... m(S).

    .. math::

        \mathrm{score}(t, s) &= h(t) \cdot m(s) \;\text{ (dot) or }\; h(t)^T W m(s) \;\text{ (general)}, \\
        a(t, s) &= \mathrm{softmax}_s(\mathrm{score}(t, s)), \\
        k(t) &= \sum_s a(t, s)\, m(s), \\
        y(t) &= \tanh(W_c\, [k(t), h(t)]),

    over the valid s only (their equations 5, 7 and 8).

    Parameters
    ----------
    query_size, memory_size : int
        Sizes of h and m; equal for dot.
    score : {"dot", "general"}
        How a query is compared with the memory.
    dtype : {"float32", "float64"}
        Type of parameters, inputs and outputs.
    device : {"cpu", "cuda"}
        Where the arrays are. RuntimeError where there is no GPU.
    seed : int, optional
        Seed for the initial weights.

    Attributes
    ----------
    params : dict
        weight (query_size, memory_size) for general; combine.weight (query_size, memory_size + query_size).
    """

    takes = frozenset({"lengths"})
    _fixed = frozenset({"query_size", "memory_size", "score", "dtype"})

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        score: str = "dot",
        *,
        dtype: Any = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        self.query_size = positive_int(self.op, "query_size", query_size)
        self.memory_size = positive_int(self.op, "memory_size", memory_size)
        if score not in SCORES:
            raise ValueError(f"{self.op}: score is {score!r}; expected one of {', '.join(map(repr, SCORES))}")
        if score == "dot" and query_size != memory_size:
            raise ValueError(f"{self.op}: query_size is {query_size}; expected memory_size = {memory_size} for dot")
        self.score = score
        combine_seed, weight_seed = seed_sequence(self.op, seed).generate_state(2).tolist()
        combined = self.memory_size + self.query_size
        self.combine = Linear(combined, self.query_size, bias=False, dtype=dtype, device=device, seed=combine_seed)
        super().__init__(combine=self.combine)
        if score == "general":
            rng = np.random.default_rng(weight_seed)
            weight = glorot_uniform((self.query_size, self.memory_size), self.dtype, rng)
            self._set_parameters({"weight": weight})

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        sizes = {"query_size": self.query_size, "memory_size": self.memory_size}
        return {**sizes, "score": self.score, "dtype": self.dtype.name}

    def __call__(self, h: Any, memory: Any, lengths: Any = None) -> Array:
        """Compute y (B, T, query_size) in inference mode.

        Parameters
        ----------
        h : array_like (B, T, query_size)
            The queries.
        memory : array_like (B, S, memory_size)
            What is read; anything past the end.
        lengths : array_like of int (B,), optional
            Valid steps of the memory. Without one, the context is 0.
        """
        y: Array = self._run(False, h, memory, lengths)[0]
        return y

    def forward(self, h: Any, memory: Any, lengths: Any = None) -> tuple[Array, Tape]:
        """Compute (y, tape); arguments as in ``__call__``."""
        return self._run(True, h, memory, lengths)

    def weights(self, h: Any, memory: Any, lengths: Any = None) -> Array:
        """Return a (B, T, S): how much each query reads of each step; 0 past the memory's end."""
        return self._attend(*self._inputs(h, memory, lengths))[0]

    def backward(self, tape: Tape, dy: Any) -> tuple[Array, Array]:
        """Return (dh, dmemory) for dy, shaped as h."""
        h, projected, memory, a, y, combine_tape = self._saved(tape)
        dy = as_real(self.op, "dy", dy, self.dtype, self.xp)
        check_shape(self.op, "dy", dy, "h.shape", h.shape)
        joined = self.combine.backward(combine_tape, DERIVATIVES["tanh"](y, dy))
        dcontext, dh = joined[..., : self.memory_size], joined[..., self.memory_size :]
        # Where nothing is valid a is 0, and so is the softmax's gradient.
        dscores = DERIVATIVES["softmax"](a, row_products(dcontext, memory))
        dmemory = row_products(_turned(a), _turned(dcontext)) + row_products(_turned(dscores), _turned(projected))
        dprojected = row_products(dscores, _turned(memory))
        if self.score == "general":
            rows = dprojected.reshape(-1, self.memory_size)
            dprojected = row_products(rows, self._params["weight"]).reshape(h.shape)
            add_to(self._grads["weight"], row_products(h.reshape(-1, self.query_size).T, rows.T))
        return dh + dprojected, dmemory

    def input_shape(self) -> Shape:
        """Return (B, T, query_size), the queries'."""
        return "B", "T", self.query_size

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return the shape of the context beside the queries."""
        return {"combine": (*x[:-1], self.memory_size + self.query_size)}

    def _run(self, training: bool, h: Any, memory: Any, lengths: Any) -> tuple[Array, Tape]:
        h, memory, valid = self._inputs(h, memory, lengths)
        a, context, projected = self._attend(h, memory, valid)
        joined = self.xp.concatenate((context, h), axis=-1)
        combined, combine_tape = self.combine.forward(joined) if training else (self.combine(joined), None)
        y: Array = self.xp.tanh(combined)
        return y, self._witnessed(h, projected, memory, a, y, combine_tape) if training else Tape(self, ())

    def _attend(self, h: Array, memory: Array, valid: Array | None) -> tuple[Array, Array, Array]:
        """Return (a, context, h W)."""
        projected = h
        if self.score == "general":
            rows = row_products(h.reshape(-1, self.query_size), self._params["weight"].T)
            projected = rows.reshape(*h.shape[:2], self.memory_size)
        a = softmax(row_products(projected, memory), self.xp, valid)
        return a, row_products(a, _turned(memory)), projected

    def _inputs(self, h: Any, memory: Any, lengths: Any) -> tuple[Array, Array, Array | None]:
        """Return (h, memory, valid): memory is 0 past its end, valid (B, 1, S) or None where all of it is."""
        h = as_real(self.op, "h", h, self.dtype, self.xp)
        memory = as_real(self.op, "memory", memory, self.dtype, self.xp)
        if h.ndim != 3 or h.shape[2] != self.query_size:
            raise ValueError(f"{self.op}: h has shape {h.shape}; expected (batch, time, {self.query_size})")
        if memory.ndim != 3 or memory.shape[::2] != (len(h), self.memory_size):
            expected = f"(batch, steps, memory_size) = ({len(h)}, steps, {self.memory_size})"
            raise ValueError(f"{self.op}: memory has shape {memory.shape}; expected {expected}")
        if lengths is None:
            return h, memory, None
        batch, steps = memory.shape[:2]
        known = np.arange(steps) < as_lengths(self.op, lengths, batch, steps)[:, np.newaxis]
        if known.all():
            return h, memory, None
        valid = from_host(self.xp, known)
        return h, self.xp.where(valid[:, :, np.newaxis], memory, 0), valid[:, np.newaxis]


def _turned(x: Array) -> Array:
    """Return x (B, N, I) as (B, I, N), of the same memory."""
    return x.transpose(0, 2, 1)
