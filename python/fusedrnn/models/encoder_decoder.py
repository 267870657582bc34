"""A sequence from another sequence, of another length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array, flag, seed_sequence
from ..arrays.lengths import unragged, without_padding
from ..arrays.namespace import on_gpu
from ..layers import Embedding, Layer, Tape, register_layer
from ..layers.calling import run, runs_in_training
from ..layers.protocol import Shape
from ..layers.registry import layer_spec
from .attention import Attention
from .bridge import Bridge
from .decoder import Decoder, TaughtModel
from .generation import write_sentences, write_values
from .model import (
    batch_lengths,
    check_rank,
    check_recurrent,
    embed,
    final_features,
    optional_layer,
    output_features,
    two_lengths,
    unembed,
)
from .options import checked_options
from .search import Generated

_SHARED = "source"  # in config: the decoder uses the encoder's embedding


@register_layer
class EncoderDecoder(TaughtModel):
    """An encoder reads the source, a decoder starts from its state and writes the target (Sutskever et al. 2014).

    In training the decoder gets the true target, delayed by a step (``decoder_inputs``), in one fused call; attention
    follows in one batch. If the states of encoder and decoder have the same shape, the decoder starts from the
    encoder's; else from tanh(W v + b), with the last encoder layer's final h of both directions as v (:class:`Bridge`).

    Parameters
    ----------
    encoder : RNN, LSTM, GRU, Bidirectional or Residual
        With one direction or both.
    decoder : RNN, LSTM, GRU or Residual
        With one direction.
    head : Layer or int
        Maps the decoder's h, or the output of attention, to the outputs; a number stands for a Linear.
    source_embedding, target_embedding : Embedding, optional
        For tokens; may be the same layer. Without one for the target, its sequences are values, and ``unroll`` takes
        the place of ``generate``.
    attention : {"dot", "general"} or Attention, optional
        Over the valid steps of the encoder's outputs (Luong et al. 2015).
    start, end, scheduled_sampling
        See :class:`Decoder`.
    seed : int, optional
        Seed for the weights made here and for sampling.

    Examples
    --------
    >>> encoder, decoder = GRU(16, 64, bidirectional=True), GRU(16, 64)
    >>> tables = dict(source_embedding=Embedding(40, 16), target_embedding=Embedding(50, 16))
    >>> model = EncoderDecoder(encoder, decoder, 50, attention="general", start=0, end=1, **tables)
    >>> fit(model, (source, model.decoder_inputs(target)), target, loss="cross_entropy", epochs=9, batch_size=32)
    >>> padded, lengths = pad_sequences(source)
    >>> model.generate(padded, max_length=20, lengths=lengths, method="beam").tokens
    """

    takes = frozenset({"lengths"})

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
        state_sizes = check_recurrent(self.op, "encoder", encoder)
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
        if state_sizes != decoder.state_sizes():
            self.bridge = Bridge(final_features(self.op, "encoder", encoder), decoder, seed=seeds[1])
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
        """Return (dsource, dinputs) for dy (B, T, O); None for tokens, and above a frozen encoder."""
        embed_tape, encoder_tape, bridge_tape, decoder_tape, memory_shape, source_lengths = self._saved(tape)
        dinputs, dstate, _, dmemory = self.decoder.backward(decoder_tape, dy)
        if self.bridge is not None:
            dv = self.bridge.backward(bridge_tape, dstate)
        if encoder_tape is None:
            return None, dinputs
        if self.bridge is not None:
            dlast, dstate = self.encoder.final_output_backward(dv, memory_shape, source_lengths)
            if dlast is not None:
                dmemory = dlast if dmemory is None else dmemory + dlast
        dx = self.encoder.backward(encoder_tape, dmemory, dstate=dstate)[0]
        return unembed(self.source_embedding, embed_tape, dx), dinputs

    def attention_weights(self, source: Any, inputs: Any, lengths: Any = None) -> Array:
        """Return how much each step of the decoder reads of each step of the source: (B, T, S), 0 past either end.

        Arguments as in ``__call__``.
        """
        attention = self.decoder.attention
        if attention is None:
            raise ValueError(f"{self.op}: attention_weights needs a model with attention")
        source_lengths, target_lengths = two_lengths(self.op, lengths)
        source, source_lengths = unragged(self.op, "source", source, source_lengths)
        self._check_source(source)
        inputs, target_lengths = self._read_inputs(source, inputs, target_lengths)
        state, memory, _ = self._encode(False, source, source_lengths)
        x = embed(self.decoder.embedding, False, inputs, target_lengths)[0]
        h = self.decoder.layer(x, state=state, lengths=target_lengths)[0]
        return without_padding(self.op, attention.weights(h, memory, source_lengths), target_lengths)

    def generate(
        self,
        source: Any,
        max_length: int,
        *,
        lengths: Any = None,
        return_attention: bool = False,
        **options: Any,
    ) -> Generated:
        """Generate a sentence for each source, until the end token or ``max_length`` tokens.

        Parameters
        ----------
        source : array_like of int (B, S), or (B, S, I) without a source embedding
            What the encoder reads.
        max_length : int
            Largest number of tokens of a sentence, the end token included.
        lengths : array_like of int (B,), optional
            Valid steps of the sources.
        return_attention : bool
            Whether to return what each token's step read of the source; the model must have attention.
        method : {"greedy", "sample", "beam"}
            The most likely token at each step; a random one; or a search that goes on with the ``beam_width`` most
            likely sentences.
        temperature : float
            With "sample": logits are divided by it. Small values come close to "greedy".
        top_k : int, optional
            With "sample": only so many of the most likely tokens are drawn from.
        top_p : float, optional
            With "sample": only the fewest most likely tokens that have this probability together (after ``top_k``) are
            drawn from (Holtzman et al. 2020).
        seed : int, optional
            With "sample": the same seed gives the same sentences.
        beam_width : int
            With "beam": sentences that are kept. A beam of width 1 is "greedy".
        length_penalty : float
            With "beam": the sentence with the largest log p / length^length_penalty wins; 0 is the most likely one,
            more prefers longer ones.
        n_best : int, optional
            Sentences for each source, best first: at most ``beam_width``, or any number of draws with "sample". The
            results get an axis of that size, (B, n_best, ...); without it they have none.
        min_length : int
            Fewest tokens before the end token.
        repetition_penalty : float
            By how much a token that the sentence has already becomes less likely: positive logits are divided by it,
            negative ones multiplied (Keskar et al. 2019). 1 changes nothing.
        constraint : callable, optional
            ``constraint(sample, tokens)`` returns the tokens that may come next (integers, a mask (V,), or None for
            all) after ``tokens`` (t,), written so far for the source of that number. It is called for each unfinished
            sentence at each step.

        Returns
        -------
        Generated
            tokens (B, T), lengths (B,), log_probs (B,), and with ``return_attention`` attention (B, T, S).

        Raises
        ------
        ValueError, TypeError
            If an argument is outside its range, the start or end token outside the vocabulary, or no token is left.
        FloatingPointError
            If the outputs are not finite.
        """
        checked = checked_options(self.op, max_length, options)
        if flag(self.op, "return_attention", return_attention) and self.decoder.attention is None:
            raise ValueError(f"{self.op}: return_attention is True; expected a model with attention")
        source, lengths = unragged(self.op, "source", source, lengths)
        state, memory, _ = self._encode(False, source, lengths)
        found = write_sentences(
            self.op,
            self.decoder,
            np.full(len(memory), self.decoder.start),
            state,
            checked,
            memory=memory,
            lengths=lengths,
        )
        if return_attention:
            found.attention = self._attention_of(found, source, lengths)
        return found

    def _attention_of(self, found: Generated, source: Any, lengths: Any) -> Array:
        """Return the attention weights of written sentences, taught with them in one fused call."""
        tokens, written = found.tokens, found.lengths
        many = 1 if tokens.ndim == 2 else tokens.shape[1]
        repeat = self.xp.repeat
        given = source if on_gpu(source) else np.asarray(source)
        rows, ends = tokens.reshape(-1, tokens.shape[-1]), written.reshape(-1)
        weights = self.attention_weights(
            repeat(given, many, axis=0),
            self.decoder_inputs(rows),
            lengths=(None if lengths is None else np.repeat(lengths, many), ends),
        )
        return weights.reshape(*written.shape, *weights.shape[1:])

    def unroll(self, source: Any, steps: int, *, lengths: Any = None) -> Array:
        """Generate values (B, steps, F), of a model without a target embedding: each output is the next input."""
        source, lengths = unragged(self.op, "source", source, lengths)
        state, memory, _ = self._encode(False, source, lengths)
        return write_values(self.op, self.decoder, len(memory), state, steps, memory=memory, lengths=lengths)

    def input_shape(self) -> Shape:
        """Return the source's: (B, S) of tokens, or (B, S, I)."""
        return ("B", "S") if self.source_embedding else ("B", "S", *self.encoder.input_shape()[2:])

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the embedding, (B, S, I) for the encoder, and what bridge and decoder read."""
        inputs = {"source_embedding": x, "encoder": (*x[:2], *self.encoder.input_shape()[2:])}
        inputs |= {name: child.input_shape() for name, child in self._children.items() if name not in inputs}
        return {name: inputs[name] for name in self._children}

    def _run(self, training: bool, source: Any, inputs: Any, lengths: Any) -> tuple[Array, Tape]:
        source_lengths, target_lengths = two_lengths(self.op, lengths)
        source, source_lengths = unragged(self.op, "source", source, source_lengths)
        self._check_source(source)
        source_lengths = batch_lengths(self.op, source, source_lengths)
        inputs, target_lengths = self._read_inputs(source, inputs, target_lengths)
        state, memory, tapes = self._encode(training, source, source_lengths)
        read = {} if self.decoder.attention is None else {"memory": memory, "memory_lengths": source_lengths}
        (y, _), decoder_tape = run(self.decoder, training, inputs, state, lengths=target_lengths, **read)
        return y, Tape(self, (*tapes, decoder_tape, memory.shape, source_lengths))

    def _read_inputs(self, source: Any, inputs: Any, lengths: Any) -> tuple[Any, Any]:
        """Return what the decoder reads, padded, and its lengths; ``source`` is checked already."""
        inputs, lengths = unragged(self.op, "inputs", inputs, lengths)
        check_rank(self.op, "inputs", inputs, "batch, time" if self.decoder.embedding else "batch, time, features")
        if len(inputs) != len(source):
            raise ValueError(f"{self.op}: inputs has {len(inputs)} samples; expected {len(source)}, as source")
        return inputs, lengths

    def _encode(self, training: bool, source: Any, lengths: Any) -> tuple[Any, Array, tuple[Any, ...]]:
        """Return the decoder's initial state, the encoder's outputs (B, S, M), and the tapes."""
        self._check_source(source)
        x, embed_tape = embed(self.source_embedding, training, source, lengths)
        chain = self.source_embedding, self.encoder, self.bridge, self.decoder
        frozen = self._frozen_bottom(*chain)[1]
        learns = training and runs_in_training(self.encoder, frozen)
        (memory, state), encoder_tape = run(self.encoder, learns, x, lengths=lengths)
        if frozen:
            encoder_tape = None
        bridge_tape = None
        if self.bridge is not None:
            state, bridge_tape = run(self.bridge, training, self.encoder.final_output(memory, state, lengths))
        return state, memory, (embed_tape, encoder_tape, bridge_tape)

    def _check_source(self, source: Any) -> None:
        check_rank(self.op, "source", source, "batch, time" if self.source_embedding else "batch, time, features")
