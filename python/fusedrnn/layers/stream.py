"""Single steps of a layer with a state, for serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from ..arrays.checks import Array, as_real, described
from .states import state_arrays

if TYPE_CHECKING:
    from .recurrent import Recurrent


class Stream:
    """Single steps of a recurrent layer, for serving: weights packed once, state kept here.

    Made by ``layer.stream(batch_size)``. One stream belongs to one thread at a time.
    """

    def __init__(self, layer: Recurrent, core: _core.Stream, batch_size: int) -> None:
        self._layer = layer
        self._core = core
        self._step = core.step
        self._dtype = layer.dtype
        self.batch_size = batch_size

    def __repr__(self) -> str:
        return f"Stream of {self._layer.op}, batch_size={self.batch_size}"

    def step(self, x: Any, out: Array | None = None) -> Array:
        """Advance by one time step.

        Parameters
        ----------
        x : array_like (batch_size, input_size)
            The input of this step.
        out : ndarray (batch_size, output_size), optional
            Where h goes; of the layer's dtype, C-contiguous, writable, not overlapping x. A new array by default.

        Returns
        -------
        ndarray (batch_size, output_size)
            h of the last layer; ``out`` if it was given.
        """
        if type(x) is not np.ndarray or x.dtype is not self._dtype:
            x = as_real(self._layer.op, "x", x, self._dtype)
        return self._step(x, out)

    @property
    def state(self) -> Any:
        """A copy of h, or (h, c) of an LSTM, each (num_layers, batch_size, H)."""
        h, c = self._core.state()
        return (h, c) if self._layer._has_cell_state else h

    def reset(self, state: Any = None) -> None:
        """Set the state; None: zeros. On an error it stays as it is."""
        h, c = state_arrays(self._layer, "state", ("h", "c"), state, True)
        self._core.reset(h=h, c=c)


class CallStream:
    """What a stream does, by a call of the layer for each time step: for layers that have no kernels for it."""

    def __init__(self, layer: Any, batch_size: int) -> None:
        self._layer = layer
        self.batch_size = batch_size
        self.state: Any = None

    def step(self, x: Array) -> Array:
        """Advance by one time step: x (batch_size, I) to y (batch_size, features)."""
        y, self.state = self._layer(x[:, None], state=self.state)
        last: Array = y[:, 0]
        return last

    def reset(self, state: Any = None) -> None:
        """Set the state; None: zeros."""
        self.state = state


class ChainStream:
    """Single steps of layers one after another: of those with a state by their streams, of the others by calls.

    Made by the ``stream`` of a composite. One stream belongs to one thread at a time.

    Attributes
    ----------
    state
        A copy of the state, as the composite's call takes and returns it.
    """

    def __init__(self, layers: Sequence[Any], batch_size: int, *, nested: bool) -> None:
        self.batch_size = batch_size
        self._nested = nested  # whether the state is a tuple of the layers' states, or that of the only one
        self._streams = [None if layer.carried_sizes() is None else stepper(layer, batch_size) for layer in layers]
        self._layers = list(layers)

    def __repr__(self) -> str:
        return f"Stream of {', '.join(layer.op for layer in self._layers)}, batch_size={self.batch_size}"

    def step(self, x: Any) -> Array:
        """Advance by one time step: x (batch_size, I), or tokens (batch_size,), to y (batch_size, features)."""
        for layer, stream in zip(self._layers, self._streams, strict=True):
            if stream is not None:
                x = stream.step(x)
            else:
                x = np.asarray(x) if layer.device == "cpu" else x
                if x.shape[:1] != (self.batch_size,):
                    expected = f"(batch, features) or tokens (batch,) with batch = {self.batch_size}"
                    raise ValueError(f"stream: x has shape {x.shape}; expected {expected}")
                x = layer(x[:, None])[:, 0]
        y: Array = x
        return y

    @property
    def state(self) -> Any:  # noqa: D102 - of the class
        parts = tuple(stream.state for stream in self._streams if stream is not None)
        return parts if self._nested else parts[0]

    def reset(self, state: Any = None) -> None:
        """Set the state; None: zeros. On an error it stays as it is."""
        streams = [stream for stream in self._streams if stream is not None]
        parts = state if self._nested and state is not None else [state] * len(streams)
        if not isinstance(parts, (tuple, list)) or len(parts) != len(streams):
            raise ValueError(f"stream: state is {described(state)}; expected a tuple of {len(streams)} states")
        before = [stream.state for stream in streams]
        try:
            for stream, part in zip(streams, parts, strict=True):
                stream.reset(part)
        except BaseException:
            for stream, part in zip(streams, before, strict=True):
                stream.reset(part)
            raise


def check_steps(layer: Any) -> None:
    """Raise what ``stream`` of a composite raises where there can be none."""
    if layer.carried_sizes() is None:
        raise TypeError(f"{layer.op}: stream needs a layer with a state inside; there is none")
    if layer.reads_future():
        raise ValueError(f"{layer.op}: stream needs one forward direction; a layer inside also reads the future")


def stepper(layer: Any, batch_size: int) -> Any:
    """Return what advances a batch-major layer by one step per call: its stream on the cpu, calls on cuda."""
    return layer.stream(batch_size) if layer.device == "cpu" else CallStream(layer, batch_size)
