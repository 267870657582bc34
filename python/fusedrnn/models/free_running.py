"""Training of a decoder on its own outputs: each is the next step's input, and the gradient goes through all of it."""

from __future__ import annotations

from typing import Any

from ..layers.arrays import Array
from ..layers.namespace import namespace_of
from .decoder import Decoder
from .states import map_state


def free_forward(decoder: Decoder, first: Array, steps: int, state: Any, vector: Any) -> tuple[Array, Any]:
    """Let a decoder of values run from ``first`` (B, F) for some steps; return (y (B, steps, F), tape).

    An output is needed before the next step can be computed, so this is one call a step.
    """
    x, y = first[:, None], _room(first, steps)
    tapes, initial = [], state
    for step in range(steps):
        (x, state), tape = decoder.forward(x, state, vector=vector)
        y[:, step] = x[:, 0]
        tapes.append(tape)
    return y, (tapes, initial, vector)


def free_backward(decoder: Decoder, tape: Any, dy: Array) -> tuple[Any, Array | None]:
    """Return (dstate0, dvector) for dy (B, steps, F); dvector is None without a vector."""
    tapes, state, vector = tape
    dx: Any = 0
    xp = namespace_of(dy)
    dstate = map_state(xp.zeros_like, state)
    dvector = None if vector is None else xp.zeros_like(vector)
    for step in reversed(range(len(tapes))):
        dx, dstate, d, _ = decoder.backward(tapes[step], dy[:, step : step + 1] + dx, dstate)
        if dvector is not None:
            dvector += d
    return dstate, dvector


def free_run(
    decoder: Decoder, first: Array, steps: int, state: Any, vector: Any = None, memory: Any = None, lengths: Any = None
) -> Array:
    """Compute in inference mode what ``free_forward`` computes; memory and its lengths as in ``Decoder.steps``."""
    batch = len(first)
    y = _room(first, steps)
    if batch == 0:
        return y
    run, x = decoder.steps(batch, state, vector, memory, lengths), first
    for step in range(steps):
        x = run(x)
        if x.shape != first.shape:
            raise ValueError(f"{decoder.op}: outputs have shape {x.shape}; expected that of the inputs, {first.shape}")
        y[:, step] = x
    return y


def _room(first: Array, steps: int) -> Array:
    """Return zeros for as many steps shaped as the first one."""
    y: Array = namespace_of(first).zeros((len(first), steps, first.shape[1]), dtype=first.dtype)
    return y
