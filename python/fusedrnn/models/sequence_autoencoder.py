"""Sequences through a vector and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..arrays.checks import Array, as_lengths, as_real, check_shape, flag, integer, seed_sequence
from ..arrays.lengths import in_reverse, unragged, without_padding
from ..layers import Layer, Linear, Tape, register_layer
from ..layers.calling import run
from ..layers.protocol import Shape
from ..layers.registry import layer_spec
from .bridge import Bridge
from .decoder import Decoder, shift_right
from .generation import free_backward, free_forward, free_run
from .model import (
    Model,
    batch_lengths,
    check_recurrent,
    final_features,
    input_features,
    optional_layer,
    output_features,
)
from .pooling import mean_steps

INPUTS = ("teacher", "free", "code")


@register_layer
class SequenceAutoencoder(Model):
    """An encoder makes a code vector of a sequence, a decoder makes the sequence of the code (Srivastava et al. 2015).

    Inference knows only the code: calling the model is ``decode(encode(x))``, where the decoder reads its own outputs.
    Train with ``fit(model, x, x, ...)``.

    Parameters
    ----------
    encoder : RNN, LSTM, GRU, Bidirectional or Residual
        It reads x (B, T, I); its final output (see ``SequenceToVector``, "last") makes the code.
    decoder : RNN, LSTM, GRU or Residual
        With one direction. ``inputs`` says what it reads at each step; its initial state comes from the code.
    head : Layer, optional
        Maps the decoder's h to the I features of a step; a Linear by default.
    code_size : int, optional
        Size of the code, made by a Linear from the encoder's final output; without it, that output is the code.
    inputs : {"teacher", "free", "code"}
        What the decoder reads in training: the true previous step (one fused call), its own previous output (one call
        per step, with the gradient through all of them), or the code at every step (one fused call, then also in
        inference).
    condition_inputs : bool
        Whether "teacher" and "free" append the code to what they read.
    reverse : bool
        Whether the decoder writes the sequence from its end; what is returned is in the order of x.
    seed : int, optional
        Seed for the weights made here.
    """

    takes = frozenset({"lengths"})
    _fixed = frozenset({"code_size", "condition_inputs", "input_size", "inputs"})

    def __init__(
        self,
        encoder: Layer,
        decoder: Layer,
        head: Layer | None = None,
        *,
        code_size: int | None = None,
        inputs: str = "teacher",
        condition_inputs: bool = False,
        reverse: bool = True,
        seed: int | None = None,
    ) -> None:
        if inputs not in INPUTS:
            raise ValueError(f"{self.op}: inputs is {inputs!r}; expected one of {', '.join(map(repr, INPUTS))}")
        seeds = seed_sequence(self.op, seed).generate_state(3).tolist()
        check_recurrent(self.op, "encoder", encoder)
        final = final_features(self.op, "encoder", encoder)
        self.encoder, self.inputs, self.reverse = encoder, inputs, flag(self.op, "reverse", reverse)
        self.condition_inputs = flag(self.op, "condition_inputs", condition_inputs) or inputs == "code"
        self.input_size = input_features(self.op, "encoder", encoder)
        self.code: Linear | None = None
        if code_size is not None:
            self.code = Linear(final, code_size, dtype=encoder.dtype, device=encoder.device, seed=seeds[0])
        self.code_size = final if self.code is None else self.code.out_features
        self.decoder = Decoder(decoder, self.input_size if head is None else head, seed=seeds[1])
        outputs = output_features(self.op, "head", self.decoder.head)
        given = (0 if inputs == "code" else self.input_size) + self.condition_inputs * self.code_size
        reads = self.decoder.layer_features
        for name, got, expected in (("head", outputs, self.input_size), ("decoder", reads, given)):
            if got != expected:
                what = "outputs" if name == "head" else "input_size"
                raise ValueError(f"{self.op}: {name} has {what} {got}; expected {expected}")
        self.bridge = Bridge(self.code_size, decoder, seed=seeds[2])
        super().__init__(encoder=encoder, code=self.code, bridge=self.bridge, decoder=self.decoder)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "encoder": layer_spec(self.encoder),
            "decoder": layer_spec(self.decoder.layer),
            "head": layer_spec(self.decoder.head),
            "code_size": None if self.code is None else self.code_size,
            "inputs": self.inputs,
            "condition_inputs": self.condition_inputs,
            "reverse": self.reverse,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SequenceAutoencoder:
        """Make a model from what ``config`` returned."""
        children = {name: optional_layer(config[name]) for name in ("encoder", "decoder", "head")}
        return cls(**{**config, **children})

    def __call__(self, x: Any, lengths: Any = None) -> Array:
        """Compute the reconstruction of x (B, T, I) from its code alone; 0 past each sample's end.

        ``lengths`` (B,) are the valid time steps of each sample.
        """
        x, lengths = unragged(self.op, "x", x, lengths)
        x = self._x(x)
        return self.decode(self.encode(x, lengths), x.shape[1], lengths)

    def encode(self, x: Any, lengths: Any = None) -> Array:
        """Return the codes (B, code_size) of sequences x (B, T, I)."""
        x, lengths = unragged(self.op, "x", x, lengths)
        return self._encode(False, self._x(x), lengths)[0]

    def decode(self, code: Any, steps: int, lengths: Any = None) -> Array:
        """Compute the sequences (B, steps, I) of codes (B, code_size); 0 past each sample's end."""
        steps = integer(self.op, "steps", steps)
        if steps < 0:
            raise ValueError(f"{self.op}: steps is {steps}; expected an integer >= 0")
        code = as_real(self.op, "code", code, self.dtype, self.xp)
        check_shape(self.op, "code", code, "batch, code_size", (*code.shape[:1], self.code_size))
        if lengths is not None:
            lengths = as_lengths(self.op, lengths, len(code), steps)
        every = code if self.condition_inputs else None
        state = self.bridge(code)
        if self.inputs == "code":
            nothing = self.xp.zeros((len(code), steps, 0), dtype=self.dtype)
            y = self.decoder(nothing, state, vector=every, lengths=lengths)[0]
        else:
            y = free_run(self.decoder, self._first(code), steps, state, every)
        return without_padding(self.op, self._in_decoder_order(y, lengths), lengths)

    def reconstruction_error(self, x: Any, lengths: Any = None) -> Array:
        """Compute the mean squared error (B,) of each sample's reconstruction over its valid steps; 0 without one."""
        x, lengths = unragged(self.op, "x", x, lengths)
        x = self._x(x)
        squares = self.xp.square(without_padding(self.op, x, lengths) - self(x, lengths))
        return mean_steps(self.op, squares.mean(axis=2, keepdims=True), lengths)[:, 0]

    def forward(self, x: Any, lengths: Any = None) -> tuple[Array, Tape]:
        """Compute (y, tape) in training mode, where the decoder reads what ``inputs`` says."""
        x, lengths = unragged(self.op, "x", x, lengths)
        x = self._x(x)
        lengths = batch_lengths(self.op, x, lengths)
        x = without_padding(self.op, x, lengths)
        code, tapes = self._encode(True, x, lengths)
        every = code if self.condition_inputs else None
        state, bridge_tape = self.bridge.forward(code)
        decoder_tape: Any
        if self.inputs == "free":
            y, decoder_tape = free_forward(self.decoder, self._first(x), x.shape[1], state, every)
        else:
            read = x[..., :0] if self.inputs == "code" else shift_right(self._in_decoder_order(x, lengths))
            (y, _), decoder_tape = self.decoder.forward(read, state, vector=every, lengths=lengths)
        y = without_padding(self.op, self._in_decoder_order(y, lengths), lengths)
        return y, Tape(self, (*tapes, bridge_tape, decoder_tape, lengths, y.shape))

    def backward(self, tape: Tape, dy: Any) -> Array:
        """Return dx for dy (B, T, I), through the encoder and through what the decoder read."""
        encoder_tape, code_tape, h_shape, bridge_tape, decoder_tape, lengths, shape = self._saved(tape)
        dy = as_real(self.op, "dy", dy, self.dtype, self.xp)
        check_shape(self.op, "dy", dy, "the shape of y", shape)
        dy = without_padding(self.op, dy, lengths)
        dy = self._in_decoder_order(dy, lengths)
        dread: Array | None = None
        if self.inputs == "free":
            dstate, dcode = free_backward(self.decoder, decoder_tape, dy)
        else:
            dread, dstate, dcode, _ = self.decoder.backward(decoder_tape, dy)
        d = self.bridge.backward(bridge_tape, dstate)
        if dcode is not None:
            d = d + dcode
        if self.code is not None:
            d = self.code.backward(code_tape, d)
        dh, dfinal = self.encoder.final_output_backward(d, h_shape, lengths)
        dx: Array = self.encoder.backward(encoder_tape, dh, dstate=dfinal)[0]
        if dread is not None and self.inputs == "teacher":
            dtarget = self.xp.zeros_like(dread)
            dtarget[:, :-1] = dread[:, 1:]
            dx = dx + without_padding(self.op, self._in_decoder_order(dtarget, lengths), lengths)
        return dx

    def input_shape(self) -> Shape:
        """Return (B, T, I)."""
        return "B", "T", self.input_size

    def output_shape(self, x: Shape) -> Any:
        """Return x."""
        return x

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the encoder, (B, features) for the code's layer, and what bridge and decoder read."""
        inputs = {name: child.input_shape() for name, child in self._children.items()} | {"encoder": x}
        return inputs if self.code is None else inputs | {"code": ("B", self.code.in_features)}

    def _encode(self, training: bool, x: Array, lengths: Any) -> tuple[Array, tuple[Any, ...]]:
        (h, state), encoder_tape = run(self.encoder, training, x, lengths=lengths)
        code, code_tape = self.encoder.final_output(h, state, lengths), None
        if self.code is not None:
            code, code_tape = run(self.code, training, code)
        return code, (encoder_tape, code_tape, h.shape)

    def _first(self, samples: Array) -> Array:
        """Return what the decoder reads at its first step, (B, I)."""
        first: Array = self.xp.zeros((len(samples), self.input_size), dtype=self.dtype)
        return first

    def _in_decoder_order(self, x: Array, lengths: Any) -> Array:
        """Return x (B, T, I) with each sample's valid steps in the decoder's order; twice gives x."""
        return in_reverse(self.op, x, lengths) if self.reverse else x

    def _x(self, x: Any) -> Array:
        array = as_real(self.op, "x", x, self.dtype, self.xp)
        if array.ndim != 3 or array.shape[2] != self.input_size:
            raise ValueError(f"{self.op}: x has shape {array.shape}; expected (batch, time, {self.input_size})")
        return array
