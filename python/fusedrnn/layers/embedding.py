"""The table that turns tokens into vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..allocation import claim_parameters
from ..arrays.accumulation import add_to_rows
from ..arrays.checks import Array, as_integer, as_real, check_shape, integer, positive_int, random_generator
from ..init import normal
from .base import Layer, Tape
from .protocol import Shape
from .registry import register_layer


@register_layer
class Embedding(Layer):
    """y = weight[ids].

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Number of tokens and length of a vector.
    padding_idx : int, optional
        A token whose vector starts at 0 and gets no gradient; negative ones count from the end, as in torch.
    dtype : {"float32", "float64"}
        Type of weight and y.
    device : {"cpu", "cuda"}
        Where the arrays are. RuntimeError where there is no GPU.
    seed : int, optional
        Seed for the initial weights, which are standard normal.

    Attributes
    ----------
    params : dict
        weight (num_embeddings, embedding_dim).

    Raises
    ------
    ValueError
        If a size is not positive or ``padding_idx`` is not a row of the table.
    """

    _fixed = frozenset({"num_embeddings", "embedding_dim", "padding_idx", "dtype"})

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: Any = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.num_embeddings = positive_int(self.op, "num_embeddings", num_embeddings)
        self.embedding_dim = positive_int(self.op, "embedding_dim", embedding_dim)
        self.padding_idx = None if padding_idx is None else self._row(padding_idx)
        claim_parameters(self.op, self.num_embeddings * self.embedding_dim, self.dtype)
        weight = normal((self.num_embeddings, self.embedding_dim), self.dtype, random_generator(self.op, seed))
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0
        self._set_parameters({"weight": weight})

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "padding_idx": self.padding_idx,
            "dtype": self.dtype.name,
        }

    def __call__(self, ids: Any) -> Array:
        """Look up ids (...), integers in [0, num_embeddings); return (..., embedding_dim).

        Raises
        ------
        TypeError
            If the dtype of ``ids`` is not an integer.
        ValueError
            If an id is outside the table; the message names it and its place.
        """
        return self._look_up(self._ids(ids))

    def forward(self, ids: Any) -> tuple[Array, Tape]:
        """Compute (y, tape)."""
        ids = self._ids(ids)
        return self._look_up(ids), Tape(self, (ids.copy(),))

    def backward(self, tape: Tape, dy: Any) -> None:
        """Add dy (..., embedding_dim) into the rows that were looked up; ids have no gradient, so return None."""
        (ids,) = self._saved(tape)
        dy = as_real(self.op, "dy", dy, self.dtype, self.xp)
        check_shape(self.op, "dy", dy, "..., embedding_dim", (*ids.shape, self.embedding_dim))
        if not self.trainable:
            return
        if self.padding_idx is not None:
            kept = ids != self.padding_idx
            ids, dy = ids[kept], dy[kept]
        add_to_rows(self.xp, self._grads["weight"], ids, dy)

    def input_shape(self) -> Shape:
        """Return (B, T): tokens may have any axes, and mostly these."""
        return "B", "T"

    def output_shape(self, x: Shape) -> Any:
        """Return x's shape with the axis of a vector after it."""
        return (*x, self.embedding_dim)

    def _look_up(self, ids: Array) -> Array:
        y: Array = self._params["weight"][ids]
        return y

    def _ids(self, ids: Any) -> Array:
        array = as_integer(self.op, "ids", ids, self.xp)
        wrong = (array < 0) | (array >= self.num_embeddings)
        if wrong.any():
            at = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
            raise ValueError(f"{self.op}: ids has {int(array[at])} at {at}; expected 0 <= id < {self.num_embeddings}")
        return array

    def _row(self, padding_idx: int) -> int:
        row = integer(self.op, "padding_idx", padding_idx)
        if not -self.num_embeddings <= row < self.num_embeddings:
            raise ValueError(f"{self.op}: padding_idx is {row}; expected a row of {self.num_embeddings} embeddings")
        return row % self.num_embeddings
