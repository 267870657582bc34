"""One output per sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array
from ..arrays.lengths import unragged
from ..layers import Embedding, Layer, Tape, register_layer
from ..layers.activation import softmax
from ..layers.calling import (
    backward_on,
    check_carried,
    check_gradients,
    check_resets,
    clean_input,
    first,
    run_layer,
    run_on,
    runs_in_training,
)
from ..layers.protocol import Shape, output_of
from ..layers.states import StateSizes, add_states
from ..layers.stream import ChainStream, check_steps
from .model import (
    Model,
    batch_lengths,
    check_rank,
    embed,
    final_features,
    make_head,
    optional_layer,
    output_features,
    unembed,
)
from .pooling import POOLINGS, pooled, pooled_features, unpooled


@register_layer
class SequenceToVector(Model):
    """A sequence in, one vector out: the head of the last state, or of the mean or maximum over the valid steps.

    Parameters
    ----------
    layer : Layer
        RNN, LSTM, GRU, Bidirectional, Residual, or any other from (B, T, I) to (B, T, H).
    head : Layer or int
        Maps the pooled vector to the outputs; a number stands for a Linear with that many.
    pooling : {"last", "mean", "max"}
        last: the last layer's final h, of both directions side by side (for other layers than RNN, LSTM, GRU and
        Bidirectional: y at the last valid step).
    embedding : Embedding, optional
        For inputs that are tokens.
    seed : int, optional
        Seed for the weights of a head given as a number.

    Examples
    --------
    >>> model = SequenceToVector(GRU(16, 64), 2, embedding=Embedding(5000, 16))
    >>> fit(model, reviews, labels, loss="cross_entropy", epochs=5, batch_size=32)  # lists of token arrays will do
    """

    takes = frozenset({"lengths", "resets"})
    _fixed = frozenset({"pooling"})

    def __init__(
        self,
        layer: Layer,
        head: Any,
        *,
        pooling: str = "last",
        embedding: Embedding | None = None,
        seed: int | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"{self.op}: pooling is {pooling!r}; expected one of {', '.join(map(repr, POOLINGS))}")
        self.embedding, self.layer, self.pooling = embedding, layer, pooling
        features = None
        if not isinstance(head, Layer):
            last = pooling == "last"
            features = (final_features if last else output_features)(self.op, "layer", layer)
        self.head = make_head(self.op, head, layer, features, seed)
        super().__init__(embedding=embedding, layer=layer, head=self.head)

    def config(self) -> dict[str, Any]:
        """Return the specifications of the children and the pooling."""
        return {"pooling": self.pooling} | {name: self._spec(name) for name in ("layer", "head", "embedding")}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SequenceToVector:
        """Make a model from what ``config`` returned."""
        children: dict[str, Any] = {name: optional_layer(config[name]) for name in ("layer", "head", "embedding")}
        return cls(**children, pooling=config["pooling"])

    def __call__(
        self, x: Any, lengths: Any = None, *, state: Any = None, return_state: bool = False, resets: Any = None
    ) -> Any:
        """Compute the outputs (B, O) in inference mode.

        Parameters
        ----------
        x : array_like (B, T, I), or integers (B, T) with an embedding
            The input.
        lengths : array_like of int (B,), optional
            Valid time steps of each sample. Without one, the pooled vector is 0.
        state : optional
            The initial state of the layer, as it takes it; zeros by default.
        return_state : bool
            Return (y, state) with the final state instead, from which another call may go on.
        resets : array_like of bool (B, T), optional
            Before a marked step the state of the layer is zero again.
        """
        return self._run(False, x, lengths, state, return_state, resets)[0]

    def forward(
        self, x: Any, lengths: Any = None, *, state: Any = None, return_state: bool = False, resets: Any = None
    ) -> tuple[Any, Tape]:
        """Compute (y, tape), or ((y, state), tape), in training mode; arguments as in ``__call__``."""
        return self._run(True, x, lengths, state, return_state, resets)

    def backward(self, tape: Tape, dy: Any, dstate: Any = None) -> Any:
        """Return dx for dy (B, O); None for tokens, or above a frozen layer.

        For a tape with ``return_state=True``, return (dx, dstate0); ``dstate`` is the gradient of the final state, and
        dy may be None where that is given.
        """
        embed_tape, layer_tape, pool_tape, head_tape, shape, lengths, carried = self._saved(tape)
        check_gradients(self.op, carried, dy, dstate)
        dh: Array | None = None
        final: Any = None
        if dy is not None:
            d = first(self.head.backward(head_tape, dy))
            if layer_tape is None:
                return None
            dh, final = unpooled(self.op, self.pooling, self.layer, d, pool_tape, shape, lengths)
        if not carried:
            ends = {} if final is None else {"dstate": final}
            return unembed(self.embedding, embed_tape, first(self.layer.backward(layer_tape, dh, **ends)))
        dx, dstate0 = backward_on(self.layer, layer_tape, dh, add_states(self.op, final, dstate))
        return unembed(self.embedding, embed_tape, dx), dstate0

    def probabilities(self, x: Any, lengths: Any = None) -> Array:
        """Compute softmax of the outputs (B, O)."""
        return softmax(self(x, lengths), self.xp)

    def carried_sizes(self) -> StateSizes | None:
        """Return the sizes of the layer's state."""
        return self.layer.carried_sizes()

    def stream(self, batch_size: int = 1) -> ChainStream:
        """Return what computes at each step what y would be if the sequence ended: step(x), state, reset(state).

        Raises
        ------
        TypeError
            If the layer has no state.
        ValueError
            If it also reads the future; or if ``pooling`` is not "last".
        """
        check_steps(self)
        if self.pooling != "last":
            raise ValueError(f"{self.op}: pooling is {self.pooling!r}; expected 'last' for a stream")
        layers = [each for each in (self.embedding, self.layer, self.head) if each is not None]
        return ChainStream(layers, batch_size, nested=False)

    def input_shape(self) -> Shape:
        """Return (B, T) of tokens, or what the layer reads."""
        return ("B", "T") if self.embedding else self.layer.input_shape()

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the first child, its y for the layer, and (B, features) for the head."""
        read = output_of(self.embedding, x) if self.embedding else x
        features = pooled_features(self.pooling, self.layer, output_of(self.layer, read))
        inputs: dict[str, Shape] = {"layer": read, "head": ("B", features)}
        return {"embedding": x, **inputs} if self.embedding else inputs

    def _run(
        self, training: bool, x: Any, lengths: Any, state: Any, return_state: bool, resets: Any
    ) -> tuple[Any, Tape]:
        check_resets(self.op, resets, self.layer)
        x, lengths = unragged(self.op, "x", x, lengths)
        check_rank(self.op, "x", x, "batch, time" if self.embedding else "batch, time, features")
        lengths = batch_lengths(self.op, x, lengths)
        x, embed_tape = embed(self.embedding, training, x, lengths)
        x = clean_input(self.op, self.layer, x, lengths)
        frozen = False
        if state is None and not return_state:
            _, frozen, _ = self._frozen_bottom(self.embedding, self.layer, self.head)
            in_training = training and runs_in_training(self.layer, frozen)
            h, final, layer_tape = run_layer(self.layer, in_training, x, lengths, resets)
        else:
            check_carried(self.op, self)
            h, final, layer_tape = run_on(self.layer, training, x, lengths, state, resets)
        vector, pool_tape = pooled(self.op, self.pooling, self.layer, h, final, lengths)
        y, _, head_tape = run_layer(self.head, training, vector, None)
        tape = Tape(
            self, (embed_tape, None if frozen else layer_tape, pool_tape, head_tape, np.shape(h), lengths, return_state)
        )
        return ((y, final) if return_state else y), tape
