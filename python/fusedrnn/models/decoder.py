"""The decoder of the models that produce sequences: embedding, recurrent layer, attention, head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_real, integer, probability, seed_sequence
from ..arrays.lengths import unragged, without_padding
from ..arrays.namespace import from_host, namespace_of, on_gpu, to_host
from ..layers import Embedding, Layer, Tape, register_layer
from ..layers.calling import call_layer, run, run_layer
from ..layers.protocol import Shape, features_of
from ..layers.states import map_state
from ..layers.stream import stepper
from .attention import SCORES, Attention
from .model import (
    Model,
    batch_lengths,
    check_rank,
    check_recurrent,
    embed,
    input_features,
    make_head,
    optional_layer,
    output_features,
    unembed,
)


@register_layer
class Decoder(Model):
    """Outputs step by step, each from the input of its step and everything before.

    Parameters
    ----------
    layer : RNN, LSTM, GRU or Residual
        With one direction. It reads the embedded input, and after it the vector if there is one.
    head : Layer or int
        Maps h, or the output of attention, to the outputs; a number stands for a Linear.
    embedding : Embedding, optional
        For inputs that are tokens.
    attention : {"dot", "general"} or Attention, optional
        What h reads from the memory.
    memory_size : int, optional
        Features of the memory; needed for an attention by name.
    start, end : int
        Tokens that begin and end a generated sentence; without ``end``, every sentence has the largest length.
        ``start`` must be in the embedding and ``end`` among the outputs.
    scheduled_sampling : float
        Probability with which, in training, the decoder gets its own previous output instead of the true one (Bengio et
        al. 2015). Its own outputs are those of a first, taught pass, so that both passes are one fused call (Mihaylova
        & Martins 2019); no gradient goes through them. May be changed between epochs.
    seed : int, optional
        Seed for the initial weights and for sampling.
    """

    takes = frozenset({"lengths"})

    def __init__(
        self,
        layer: Layer,
        head: Any,
        *,
        embedding: Embedding | None = None,
        attention: str | Attention | None = None,
        memory_size: int | None = None,
        start: int = 0,
        end: int | None = None,
        scheduled_sampling: float = 0.0,
        seed: int | None = None,
    ) -> None:
        check_recurrent(self.op, "layer", layer, "RNN, LSTM, GRU or Residual")
        if layer.reads_future():
            raise ValueError(f"{self.op}: layer reads the future; expected a layer of one direction")
        seeds = seed_sequence(self.op, seed).generate_state(3).tolist()
        features = output_features(self.op, "layer", layer)
        at: dict[str, Any] = {"dtype": layer.dtype, "device": layer.device}
        if isinstance(attention, str):
            if attention not in SCORES:
                known = ", ".join(map(repr, SCORES))
                raise ValueError(f"{self.op}: attention is {attention!r}; expected {known} or an Attention")
            if memory_size is None:
                raise ValueError(f"{self.op}: memory_size is None; expected the features of the memory")
            attention = Attention(features, memory_size, attention, **at, seed=seeds[0])
        self.layer: Any = layer
        self.layer_features = input_features(self.op, "layer", layer)
        self.embedding, self.attention = embedding, attention
        self.head = make_head(self.op, head, layer, features, seeds[1])
        super().__init__(embedding=embedding, layer=layer, attention=attention, head=self.head)
        self.start = integer(self.op, "start", start)
        self.end = None if end is None else integer(self.op, "end", end)
        self.check_tokens(self.op)
        self.scheduled_sampling = scheduled_sampling
        self._rng = np.random.default_rng(seeds[2])

    @property
    def scheduled_sampling(self) -> float:
        """Probability with which, in training, an input is the decoder's own output. May be changed."""
        return self._scheduled_sampling

    @scheduled_sampling.setter
    def scheduled_sampling(self, value: float) -> None:
        self._scheduled_sampling = probability(self.op, "scheduled_sampling", value)

    def check_tokens(self, op: str) -> None:
        """Raise ValueError unless the start token is in the embedding and the end token among the outputs."""
        if self.embedding is None:
            return
        known = {"start": self.embedding.num_embeddings, "end": features_of(self.head)}
        for name, count in known.items():
            token = getattr(self, name)
            if token is not None and not 0 <= token < (token + 1 if count is None else count):
                raise ValueError(f"{op}: {name} is {token}; expected a token, 0 <= {name} < {count or 'outputs'}")

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        children = {name: self._spec(name) for name in ("layer", "head", "embedding", "attention")}
        return {**children, "start": self.start, "end": self.end, "scheduled_sampling": self.scheduled_sampling}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Decoder:
        """Make a decoder from what ``config`` returned."""
        children = {name: optional_layer(config[name]) for name in ("layer", "head", "embedding", "attention")}
        return cls(**{**config, **children})

    def __call__(
        self,
        inputs: Any,
        state: Any = None,
        *,
        vector: Any = None,
        memory: Any = None,
        memory_lengths: Any = None,
        lengths: Any = None,
    ) -> tuple[Array, Any]:
        """Compute (y, state) in inference mode.

        Parameters
        ----------
        inputs : array_like (B, T), integers, or (B, T, F)
            Tokens, or values without an embedding.
        state : optional
            Initial state, as the layer takes it.
        vector : array_like (B, V), optional
            Appended to every input.
        memory : array_like (B, S, M), optional
            What attention reads; ``memory_lengths`` (B,) are its valid steps.
        lengths : array_like of int (B,), optional
            Valid steps of the inputs; y past them is 0.
        """
        outputs: tuple[Array, Any] = self._run(False, inputs, state, vector, memory, memory_lengths, lengths)[0]
        return outputs

    def forward(
        self,
        inputs: Any,
        state: Any = None,
        *,
        vector: Any = None,
        memory: Any = None,
        memory_lengths: Any = None,
        lengths: Any = None,
    ) -> tuple[tuple[Array, Any], Tape]:
        """Compute ((y, state), tape) in training mode; arguments as in ``__call__``."""
        rest = (vector, memory, memory_lengths, lengths)
        if self.scheduled_sampling:
            inputs = self._with_own_outputs(inputs, self._run(False, inputs, state, *rest)[0][0])
        return self._run(True, inputs, state, *rest)

    def backward(self, tape: Tape, dy: Any, dstate: Any = None) -> tuple[Any, Any, Array | None, Array | None]:
        """Return (dinputs, dstate0, dvector, dmemory) for dy and the gradient of the final state; None for absent ones.

        dinputs of tokens is None.
        """
        embed_tape, vector_size, layer_tape, attention_tape, head_tape, lengths = self._saved(tape)
        dy = without_padding(self.op, as_real(self.op, "dy", dy, self.dtype, self.xp), lengths)
        dh = self.head.backward(head_tape, dy)
        dmemory = None
        if self.attention is not None:
            dh, dmemory = self.attention.backward(attention_tape, dh)
        dx, dstate0 = self.layer.backward(layer_tape, dh, dstate=dstate)
        dvector = None
        if vector_size is not None:
            split = dx.shape[2] - vector_size
            dx, dvector = dx[..., :split], dx[..., split:].sum(axis=1)
        return unembed(self.embedding, embed_tape, dx), dstate0, dvector, dmemory

    def steps(
        self, batch: int, state: Any, vector: Any = None, memory: Any = None, lengths: Any = None
    ) -> DecoderSteps:
        """Return the decoder as a function of one step, from a state; ``lengths`` are those of the memory."""
        return DecoderSteps(self, batch, state, vector, memory, lengths)

    def input_shape(self) -> Shape:
        """Return (B, T) of tokens, or (B, T, F) of values, the vector beside them."""
        return ("B", "T") if self.embedding else ("B", "T", self.layer_features)

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the embedding, what the layer reads with the vector, h for attention and head."""
        read = (*x[:2], self.layer_features)
        h = self.layer.output_shape(read)
        inputs = {"embedding": x, "layer": read, "attention": h, "head": h}
        return {name: shape for name, shape in inputs.items() if name in self._children}

    def _run(
        self, training: bool, inputs: Any, state: Any, vector: Any, memory: Any, memory_lengths: Any, lengths: Any
    ) -> tuple[tuple[Array, Any], Tape]:
        inputs, lengths = unragged(self.op, "inputs", inputs, lengths)
        check_rank(self.op, "inputs", inputs, "batch, time" if self.embedding else "batch, time, features")
        lengths = batch_lengths(self.op, inputs, lengths)
        x, embed_tape = embed(self.embedding, training, inputs, lengths)
        if vector is not None:
            vector = as_real(self.op, "vector", vector, self.dtype, self.xp)
            x = self._joined(x, vector)
        (h, final), layer_tape = run(self.layer, training, x, state=state, lengths=lengths)
        attention_tape = None
        if self.attention is not None:
            h, attention_tape = run(self.attention, training, h, memory, memory_lengths)
        y, _, head_tape = run_layer(self.head, training, h, None)
        vector_size = None if vector is None else vector.shape[1]
        tape = Tape(self, (embed_tape, vector_size, layer_tape, attention_tape, head_tape, lengths))
        return (without_padding(self.op, y, lengths), final), tape

    def _joined(self, x: Any, vector: Array) -> Array:
        """Return x (B, T, F) with the vector (B, V) after every step's features."""
        x = as_real(self.op, "inputs", x, self.dtype, self.xp)
        if vector.ndim != 2 or len(vector) != len(x):
            raise ValueError(f"{self.op}: vector has shape {vector.shape}; expected (batch, size) = ({len(x)}, size)")
        repeated = self.xp.broadcast_to(vector[:, None], (*x.shape[:2], vector.shape[1]))
        joined: Array = self.xp.concatenate((x, repeated), axis=2)
        return joined

    def _with_own_outputs(self, inputs: Any, y: Array) -> Array:
        """Return the inputs with some of them replaced by what the decoder said one step before."""
        inputs = inputs if on_gpu(inputs) else np.asarray(inputs)
        own = shift_right(y if self.embedding is None else y.argmax(axis=-1))
        if own.shape != inputs.shape:
            raise ValueError(f"{self.op}: outputs have shape {own.shape}; expected that of the inputs, {inputs.shape}")
        assert self._rng is not None
        replaced = self._rng.random(inputs.shape[:2]) < self.scheduled_sampling
        replaced[:, :1] = False
        xp = namespace_of(inputs)
        replaced = from_host(xp, replaced.reshape(replaced.shape + (1,) * (inputs.ndim - 2)))
        mixed: Array = xp.where(replaced, own, inputs)
        return mixed


