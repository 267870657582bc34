"""Sentences and values written by a decoder, from a state on."""

from __future__ import annotations

from typing import Any

from ..layers.arrays import Array, positive_int
from ..layers.namespace import namespace_of
from .decoder import Decoder, DecoderSteps
from .free_running import free_run
from .model import known_features
from .search import Generated, search
from .states import map_state


def write_sentences(
    op: str,
    decoder: Decoder,
    start: Array,
    state: Any,
    max_length: int,
    method: str,
    *,
    vector: Array | None = None,
    memory: Array | None = None,
    lengths: Any = None,
    **options: Any,
) -> Generated:
    """Write one sentence for each of the tokens ``start`` (B,); ``options`` are the other arguments of ``search``.

    State, vector, memory and its lengths are as in ``Decoder.steps``. ValueError if the decoder is one of values.
    """
    if decoder.embedding is None:
        raise ValueError(f"{op}: generate needs tokens; this model has no embedding for them, use unroll")
    decoder.check_tokens(op)
    outputs, tokens = known_features(decoder.head), decoder.embedding.num_embeddings
    if outputs is not None and outputs > tokens:
        raise ValueError(
            f"{op}: head has {outputs} outputs; expected at most {tokens}, the tokens that can be read next"
        )

    def steps(width: int) -> DecoderSteps:
        """Return the decoder of ``width`` sentences a sample, those of one sample in a row."""
        rows = [None if each is None else _repeat(each, width, 0) for each in (vector, memory, lengths)]
        repeated = map_state(lambda array: _repeat(array, width, 1), state)
        return decoder.steps(len(start) * width, repeated, *rows)

    return search(op, steps, start, decoder.end, max_length, method, **options)


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
    features = decoder.layer.input_size - (0 if vector is None else vector.shape[1])
    first = decoder.xp.zeros((batch, features), dtype=decoder.dtype)
    return free_run(decoder, first, steps, state, vector, memory, lengths)


def _repeat(array: Any, times: int, axis: int) -> Any:
    return namespace_of(array).repeat(array, times, axis=axis)
