"""The table that turns tokens into vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..allocation import claim_parameters
from ..arrays.accumulation import add_to_rows
from ..arrays.checks import Array, as_integer, as_real, check_shape, flag, integer, positive_int, random_generator
from ..arrays.namespace import distinct, from_host, to_host
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
    sparse : bool
        Whether a training step takes as long as the tokens of its batch need, however large the table: clearing,
        clipping and optimizers look only at the rows that ``backward`` has added to, and the gradient of others, which
        nobody else may write to, is taken for 0. For SGD without momentum and weight decay this changes nothing. With
        others what is kept of a row (means, momentum) stands still while its token does not occur, as in
        torch.optim.SparseAdam, and weight decay reaches it only then.
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

    _fixed = frozenset({"num_embeddings", "embedding_dim", "padding_idx", "sparse", "dtype"})

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        sparse: bool = False,
        dtype: Any = "float32",
        device: str = "cpu",
        seed: int | None = None,
    ) -> None:
        super().__init__(dtype=dtype, device=device)
        self.sparse = flag(self.op, "sparse", sparse)
        self._touched: list[Array] = []  # rows of the gradient, each array ascending; of a sparse one
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
            "sparse": self.sparse,
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
        if self.sparse:
            self._touched.append(distinct(self.xp, ids))
        add_to_rows(self.xp, self._grads["weight"], ids, dy)

    def input_shape(self) -> Shape:
        """Return (B, T): tokens may have any axes, and mostly these."""
        return "B", "T"

    def output_shape(self, x: Shape) -> Any:
        """Return x's shape with the axis of a vector after it."""
        return (*x, self.embedding_dim)

    def _zero_own_grads(self) -> None:
        if not self.sparse:
            super()._zero_own_grads()
        for rows in self._own_gradient_rows().values():
            self._grads["weight"][rows] = 0
        self._touched.clear()

    def _own_gradient_rows(self) -> dict[str, Array]:
        if not self.sparse:
            return {}
        if len(self._touched) != 1:
            joined = self.xp.concatenate([self.xp.zeros(0, dtype=np.int64), *self._touched])
            self._touched[:] = [distinct(self.xp, joined)]
        return {"weight": self._touched[0]}

    def _attributes_on(self, device: str) -> dict[str, Any]:
        attributes = super()._attributes_on(device)
        rows = [from_host(attributes["xp"], to_host(rows)) for rows in self._touched]
        return attributes | {"_touched": rows}

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
