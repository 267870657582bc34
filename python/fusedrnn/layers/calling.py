"""How composites and ``fit`` call a layer of any kind: lengths only where it takes them, y without the state."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from ..arrays.checks import as_array
from ..arrays.lengths import without_padding
from .base import Layer
from .embedding import Embedding


def forward_layer(layer: Layer, x: Any, lengths: Any) -> tuple[Any, Any]:
    """Call ``layer.forward``, with lengths if it takes them; return (y, tape) without a recurrent layer's state."""
    return forward_inputs(layer, (x,), lengths)


def call_layer(layer: Layer, x: Any, lengths: Any) -> Any:
    """Call ``layer`` for inference, with lengths if it takes them; return y without a recurrent layer's state."""
    return call_inputs(layer, (x,), lengths)


def forward_inputs(layer: Layer, inputs: tuple[Any, ...], lengths: Any) -> tuple[Any, Any]:
    """As ``forward_layer``, for a layer of several inputs."""
    outputs, tape = layer.forward(*inputs, **_lengths_argument(type(layer).forward, lengths))
    return first(outputs), tape


def call_inputs(layer: Layer, inputs: tuple[Any, ...], lengths: Any) -> Any:
    """As ``call_layer``, for a layer of several inputs."""
    return first(layer(*inputs, **_lengths_argument(type(layer).__call__, lengths)))


def clean_input(op: str, layer: Layer, x: Any, lengths: Any, *, time_major: bool = False) -> Any:
    """Return x (B, T, I), or tokens (B, T), as a layer can read it that knows no lengths: with 0 past a sample's end.

    So what is there reaches no gradient, and any token may be there. For a layer that takes lengths, x comes back as it
    is; so do vectors (B, I).
    """
    if lengths is None or _takes_lengths(type(layer).forward):
        return x
    array = as_array(op, "x", x, layer.xp)
    if array.ndim < (2 if isinstance(layer, Embedding) else 3):
        return x
    if time_major:
        return without_padding(op, array.swapaxes(0, 1), lengths).swapaxes(0, 1)
    return without_padding(op, array, lengths)


def first(outputs: Any) -> Any:
    """Return y of (y, state), or what is no tuple as it is."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _lengths_argument(function: Any, lengths: Any) -> dict[str, Any]:
    return {"lengths": lengths} if lengths is not None and _takes_lengths(function) else {}


@lru_cache(maxsize=256)
def _takes_lengths(function: Any) -> bool:
    return "lengths" in inspect.signature(function).parameters
