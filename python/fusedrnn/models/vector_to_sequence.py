"""A sequence from one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_real, check_shape, flag, positive_int, seed_sequence
from ..layers import Embedding, Layer, Tape, register_layer
from ..layers.calling import run
from ..layers.protocol import Shape
from .bridge import Bridge
from .decoder import Decoder, TaughtModel
from .generation import write_sentences, write_values
from .model import optional_layer
from .options import checked_options
from .search import Generated


@register_layer
class VectorToSequence(TaughtModel):
    """A vector sets the initial state of a decoder (and, if you like, is part of every input): captions, melodies.

    In training the decoder gets the true sequence, delayed by a step (``decoder_inputs``); it generates from its own.

    Parameters
    ----------
    decoder : RNN, LSTM, GRU or Residual
        With one direction; its input is the embedded token (or the value) and, with ``condition_inputs``, the vector.
    head : Layer or int
        Maps h to the outputs; a number stands for a Linear.
    vector_size : int
        V.
    embedding : Embedding, optional
        For tokens. Without one the sequences are values, and ``unroll`` takes the place of ``generate``.
    condition_inputs : bool
        Whether the vector is appended to every input.
    start, end, scheduled_sampling
        See :class:`Decoder`.
    seed : int, optional
        Seed for the weights made here and for sampling.

    Examples
    --------
    >>> model = VectorToSequence(LSTM(16, 64), 30, vector_size=64, embedding=Embedding(30, 16), start=0, end=1)
    >>> fit(model, (images, model.decoder_inputs(captions)), captions, loss="cross_entropy", epochs=9, batch_size=32)
    >>> model.generate(images, max_length=20).tokens
    """

    takes = frozenset({"lengths"})
    _fixed = frozenset({"vector_size", "condition_inputs"})

    def __init__(
        self,
        decoder: Layer,
        head: Any,
        *,
        vector_size: int,
        embedding: Embedding | None = None,
        condition_inputs: bool = False,
        start: int = 0,
        end: int | None = None,
        scheduled_sampling: float = 0.0,
        seed: int | None = None,
    ) -> None:
        seeds = seed_sequence(self.op, seed).generate_state(2).tolist()
        self.vector_size = positive_int(self.op, "vector_size", vector_size)
        self.condition_inputs = flag(self.op, "condition_inputs", condition_inputs)
        self.decoder = Decoder(
            decoder,
            head,
            embedding=embedding,
            start=start,
            end=end,
            scheduled_sampling=scheduled_sampling,
            seed=seeds[0],
        )
        self.bridge = Bridge(self.vector_size, decoder, seed=seeds[1])
        super().__init__(bridge=self.bridge, decoder=self.decoder)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        parts = self.decoder.config()
        del parts["attention"]
        own = {"vector_size": self.vector_size, "condition_inputs": self.condition_inputs}
        return {"decoder": parts.pop("layer"), **parts, **own}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VectorToSequence:
        """Make a model from what ``config`` returned."""
        children = {name: optional_layer(config[name]) for name in ("decoder", "head", "embedding")}
        return cls(**{**config, **children})

    def __call__(self, vector: Any, inputs: Any, lengths: Any = None) -> Array:
        """Compute the outputs (B, T, O) in inference mode, taught with ``inputs``.

        Parameters
        ----------
        vector : array_like (B, V)
            What the sequences are about.
        inputs : array_like of int (B, T), or (B, T, F) without an embedding
            The decoder's inputs.
        lengths : array_like of int (B,), or a pair (None, lengths), optional
            Valid steps of ``inputs``; the outputs past them are 0.
        """
        return self._run(False, vector, inputs, lengths)[0]

    def forward(self, vector: Any, inputs: Any, lengths: Any = None) -> tuple[Array, Tape]:
        """Compute (y, tape) in training mode; arguments as in ``__call__``."""
        return self._run(True, vector, inputs, lengths)

    def backward(self, tape: Tape, dy: Any) -> tuple[Array, Array | None]:
        """Return (dvector, dinputs) for dy (B, T, O); dinputs of tokens is None."""
        bridge_tape, decoder_tape = self._saved(tape)
        dinputs, dstate, direct, _ = self.decoder.backward(decoder_tape, dy)
        dvector = self.bridge.backward(bridge_tape, dstate)
        return (dvector if direct is None else dvector + direct), dinputs

    def generate(
        self,
        vector: Any,
        max_length: int,
        **options: Any,
    ) -> Generated:
        """Generate a sentence for each vector (B, V); the other arguments as in :meth:`EncoderDecoder.generate`."""
        checked = checked_options(self.op, max_length, options)
        vector = self._vector(vector)
        return write_sentences(
            self.op,
            self.decoder,
            np.full(len(vector), self.decoder.start),
            self.bridge(vector),
            checked,
            vector=vector if self.condition_inputs else None,
        )

    def unroll(self, vector: Any, steps: int) -> Array:
        """Generate values (B, steps, F) for vectors (B, V), of a model without an embedding: each is the next input."""
        vector = self._vector(vector)
        every = vector if self.condition_inputs else None
        return write_values(self.op, self.decoder, len(vector), self.bridge(vector), steps, vector=every)

    def input_shape(self) -> Shape:
        """Return (B, V)."""
        return "B", self.vector_size

    def _run(self, training: bool, vector: Any, inputs: Any, lengths: Any) -> tuple[Array, Tape]:
        vector = self._vector(vector)
        if isinstance(lengths, tuple) and len(lengths) == 2 and lengths[0] is None:
            lengths = lengths[1]
        state, bridge_tape = run(self.bridge, training, vector)
        every = vector if self.condition_inputs else None
        (y, _), decoder_tape = run(self.decoder, training, inputs, state, vector=every, lengths=lengths)
        return y, Tape(self, (bridge_tape, decoder_tape))

    def _vector(self, vector: Any) -> Array:
        array = as_real(self.op, "vector", vector, self.dtype, self.xp)
        check_shape(self.op, "vector", array, "batch, vector_size", (*array.shape[:1], self.vector_size))
        return array
