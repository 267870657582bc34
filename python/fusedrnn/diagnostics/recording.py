"""Watch the recurrent layers inside a model during one forward and backward, and leave no trace in the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_lengths, as_real
from ..layers.base import Layer, Tape
from ..layers.recurrent import Recurrent
from ..layers.states import state_arrays


@dataclass
class Call:
    """One call of a recurrent layer: what went in, its tape, and the gradients that its backward got."""

    name: str
    layer: Recurrent
    x: Any
    state: Any
    lengths: Any
    tape: Tape
    dy: Any = None
    dstate: Any = None

    def input(self) -> Array:
        """Return x as (B, T, I) in float64."""
        return batch_major(self.layer, as_real(self.layer.op, "x", self.x, np.dtype(np.float64)))

    def output_gradient(self, shape: tuple[int, ...]) -> Array:
        """Return dL/dy as a new (B, T, D*H) array in float64, zeros if there was none."""
        if self.dy is None:
            return np.zeros(shape)
        return batch_major(self.layer, np.array(self.dy, np.float64))

    def states(self, value: Any) -> tuple[Array | None, Array | None]:
        """Return (h, c) of a state or its gradient, each (num_layers*num_directions, B, H) in float64 or None."""
        batched = np.ndim(self.x) == 3
        h, c = state_arrays(self.layer, "state", ("h", "c"), value, batched)
        return (None if h is None else h.astype(np.float64)), (None if c is None else c.astype(np.float64))

    def known_lengths(self, batch: int, steps: int) -> Array:
        """Return the lengths (B,), all of them ``steps`` where none were given."""
        if self.lengths is None:
            return np.full(batch, steps, np.int64)
        return as_lengths(self.layer.op, self.lengths, batch, steps)


def batch_major(layer: Recurrent, sequence: Array) -> Array:
    """Return a sequence as a layer takes it, with or without a batch, as (B, T, features)."""
    if sequence.ndim == 2:
        return sequence[np.newaxis]
    return sequence if layer.batch_first else sequence.swapaxes(0, 1)


def run_forward(model: Layer, x: Any, state: Any, lengths: Any) -> tuple[Any, Any]:
    """Return (outputs, tape) of a model for one input or a tuple of them; state and lengths only if they are given."""
    inputs = x if isinstance(x, tuple) else (x,)
    options = {name: value for name, value in (("state", state), ("lengths", lengths)) if value is not None}
    return model.forward(*inputs, **options)


@contextmanager
def recorded(model: Layer) -> Iterator[list[Call]]:
    """Record the calls of all recurrent layers in ``model``; gradients and random states are put back at the end.

    The instances' ``forward`` and ``backward`` are shadowed meanwhile, so no other thread should use the model.
    """
    model._needs_cpu("recording")
    calls: list[Call] = []
    named = list(_recurrent_layers(model))
    grads = {name: grad.copy() for name, grad in model.grads.items()}
    random = [(layer._rng, layer._rng.bit_generator.state) for layer in model.layers() if layer._rng is not None]
    try:
        for name, layer in named:
            _shadow(name, layer, calls)
        yield calls
    finally:
        for _, layer in named:
            vars(layer).pop("forward", None)
            vars(layer).pop("backward", None)
        for name, grad in model.grads.items():
            np.copyto(grad, grads[name])
        for rng, state in random:
            rng.bit_generator.state = state


def _recurrent_layers(layer: Layer, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Recurrent]]:
    """Yield (path, layer) of the recurrent layers, each once; the path of ``layer`` itself is empty."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    if isinstance(layer, Recurrent):
        yield path, layer
    for name, child in layer.children().items():
        yield from _recurrent_layers(child, f"{path}.{name}" if path else name, seen)


def _shadow(path: str, layer: Recurrent, calls: list[Call]) -> None:
    forward, backward = layer.forward, layer.backward

    def recording_forward(x: Any, state: Any = None, lengths: Any = None) -> tuple[Any, Tape]:
        outputs, tape = forward(x, state, lengths)
        earlier = sum(call.layer is layer for call in calls)
        name = f"{path}#{earlier + 1}" if earlier else path
        calls.append(Call(name, layer, x, state, lengths, tape))
        return outputs, tape

    def recording_backward(tape: Tape, dy: Any, dstate: Any = None) -> Any:
        call = next(call for call in calls if call.tape is tape)
        call.dy, call.dstate = dy, dstate
        return backward(tape, dy, dstate)

    vars(layer).update(forward=recording_forward, backward=recording_backward)


def direction_name(path: str, index: int, reverse: bool) -> str:
    """Return the name of one direction of one layer: "l0", "l1_reverse", with the path inside a model "0.l0"."""
    name = f"l{index}{'_reverse' * reverse}"
    return f"{path}.{name}" if path else name
