"""Single steps of a recurrent layer on any device."""

from __future__ import annotations

from typing import Any

from ..arrays.checks import Array
from ..layers import Layer


class Calls:
    """What a stream does, by a call for each time step: for layers on cuda, where there are no streams."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self.state: Any = None

    def step(self, x: Array) -> Array:
        """Advance by one time step: x (B, input_size) to y (B, features)."""
        y, self.state = self._layer(x[:, None], self.state)
        last: Array = y[:, 0]
        return last

    def reset(self, state: Any = None) -> None:
        """Set the state; None: zeros."""
        self.state = state


def stepper(layer: Any, batch_size: int) -> Any:
    """Return what advances a batch-major layer by one step a call: its stream on the cpu, calls on cuda."""
    return layer.stream(batch_size) if layer.device == "cpu" else Calls(layer)
