"""Where the state of a recurrent layer starts again inside a sequence, and from what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..arrays.checks import Array
from .states import state_arrays

if TYPE_CHECKING:
    from .recurrent import Recurrent


class Restarts(NamedTuple):
    """The marks, laid out as x, and the state after them; None stands for none, or for zeros."""

    resets: Array | None = None
    h: Array | None = None
    c: Array | None = None

    def of(self, slabs: slice | None = None) -> dict[str, Any]:
        """Return them as arguments of the kernels, of some of the layers; nothing where there are no marks."""
        if self.resets is None:
            return {}
        h, c = (s if s is None or slabs is None else s[slabs] for s in (self.h, self.c))
        return {"resets": self.resets, "h_restart": h, "c_restart": c}


NO_RESTARTS = Restarts()


def restarts_of(layer: Recurrent, x: Array, resets: Any, reset_state: Any, batched: bool) -> Restarts:
    """Return ``resets`` and ``reset_state`` of a call with a batch axis; the kernels judge x and resets."""
    if resets is None:
        if reset_state is not None:
            raise ValueError(f"{layer.op}: reset_state is given without resets; expected both or neither")
        return NO_RESTARTS
    layer._needs_cpu("resets")
    marks = np.asarray(resets)
    if not batched:
        if marks.ndim != 1:
            raise ValueError(f"{layer.op}: resets has shape {marks.shape}; expected (time,), as x has no batch")
        marks = layer._add_batch(marks)
    h, c = state_arrays(layer, "reset_state", ("h", "c"), reset_state, batched)
    if x.ndim == 3:
        layer._check_states(layer._batch_of(x.shape), **{"h of reset_state": h, "c of reset_state": c})
    return Restarts(marks, h, c)
