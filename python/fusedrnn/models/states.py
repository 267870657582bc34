"""The state of any recurrent layer, flat and back: nested tuples of arrays (slabs, B, H)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from ..arrays.checks import Array
from ..arrays.namespace import namespace_of
from ..layers import Bidirectional, Layer, Recurrent


class Slabs(NamedTuple):
    """The sizes of one state array (slabs, B, H), with slabs = num_layers * num_directions."""

    slabs: int
    hidden_size: int


def state_sizes(layer: Layer) -> Any:
    """Return :class:`Slabs` in the nesting of the layer's state; None if the layer has no state."""
    if isinstance(layer, Recurrent):
        slabs = Slabs(layer.num_layers * layer.num_directions, layer.hidden_size)
        return (slabs, slabs) if layer._has_cell_state else slabs
    if isinstance(layer, Bidirectional):
        return tuple(state_sizes(layer._children[name]) for name in ("forward", "reverse"))
    sizes = getattr(layer, "state_sizes", None)
    return sizes() if sizes else None


def state_features(sizes: Any) -> int:
    """Return the number of elements of one sample's state."""
    if isinstance(sizes, Slabs):
        return sizes.slabs * sizes.hidden_size
    return sum(map(state_features, sizes))


def flatten_state(state: Any) -> Array:
    """Return a state as one array (B, features): array by array, slab by slab."""
    if isinstance(state, tuple):
        parts = [flatten_state(part) for part in state]
        joined: Array = namespace_of(parts[0]).concatenate(parts, axis=1)
        return joined
    slabs, batch, hidden = state.shape
    flat: Array = state.transpose(1, 0, 2).reshape(batch, slabs * hidden)
    return flat


def unflatten_state(flat: Array, sizes: Any) -> Any:
    """Return the state of those sizes from what ``flatten_state`` makes of it."""
    if isinstance(sizes, Slabs):
        return namespace_of(flat).ascontiguousarray(flat.reshape(len(flat), *sizes).transpose(1, 0, 2))
    ends = list(accumulate(map(state_features, sizes), initial=0))
    parts = (flat[:, start:end] for start, end in pairwise(ends))
    return tuple(unflatten_state(part, size) for part, size in zip(parts, sizes, strict=True))


def map_state(function: Callable[[Array], Array], state: Any) -> Any:
    """Apply a function to every array of a state."""
    return tuple(map_state(function, part) for part in state) if isinstance(state, tuple) else function(state)
