"""Sentences and values written by a decoder from a state on, each output the next input; and training in this way."""

from __future__ import annotations

from typing import Any

from ..arrays.checks import Array, positive_int
from ..arrays.namespace import namespace_of
from ..layers.protocol import features_of
from ..layers.states import map_state
from .decoder import Decoder, DecoderSteps
from .options import Options
from .search import Generated, search


def write_sentences(
    op: str,
    decoder: Decoder,
    start: Array,
    state: Any,
    options: Options,
    *,
    vector: Array | None = None,
    memory: Array | None = None,
    lengths: Any = None,
    before: Array | None = None,
) -> Generated:
    """Write sentences for each of the tokens ``start`` (B,), after those ``before`` (B, P), as ``options`` say.

    State, vector, memory and its lengths are as in ``Decoder.steps``. ValueError if the decoder is one of values.
    """
    if decoder.embedding is None:
        raise ValueError(f"{op}: generate needs tokens; this model has no embedding for them, use unroll")
    decoder.check_tokens(op)
    outputs, tokens = features_of(decoder.head), decoder.embedding.num_embeddings
    if outputs is not None and outputs > tokens:
        raise ValueError(
            f"{op}: head has {outputs} outputs; expected at most {tokens}, the tokens that can be read next"
        )

    def steps(width: int) -> DecoderSteps:
        """Return the decoder of ``width`` sentences per sample, those of one sample in a row."""
        rows = [None if each is None else _repeat(each, width, 0) for each in (vector, memory, lengths)]
        repeated = map_state(lambda array: _repeat(array, width, 1), state)
        return decoder.steps(len(start) * width, repeated, *rows)

    return search(op, steps, start, decoder.end, options, before)


def write_values(
    op: str,
    decoder: Decoder,
    batch: int,
    state: Any,
    steps: int,
    *,
    vector: Array | None = None,
    memory: Array | None = None,
    lengths: Any = None,
) -> Array:
    """Write values (batch, steps, F), each the next input; other arguments as above. ValueError for tokens."""
    if decoder.embedding is not None:
        raise ValueError(f"{op}: unroll needs values; this model has an embedding of tokens, use generate")
    steps = positive_int(op, "steps", steps)
    features = decoder.layer_features - (0 if vector is None else vector.shape[1])
    first = decoder.xp.zeros((batch, features), dtype=decoder.dtype)
    return free_run(decoder, first, steps, state, vector, memory, lengths)


def _repeat(array: Any, times: int, axis: int) -> Any:
    return namespace_of(array).repeat(array, times, axis=axis)


def free_forward(decoder: Decoder, first: Array, steps: int, state: Any, vector: Any) -> tuple[Array, Any]:
    """Let a decoder of values run from ``first`` (B, F) for some steps; return (y (B, steps, F), tape).

    An output is needed before the next step can be computed, so this is one call per step.
    """
    x, y = first[:, None], _zero_steps(first, steps)
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
    y = _zero_steps(first, steps)
    if batch == 0:
        return y
    run, x = decoder.steps(batch, state, vector, memory, lengths), first
    for step in range(steps):
        x = run(x)
        if x.shape != first.shape:
            raise ValueError(f"{decoder.op}: outputs have shape {x.shape}; expected that of the inputs, {first.shape}")
        y[:, step] = x
    return y


def _zero_steps(first: Array, steps: int) -> Array:
    """Return zeros for as many steps shaped as the first one."""
    y: Array = namespace_of(first).zeros((len(first), steps, first.shape[1]), dtype=first.dtype)
    return y
