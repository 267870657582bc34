"""States of recurrent layers, as a user gives them and as the kernels take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.checks import Array, as_real, check_shape

if TYPE_CHECKING:
    from .recurrent import Recurrent


def state_arrays(
    layer: Recurrent, name: str, parts: tuple[str, str], state: Any, batched: bool
) -> tuple[Array | None, Array | None]:
    """Return (h, c) of a state of ``layer`` as arrays with a batch axis; c is None for cells without one.

    Parameters
    ----------
    layer : Recurrent
        Whose state it is.
    name : str
        Of the argument, for messages.
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
        None if value is None else _array(layer, part, value, batched) for part, value in zip(parts, state, strict=True)
    )
    return h, c


def _array(layer: Recurrent, part: str, value: Any, batched: bool) -> Array:
    array = as_real(layer.op, part, value, layer.dtype, layer.xp)
    if batched:
        return array
    shape = (layer.num_layers * layer.num_directions, layer.hidden_size)
    check_shape(layer.op, part, array, "num_layers*num_directions, hidden", shape)
    return array[:, np.newaxis]
