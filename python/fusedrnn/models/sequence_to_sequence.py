"""One output per time step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_integer, as_lengths, as_real, integer
from ..arrays.lengths import unragged, without_padding
from ..arrays.namespace import to_host
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
from ..layers.states import StateSizes
from ..layers.stream import ChainStream, check_steps
from .decoder import Decoder
from .generation import write_sentences
from .model import Model, batch_lengths, check_rank, embed, make_head, optional_layer, unembed
from .options import checked_options
from .search import Generated


@register_layer
class SequenceToSequence(Model):
    """A sequence in, a sequence of the same length out: o(t) = c + V h(t), and softmax(o(t)) by ``probabilities``.

    Parameters
    ----------
    layer : Layer
        RNN, LSTM, GRU, Bidirectional, Residual, or any other from (B, T, I) to (B, T, H).
    head : Layer or int
        Maps h to the outputs; a number stands for a Linear with that many.
    embedding : Embedding, optional
        For inputs that are tokens.
    seed : int, optional
        Seed for the weights of a head given as a number.

    Examples
    --------
    >>> model = SequenceToSequence(LSTM(8, 32), 5)
    >>> fit(model, x, y, loss="mse", epochs=10, batch_size=32)  # x (N, T, 8), y (N, T, 5)
    """

    takes = frozenset({"lengths", "resets"})

    def __init__(self, layer: Layer, head: Any, *, embedding: Embedding | None = None, seed: int | None = None) -> None:
        self.embedding, self.layer = embedding, layer
        self.head = make_head(self.op, head, layer, seed=seed)
        super().__init__(embedding=embedding, layer=layer, head=self.head)

    def config(self) -> dict[str, Any]:
        """Return the specifications of the children."""
        return {name: self._spec(name) for name in ("layer", "head", "embedding")}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SequenceToSequence:
        """Make a model from what ``config`` returned."""
        children: dict[str, Any] = {name: optional_layer(config[name]) for name in ("layer", "head", "embedding")}
        return cls(**children)

    def __call__(
        self, x: Any, lengths: Any = None, *, state: Any = None, return_state: bool = False, resets: Any = None
    ) -> Any:
        """Compute the outputs (B, T, O) in inference mode; 0 past each sample's end.

        Parameters
        ----------
        x : array_like (B, T, I), or integers (B, T) with an embedding
            The input.
        lengths : array_like of int (B,), optional
            Valid time steps of each sample.
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
        """Return dx for dy (B, T, O); None for tokens or a frozen layer. dy past a sample's end is not read.

        For a tape with ``return_state=True``, return (dx, dstate0); ``dstate`` is the gradient of the final state, and
        dy may be None where that is given.
        """
        embed_tape, layer_tape, head_tape, lengths, carried = self._saved(tape)
        check_gradients(self.op, carried, dy, dstate)
        dh = None
        if dy is not None:
            dy = without_padding(self.op, as_real(self.op, "dy", dy, self.dtype, self.xp), lengths)
            dh = first(self.head.backward(head_tape, dy))
        if layer_tape is None:
            return None
        if not carried:
            return unembed(self.embedding, embed_tape, first(self.layer.backward(layer_tape, dh)))
        dx, dstate0 = backward_on(self.layer, layer_tape, dh, dstate)
        return unembed(self.embedding, embed_tape, dx), dstate0

    def probabilities(self, x: Any, lengths: Any = None) -> Array:
        """Compute softmax of the outputs (B, T, O); 0 past each sample's end."""
        x, lengths = unragged(self.op, "x", x, lengths)
        return without_padding(self.op, softmax(self(x, lengths), self.xp), lengths)

    def generate(
        self,
        prompt: Any,
        max_length: int,
        *,
        lengths: Any = None,
        end: int | None = None,
        **options: Any,
    ) -> Generated:
        """Continue sentences, of a model with an embedding that predicts the next token.

        Parameters
        ----------
        prompt : array_like of int (B, P)
            How they begin, at least one token each; one fused call reads it.
        lengths : array_like of int (B,), optional
            Tokens of each prompt.
        end : int, optional
            The token after which a sentence is over.
        max_length, **options
            As in :meth:`EncoderDecoder.generate`; ``repetition_penalty`` counts the tokens of the prompt, too.
        """
        checked = checked_options(self.op, max_length, options)
        if self.embedding is None:
            raise ValueError(f"{self.op}: generate needs tokens; this model has no embedding")
        decoder = Decoder(self.layer, self.head, embedding=self.embedding)
        decoder.end = None if end is None else integer(self.op, "end", end)
        decoder.check_tokens(self.op)
        prompt, lengths = unragged(self.op, "prompt", prompt, lengths)
        tokens = as_integer(self.op, "prompt", prompt, self.xp)
        check_rank(self.op, "prompt", tokens, "batch, time")
        batch, time = tokens.shape
        ends = np.full(batch, time) if lengths is None else as_lengths(self.op, lengths, batch, time)
        if time == 0 or (ends == 0).any():
            raise ValueError(f"{self.op}: prompt has an empty sentence; expected at least one token in each")
        x = embed(self.embedding, False, tokens, ends)[0]
        state = decoder.layer(x, lengths=ends - 1)[1]
        written = to_host(tokens)
        last = written[np.arange(batch), ends - 1]
        before = np.where(np.arange(time) < ends[:, np.newaxis], written, last[:, np.newaxis])
        return write_sentences(self.op, decoder, last, state, checked, before=before)

    def carried_sizes(self) -> StateSizes | None:
        """Return the sizes of the layer's state."""
        return self.layer.carried_sizes()

    def stream(self, batch_size: int = 1) -> ChainStream:
        """Return what computes y one time step per call: step(x), state, reset(state).

        The bits are those of all steps in one call.

        Raises
        ------
        TypeError
            If the layer has no state.
        ValueError
            If it also reads the future.
        """
        check_steps(self)
        layers = [each for each in (self.embedding, self.layer, self.head) if each is not None]
        return ChainStream(layers, batch_size, nested=False)

    def input_shape(self) -> Shape:
        """Return (B, T) of tokens, or what the layer reads."""
        return ("B", "T") if self.embedding else self.layer.input_shape()

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the first child, and each one's y for the next."""
        read = output_of(self.embedding, x) if self.embedding else x
        inputs = {"layer": read, "head": output_of(self.layer, read)}
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
        y, _, head_tape = run_layer(self.head, training, h, None)
        y = without_padding(self.op, y, lengths)
        tape = Tape(self, (embed_tape, None if frozen else layer_tape, head_tape, lengths, return_state))
        return ((y, final) if return_state else y), tape
