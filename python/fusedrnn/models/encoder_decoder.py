"""A sequence from another sequence, of another length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array, seed_sequence
from ..layers import Embedding, Layer, Tape, register_layer
from ..layers.registry import layer_spec
from ..layers.summary import Shape, Visit, expected_input
from .attention import Attention
from .bridge import Bridge
from .decoder import Decoder, TaughtModel
from .generation import write_sentences, write_values
from .model import (
    batch_lengths,
    check_rank,
    check_recurrent,
    embed,
    optional_layer,
    output_features,
    run,
    two_lengths,
    unembed,
)
from .pooling import final_features, final_output, final_output_backward
from .search import Generated
from .states import state_sizes

_SHARED = "source"  # in config: the decoder uses the encoder's embedding


@register_layer
class EncoderDecoder(TaughtModel):
    """An encoder reads the source, a decoder starts from its state and writes the target (Sutskever et al. 2014).

    In training the decoder gets the true target, delayed by a step (``decoder_inputs``), in one fused call; attention
    follows in one batch. If encoder and decoder have states alike, the decoder starts from the encoder's; else from
    tanh(W v + b), with the last encoder layer's final h of both directions as v (:class:`Bridge`).

    Parameters
    ----------
    encoder : RNN, LSTM, GRU, Bidirectional or Residual
        Of one or both directions.
    decoder : RNN, LSTM, GRU or Residual
        Of one direction.
    head : Layer or int
        From the decoder's h, or from what attention makes of it, to the outputs; a number stands for a Linear.
    source_embedding, target_embedding : Embedding, optional
        For tokens; may be the same layer. Without one for the target, its sequences are values, and ``unroll`` takes
        the place of ``generate``.
    attention : {"dot", "general"} or Attention, optional
        Over the valid steps of the encoder's outputs (Luong et al. 2015).
    start, end, scheduled_sampling
        See :class:`Decoder`.
    seed : int, optional
        Of the weights made here and of the sampling.

    Examples
    --------
    >>> encoder, decoder = GRU(16, 64, bidirectional=True), GRU(16, 64)
    >>> tables = dict(source_embedding=Embedding(40, 16), target_embedding=Embedding(50, 16))
    >>> model = EncoderDecoder(encoder, decoder, 50, attention="general", start=0, end=1, **tables)
    >>> fit(model, (source, model.decoder_inputs(target)), target, loss="cross_entropy", epochs=9, batch_size=32)
    >>> padded, lengths = pad_sequences(source)
    >>> model.generate(padded, max_length=20, lengths=lengths, method="beam").tokens
    """

    def __init__(
        self,
        encoder: Layer,
        decoder: Layer,
        head: Any,
        *,
        source_embedding: Embedding | None = None,
        target_embedding: Embedding | None = None,
        attention: str | Attention | None = None,
        start: int = 0,
        end: int | None = None,
        scheduled_sampling: float = 0.0,
        seed: int | None = None,
    ) -> None:
        seeds = seed_sequence(self.op, seed).generate_state(2).tolist()
        check_recurrent(self.op, "encoder", encoder)
        self.source_embedding, self.encoder = source_embedding, encoder
        self.decoder = Decoder(
            decoder,
            head,
            embedding=target_embedding,
            attention=attention,
            memory_size=output_features(self.op, "encoder", encoder),
            start=start,
            end=end,
            scheduled_sampling=scheduled_sampling,
            seed=seeds[0],
        )
        self.bridge: Bridge | None = None
        if state_sizes(encoder) != state_sizes(decoder):
            self.bridge = Bridge(final_features(self.op, encoder), decoder, seed=seeds[1])
        super().__init__(source_embedding=source_embedding, encoder=encoder, bridge=self.bridge, decoder=self.decoder)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        parts = self.decoder.config()
        shared = self.source_embedding is not None and self.source_embedding is self.decoder.embedding
        embedding = parts.pop("embedding")
        return {
            "encoder": layer_spec(self.encoder),
            "decoder": parts.pop("layer"),
            "source_embedding": self._spec("source_embedding"),
            "target_embedding": _SHARED if shared else embedding,
            **parts,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EncoderDecoder:
        """Make a model from what ``config`` returned."""
        names = ("encoder", "decoder", "head", "attention", "source_embedding")
        children = {name: optional_layer(config[name]) for name in names}
        target = config["target_embedding"]
        children["target_embedding"] = children["source_embedding"] if target == _SHARED else optional_layer(target)
        return cls(**{**config, **children})

    def __call__(self, source: Any, inputs: Any, lengths: Any = None) -> Array:
        """Compute the outputs (B, T, O) in inference mode, taught with ``inputs``.

        Parameters
        ----------
        source : array_like of int (B, S), or (B, S, I) without a source embedding
            What the encoder reads.
        inputs : array_like of int (B, T), or (B, T, F) without a target embedding
            What the decoder reads.
        lengths : pair (source_lengths, lengths), optional
            Valid steps of the two, each (B,) or None. The outputs past the decoder's are 0.
        """
        return self._run(False, source, inputs, lengths)[0]

    def forward(self, source: Any, inputs: Any, lengths: Any = None) -> tuple[Array, Tape]:
        """Compute (y, tape) in training mode; arguments as in ``__call__``."""
        return self._run(True, source, inputs, lengths)

    def backward(self, tape: Tape, dy: Any) -> tuple[Array | None, Array | None]:
        """Return (dsource, dinputs) for dy (B, T, O); None for tokens."""
        embed_tape, encoder_tape, bridge_tape, decoder_tape, memory_shape, source_lengths = self._saved(tape)
        dinputs, dstate, _, dmemory = self.decoder.backward(decoder_tape, dy)
        if self.bridge is not None:
            dv = self.bridge.backward(bridge_tape, dstate)
            dlast, dstate = final_output_backward(self.encoder, dv, memory_shape, source_lengths)
            if dlast is not None:
                dmemory = dlast if dmemory is None else dmemory + dlast
        dx = self.encoder.backward(encoder_tape, dmemory, dstate=dstate)[0]
        return unembed(self.source_embedding, embed_tape, dx), dinputs

    def attention_weights(self, source: Any, inputs: Any, lengths: Any = None) -> Array:
        """Return how much each step of the decoder reads of each step of the source: (B, T, S), 0 past its end.

        Arguments as in ``__call__``.
        """
        attention = self.decoder.attention
        if attention is None:
            raise ValueError(f"{self.op}: attention_weights needs a model with attention")
        source_lengths, target_lengths = two_lengths(self.op, lengths)
        state, memory, _ = self._encode(False, source, source_lengths)
        x = embed(self.decoder.embedding, False, inputs, target_lengths)[0]
        h = self.decoder.layer(x, state=state, lengths=target_lengths)[0]
        return attention.weights(h, memory, source_lengths)

    def generate(
        self,
        source: Any,
        max_length: int,
        *,
        lengths: Any = None,
        method: str = "greedy",
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
        beam_width: int = 4,
        length_penalty: float = 0.0,
    ) -> Generated:
        """Generate one sentence for each source, until the end token or ``max_length`` tokens.

        Parameters
        ----------
        source : array_like of int (B, S), or (B, S, I) without a source embedding
            What the encoder reads.
        max_length : int
            Largest number of tokens of a sentence.
        lengths : array_like of int (B,), optional
            Valid steps of the sources.
        method : {"greedy", "sample", "beam"}
            The most likely token at each step; a random one; or a search that goes on with the ``beam_width`` most
            likely sentences.
        temperature, top_k, seed
            Of "sample": logits are divided by ``temperature`` and only the ``top_k`` largest count; the same seed
            gives the same sentences.
        beam_width, length_penalty
            Of "beam": the sentence with the largest log p / length^length_penalty wins; 0 is the most likely one, more
            prefers longer ones.

        Returns
        -------
        Generated
            tokens (B, T), lengths (B,) and log_probs (B,).

        Raises
        ------
        ValueError, TypeError
            If an argument is outside its range, or the start or end token outside the vocabulary.
        FloatingPointError
            If the outputs are not finite.
        """
        state, memory, _ = self._encode(False, source, lengths)
        return write_sentences(
            self.op,
            self.decoder,
            np.full(len(memory), self.decoder.start),
            state,
            max_length,
            method,
            memory=memory,
            lengths=lengths,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            beam_width=beam_width,
            length_penalty=length_penalty,
        )

    def unroll(self, source: Any, steps: int, *, lengths: Any = None) -> Array:
        """Generate values (B, steps, F), of a model without a target embedding: each output is the next input."""
        state, memory, _ = self._encode(False, source, lengths)
        return write_values(self.op, self.decoder, len(memory), state, steps, memory=memory, lengths=lengths)

    def _shapes(self, visit: Visit, *_: Shape) -> Any:
        x: Shape = expected_input(self.encoder)
        if self.source_embedding:
            x = visit("source_embedding", ("B", "S"))
        visit("encoder", ("B", "S", *x[2:]))
        if self.bridge is not None:
            visit("bridge", self.bridge._reads())
        return visit("decoder", self.decoder._reads())

    def _run(self, training: bool, source: Any, inputs: Any, lengths: Any) -> tuple[Array, Tape]:
        source_lengths, target_lengths = two_lengths(self.op, lengths)
        self._check_source(source)
        source_lengths = batch_lengths(self.op, source, source_lengths)
        state, memory, tapes = self._encode(training, source, source_lengths)
        read = {} if self.decoder.attention is None else {"memory": memory, "memory_lengths": source_lengths}
        (y, _), decoder_tape = run(self.decoder, training, inputs, state, lengths=target_lengths, **read)
        return y, Tape(self, (*tapes, decoder_tape, memory.shape, source_lengths))

    def _encode(self, training: bool, source: Any, lengths: Any) -> tuple[Any, Array, tuple[Any, ...]]:
        """Return the decoder's initial state, the encoder's outputs (B, S, M), and the tapes."""
        self._check_source(source)
        x, embed_tape = embed(self.source_embedding, training, source, lengths)
        (memory, state), encoder_tape = run(self.encoder, training, x, lengths=lengths)
        bridge_tape = None
        if self.bridge is not None:
            state, bridge_tape = run(self.bridge, training, final_output(self.encoder, memory, state, lengths))
        return state, memory, (embed_tape, encoder_tape, bridge_tape)

    def _check_source(self, source: Any) -> None:
        check_rank(self.op, "source", source, "batch, time" if self.source_embedding else "batch, time, features")
