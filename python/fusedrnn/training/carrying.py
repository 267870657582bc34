"""Truncated backpropagation through time: the states of recurrent layers go on from batch to batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.namespace import from_host
from ..layers.base import Layer
from ..layers.states import map_state


class Carrier:
    """The states that the layers of a model had at the end of a batch, and the next batch begins with.

    They are values: no gradient flows back into the batch before (Williams & Peng 1990).

    Parameters
    ----------
    model : Layer
        With layers that have a state inside.

    Raises
    ------
    ValueError
        If there is none, or one that also reads the future.
    """

    def __init__(self, model: Layer) -> None:
        self._layers = [layer for layer in model.layers() if _holds_state(layer)]
        if not self._layers:
            raise ValueError(f"fit: stateful is set, but {model.op} has no layer with a state; expected one")
        if wrong := [layer.op for layer in model.layers() if layer.reads_future()]:
            raise ValueError(f"fit: stateful is set, but {wrong[-1]} also reads the future; expected one direction")
        self.forget()

    def forget(self) -> None:
        """Begin with zeros."""
        self._states: list[list[Any]] = [[] for _ in self._layers]

    @contextmanager
    def carried(self, rows: NDArray[np.intp] | None) -> Iterator[None]:
        """Have a forward call of the model begin where the one before ended.

        The layers' ``forward`` is shadowed meanwhile, so no other thread should use the model.

        Parameters
        ----------
        rows : ndarray of int (B,) or None
            Which row of the batch before each row goes on with; -1 for one that begins, None for all.
        """
        before, self._states = self._states, [[] for _ in self._layers]
        try:
            for layer, old, new in zip(self._layers, before, self._states, strict=True):
                _shadow(layer, old, new, rows)
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)


def _holds_state(layer: Layer) -> bool:
    inside = (child.state_sizes() is not None for child in layer.children().values())
    return layer.state_sizes() is not None and not any(inside)


def _shadow(layer: Any, old: list[Any], new: list[Any], rows: NDArray[np.intp] | None) -> None:
    """Give each of the layer's calls the state that the same call of the batch before ended with."""
    forward = type(layer).forward

    def go_on(x: Any, state: Any = None, *args: Any, **kwargs: Any) -> Any:
        if state is None and rows is not None and len(new) < len(old):
            state = map_state(lambda array: _rows_of(array, rows, layer.xp), old[len(new)])
        (y, ended), tape = forward(layer, x, state, *args, **kwargs)
        new.append(ended)
        return (y, ended), tape

    layer.forward = go_on


def _rows_of(array: Any, rows: NDArray[np.intp], xp: Any) -> Any:
    """Return the chosen rows of a state (slabs, B, H); zeros for -1."""
    chosen = array[:, from_host(xp, np.maximum(rows, 0))]
    return xp.where(from_host(xp, (rows >= 0)[None, :, None]), chosen, chosen.dtype.type(0))
