"""From a vector to the initial state of a recurrent layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..arrays.checks import Array
from ..layers import Layer, Linear, Tape, register_layer
from ..layers.activation import DERIVATIVES
from ..layers.calling import run
from ..layers.protocol import Shape
from ..layers.registry import layer_from_spec, layer_spec
from ..layers.states import StateSize, flatten_state, state_features, unflatten_state
from .model import Model, check_recurrent


@register_layer
class Bridge(Model):
    r"""A vector as initial state, :math:`\tanh(W v + b)`: every h and c of ``layer`` (Cho et al. 2014, appendix A.1.2).

    Parameters
    ----------
    in_features : int
        Size of v.
    layer : Layer
        The recurrent layer that the state is for; it does not become a child.
    seed : int, optional
        Seed for the initial weights.

    Raises
    ------
    TypeError
        If ``layer`` has no state.
    """

    def __init__(self, in_features: int, layer: Layer, *, seed: int | None = None) -> None:
        self._sizes = check_recurrent(self.op, "layer", layer)
        self._layer = layer
        self.linear = Linear(
            in_features, state_features(self._sizes), dtype=layer.dtype, device=layer.device, seed=seed
        )
        super().__init__(linear=self.linear)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"in_features": self.linear.in_features, "layer": layer_spec(self._layer)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Bridge:
        """Make a layer from what ``config`` returned."""
        return cls(config["in_features"], layer_from_spec(config["layer"]))

    def __call__(self, v: Any) -> Any:
        """Compute the state, as the layer takes it, from v (B, in_features)."""
        return self._run(False, v)[0]

    def forward(self, v: Any) -> tuple[Any, Tape]:
        """Compute (state, tape)."""
        return self._run(True, v)

    def backward(self, tape: Tape, dstate: Any) -> Array:
        """Return dv for the gradient of the state, nested and shaped as it."""
        linear_tape, y = self._saved(tape)
        return self.linear.backward(linear_tape, DERIVATIVES["tanh"](y, flatten_state(dstate)))

    def input_shape(self) -> Shape:
        """Return (B, in_features)."""
        return "B", self.linear.in_features

    def output_shape(self, x: Shape) -> Any:
        """Return the shapes of the state's arrays."""
        return _state_shapes(self._sizes)

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the linear layer."""
        return {"linear": x}

    def _run(self, training: bool, v: Any) -> tuple[Any, Tape]:
        flat, linear_tape = run(self.linear, training, v)
        y = self.xp.tanh(flat)
        return unflatten_state(y, self._sizes), Tape(self, (linear_tape, y))


def _state_shapes(sizes: Any) -> list[Shape]:
    if isinstance(sizes, StateSize):
        return [(sizes.slabs, "B", sizes.hidden_size)]
    return [shape for part in sizes for shape in _state_shapes(part)]