class TaughtModel(Model):
    """Base of the models whose decoder is taught with the true targets."""

    decoder: Decoder

    def decoder_inputs(self, targets: Any) -> Any:
        """Return what the decoder is taught with: the targets (N, T), or a list of them, behind the start token."""
        return shift_right(targets, self.decoder.start if self.decoder.embedding else 0)


class DecoderSteps:
    """One step of a decoder per call; see :class:`fusedrnn.models.search.Steps`.

    Values are where the decoder is; tokens and what is said about them are on the host.
    """

    def __init__(self, decoder: Decoder, batch: int, state: Any, vector: Any, memory: Any, lengths: Any) -> None:
        self._decoder = decoder
        self._stream = stepper(decoder.layer, batch)
        self._stream.reset(state)
        self._vector, self._memory, self._lengths = vector, memory, lengths

    def __call__(self, inputs: Array) -> Array:
        """Return the outputs (batch, O) after inputs (batch,) or (batch, F)."""
        decoder = self._decoder
        x = inputs if decoder.embedding is None else decoder.embedding(from_host(decoder.xp, inputs))
        if self._vector is not None:
            x = decoder.xp.concatenate((x, self._vector), axis=1)
        h = self._stream.step(x)
        if decoder.attention is not None:
            h = decoder.attention(h[:, None], self._memory, self._lengths)[:, 0]
        y: Array = call_layer(decoder.head, h, None)
        return y if decoder.embedding is None else to_host(y)

    def reorder(self, rows: Array) -> None:
        """Let row i go on from the state of row ``rows[i]``; vector and memory stay, so rows must be of one sample."""
        xp = self._decoder.xp
        at = from_host(xp, rows)
        self._stream.reset(map_state(lambda array: xp.ascontiguousarray(array[:, at]), self._stream.state))


def shift_right(targets: Any, start: int | float = 0) -> Any:
    """Return the decoder's inputs for these targets: each sequence delayed by one step, ``start`` first.

    Parameters
    ----------
    targets : array_like (N, T) or (N, T, F), or list of N arrays (T_n,) or (T_n, F)
        Tokens or values, samples first. Unequal lengths stay as they are.
    start : int or float
        The start token, or the value of all features at the first step.

    Returns
    -------
    ndarray or list of ndarray
        Shaped as ``targets``, on their device.
    """
    if isinstance(targets, (list, tuple)):
        return [_delayed(np.asarray(target)[np.newaxis], start)[0] for target in targets]
    return _delayed(targets if on_gpu(targets) else np.asarray(targets), start)


def _delayed(target: Array, start: int | float) -> Array:
    if target.ndim < 2:
        raise ValueError(f"shift_right: targets has shape {target.shape}; expected (samples, time, ...)")
    inputs: Array = namespace_of(target).full_like(target, start)
    inputs[:, 1:] = target[:, :-1]
    return inputs
