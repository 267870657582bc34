"""States of recurrent layers: nested tuples of arrays (slabs, B, H), as a user gives them, flat and back."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

import numpy as np

from ..arrays.checks import Array, as_real, check_shape, described
from ..arrays.namespace import namespace_of

if TYPE_CHECKING:
    from .recurrent import Recurrent


class StateSize(NamedTuple):
    """The sizes of one state array (slabs, B, hidden_size); the RNN has num_layers * num_directions slabs."""

    slabs: int
    hidden_size: int


StateSizes: TypeAlias = Union[StateSize, "tuple[StateSizes, ...]"]  # nested as the state


def state_features(sizes: StateSizes) -> int:
    """Return the number of elements of one sample's state."""
    if isinstance(sizes, StateSize):
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


def unflatten_state(flat: Array, sizes: StateSizes) -> Any:
    """Return the state of those sizes from what ``flatten_state`` makes of it."""
    if isinstance(sizes, StateSize):
        return namespace_of(flat).ascontiguousarray(flat.reshape(len(flat), *sizes).transpose(1, 0, 2))
    ends = list(accumulate(map(state_features, sizes), initial=0))
    parts = (flat[:, start:end] for start, end in pairwise(ends))
    return tuple(unflatten_state(part, size) for part, size in zip(parts, sizes, strict=True))


def map_state(function: Callable[[Array], Array], state: Any) -> Any:
    """Apply a function to every array of a state."""
    return tuple(map_state(function, part) for part in state) if isinstance(state, tuple) else function(state)


def add_states(op: str, a: Any, dstate: Any) -> Any:
    """Return the sum of a state and ``dstate``, another as a user gives it; None in either stands for zeros."""
    if a is None or dstate is None:
        return dstate if a is None else a
    if not isinstance(a, tuple):
        b = as_real(op, "dstate", dstate, a.dtype, namespace_of(a))
        check_shape(op, "dstate", b, "num_layers*num_directions, batch, hidden", a.shape)
        return a + b
    if not isinstance(dstate, (tuple, list)) or len(dstate) != len(a):
        raise ValueError(f"{op}: dstate is {described(dstate)}; expected a tuple of {len(a)}")
    return tuple(add_states(op, x, y) for x, y in zip(a, dstate, strict=True))


def state_arrays(
    layer: Recurrent, name: str, parts: tuple[str, str], state: Any, batched: bool
) -> tuple[Array | None, Array | None]:
    """Return (h, c) of a state of ``layer`` as arrays with a batch axis; c is None for cells without one.

    Parameters
    ----------
    layer : Recurrent
        Whose state it is.
    name : str
        Name of the argument, for messages.
    parts : pair of str
        Names of h and c, for messages.
    state : array_like or pair or None
        h, or (h, c) of an LSTM; None for either stays None.
    batched : bool
        Whether the state has a batch axis; if so, its shape is judged by the kernels.
    """
    if state is None:
        return None, None
    if layer._has_cell_state:
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            got = f"an array of shape {state.shape}" if hasattr(state, "shape") else type(state).__name__
            raise ValueError(f"{layer.op}: {name} is {got}; expected a pair ({parts[0]}, {parts[1]})")
    else:
        if isinstance(state, (tuple, list)) and any(getattr(part, "ndim", 0) for part in state):
            raise ValueError(f"{layer.op}: {name} is a {type(state).__name__} of arrays; expected one array")
        state = (state, None)
    h, c = (
        None if value is None else _array(layer, part, value, batched, size)
        for part, value, size in zip(parts, state, (layer.output_size, layer.hidden_size), strict=True)
    )
    return h, c


def _array(layer: Recurrent, part: str, value: Any, batched: bool, size: int) -> Array:
    array = as_real(layer.op, part, value, layer.dtype, layer.xp)
    if batched:
        return array
    shape = (layer.num_layers * layer.num_directions, size)
    check_shape(layer.op, part, array, "num_layers*num_directions, hidden", shape)
    return array[:, np.newaxis]
