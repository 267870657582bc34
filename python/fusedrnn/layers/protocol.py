"""What a layer says of itself to those who put layers together: its shapes, its state, its last step, its stream.

Composites, models, ``summary`` and ``fit`` know of a layer what it answers here, and nothing else: a class that answers
for itself works in all of them. Every answer has a default, that of a layer without a state that takes no lengths.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np

from ..arrays.checks import Array
from ..arrays.lengths import last_steps
from .states import StateSizes
from .stream import CallStream

Shape: TypeAlias = tuple[Any, ...]  # sizes, or names of sizes: ("B", "T", 64); a list of shapes for several arrays

ANY: Shape = ("...",)
UNKNOWN: Shape = ("?",)


class LayerProtocol(ABC):
    """The answers of a layer, with their defaults.

    Attributes
    ----------
    takes : frozenset of str
        The descriptions of a batch that ``forward`` and ``__call__`` take as keywords beside their inputs: "lengths",
        the valid steps (B,) of each sample; "resets", before which steps its state starts again, (B, T). Who calls the
        layer passes on what is named here.
    output_names : tuple of str
        Of a layer whose y, and dy, is a dictionary of several arrays; empty for one array.
    """

    op: ClassVar[str]
    xp: Any
    device: str
    takes: ClassVar[frozenset[str]] = frozenset()
    output_names: tuple[str, ...] = ()

    @abstractmethod
    def children(self) -> Mapping[str, Any]:
        """Return the layers right inside this one by name."""

    def input_shape(self) -> Shape:
        """Return the shape of the (first) input.

        Sizes are integers; names stand for those that a call decides: "B", the batch; "T", the time steps (S those of a
        source); "..." for any axes. ("...",), the default, is anything.
        """
        return ANY

    def output_shape(self, x: Shape) -> Any:
        """Return the shape of y, without the state, for an (first) input of shape x; a list where y is several arrays.

        ("?",), the default, is not known.
        """
        return UNKNOWN

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return what each child reads, in the order of their calls, for an input of shape x."""
        return {name: child.input_shape() for name, child in self.children().items()}

    def state_sizes(self) -> StateSizes | None:
        """Return the sizes of the state, nested as it is; None, the default, for a layer without one.

        A layer with a state takes ``state=`` in ``forward`` and ``__call__``, None for zeros, and returns (y, state)
        with the state at each sample's true end; its ``backward(tape, dy, dstate=None)`` returns (dx, dstate0).
        """
        return None

    def carried_sizes(self) -> StateSizes | None:
        """Return the sizes of the state that a call can take and return, so that the next one goes on from there.

        By default that of the layer. A composite that returns y alone takes ``state=`` and ``return_state=True``, of
        which it returns (y, state), nested as here; its ``backward`` of such a tape takes ``dstate`` and returns (dx,
        dstate0).
        """
        return self.state_sizes()

    def reads_future(self) -> bool:
        """Return whether y at a step depends on later steps, as it does in a layer of both directions.

        By default a layer does so if one inside it does.
        """
        return any(child.reads_future() for child in self.children().values())

    def final_features(self) -> int | None:
        """Return the size of what ``final_output`` returns; None where it is not known. By default that of y."""
        return features_of(self)

    def final_output(self, y: Array, state: Any, lengths: Any) -> Array:
        """Return the output at each sample's true end (B, features) from those of a call; ``lengths`` as it got them.

        By default y at the last valid step, 0 without one. Layers with a state may take it from there.
        """
        rows, last = last_steps(self.op, y.shape, lengths, self.xp)
        result: Array = self.xp.zeros((len(y), y.shape[2]), dtype=y.dtype)
        result[rows] = y[rows, last]
        return result

    def final_output_backward(self, d: Array, y_shape: tuple[int, ...], lengths: Any) -> tuple[Array | None, Any]:
        """Return (dy, dstate), as ``backward`` takes them, for the gradient d (B, features) of ``final_output``."""
        rows, last = last_steps(self.op, y_shape, lengths, self.xp)
        dy = self.xp.zeros(y_shape, dtype=d.dtype)
        dy[rows, last] = d[rows]
        return dy, None

    def stream(self, batch_size: int = 1) -> Any:
        """Return what advances the layer by one time step per call and keeps the state: step(x), state, reset(state).

        By default each step is a call of the layer.

        Raises
        ------
        TypeError
            If the layer has no state.
        ValueError
            If it also reads the future.
        """
        if self.state_sizes() is None:
            raise TypeError(f"{self.op}: stream needs a state carried from step to step; there is none")
        if self.reads_future():
            raise ValueError(f"{self.op}: stream needs one forward direction; this layer also reads the future")
        return CallStream(self, batch_size)


def known_input(layer: LayerProtocol, x: Shape) -> Shape:
    """Return x, the shape of what a layer reads; where it is not known, what the layer says that it reads."""
    own = layer.input_shape()
    return own if x in (ANY, UNKNOWN) and own != ANY else x


def output_of(layer: LayerProtocol, x: Shape) -> Any:
    """Return the shape of y of a layer inside another, where x may be unknown."""
    return layer.output_shape(known_input(layer, x))


def features_of(layer: LayerProtocol) -> int | None:
    """Return the size of the last axis of a layer's y; None where that is not known or y is several arrays."""
    return known_size(layer.output_shape(layer.input_shape()))


def known_size(shape: Any) -> int | None:
    """Return the last size of a shape; None where that is a name, or there are several shapes."""
    size = shape[-1] if isinstance(shape, tuple) and shape else None
    return int(size) if isinstance(size, (int, np.integer)) else None


def is_time_major(layer: LayerProtocol) -> bool:
    """Return whether a layer reads (T, B, ...)."""
    return layer.input_shape()[:1] == ("T",)
