"""A deep stack of recurrent layers with skip connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..arrays.checks import Array, as_real, described, seed_sequence
from ..arrays.lengths import without_padding
from ..layers import Layer, Linear, Tape, register_layer
from ..layers.calling import check_resets, options, run
from ..layers.protocol import Shape
from ..layers.registry import layer_from_spec, layer_spec
from ..layers.states import StateSizes
from .model import Model, batch_lengths, check_recurrent, input_features, output_features


@register_layer
class Residual(Model):
    r"""Each layer adds to what it reads, so that gradients reach the lowest layers.

    .. math::

        x_{l+1}(t) = x_l(t) + f_l(x_l)(t).

    Where the sizes of the two terms differ, the first is multiplied by a matrix, without bias (He et al. 2016,
    equation 2). Use as a recurrent layer: it returns y and the tuple of the layers' states.

    Parameters
    ----------
    *layers : RNN, LSTM, GRU or Bidirectional
        From the input up, at least one; each reads the size that the one below it returns. Their parameters are named
        "0.weight_ih_l0" and so on, the matrices "shortcut0.weight".
    seed : int, optional
        Seed for the matrices.
    """

    takes = frozenset({"lengths", "resets"})

    def __init__(self, *layers: Layer, seed: int | None = None) -> None:
        if not layers:
            raise ValueError(f"{self.op}: got no layers; expected at least one")
        children: dict[str, Layer] = {}
        seeds = seed_sequence(self.op, seed).generate_state(len(layers)).tolist()
        size = 0
        for index, layer in enumerate(layers):
            check_recurrent(self.op, f"layer {index}", layer)
            inputs = input_features(self.op, f"layer {index}", layer)
            if index and inputs != size:
                raise ValueError(f"{self.op}: layer {index} has input_size {inputs}; expected {size}")
            size = output_features(self.op, f"layer {index}", layer)
            children[str(index)] = layer
            if inputs != size:
                shortcut = Linear(inputs, size, bias=False, dtype=layer.dtype, device=layer.device, seed=seeds[index])
                children[f"shortcut{index}"] = shortcut
        super().__init__(**children)
        self.out_features = size
        self.input_size = input_features(self.op, "layer 0", layers[0])
        self._pairs: list[tuple[Any, Layer | None]] = [
            (layer, children.get(f"shortcut{index}")) for index, layer in enumerate(layers)
        ]

    def config(self) -> dict[str, Any]:
        """Return the specifications of the layers."""
        return {"layers": [layer_spec(layer) for layer, _ in self._pairs]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Residual:
        """Make a layer from what ``config`` returned."""
        return cls(*map(layer_from_spec, config["layers"]))

    def state_sizes(self) -> StateSizes:
        """Return the sizes of the layers' states."""
        return tuple(check_recurrent(self.op, "layer", layer) for layer, _ in self._pairs)

    def __call__(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[Array, tuple[Any, ...]]:
        """Compute (y, states) in inference mode.

        Parameters
        ----------
        x : array_like (B, T, I)
            The input.
        state : sequence, optional
            The layers' initial states, each as the layer takes it.
        lengths : array_like of int (B,), optional
            Valid time steps; y past them is 0.
        resets : array_like of bool (B, T), optional
            Before a marked step the layers' states are zero again.
        """
        outputs: tuple[Array, tuple[Any, ...]] = self._run(False, x, state, lengths, resets)[0]
        return outputs

    def forward(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[tuple[Array, tuple[Any, ...]], Tape]:
        """Compute ((y, states), tape) in training mode; arguments as in ``__call__``."""
        return self._run(True, x, state, lengths, resets)

    def backward(self, tape: Tape, dy: Any, dstate: Any = None) -> tuple[Array, tuple[Any, ...]]:
        """Return (dx, dstates0) for dy and the gradients of the final states; either may be None."""
        tapes, y_shape, lengths = self._saved(tape)
        if dy is None and dstate is None:
            raise ValueError(f"{self.op}: dy and dstate are None; expected at least one gradient")
        xp = self.xp
        d = xp.zeros(y_shape, dtype=self.dtype) if dy is None else as_real(self.op, "dy", dy, self.dtype, xp)
        d = without_padding(self.op, d, lengths)
        states = []
        dstates = self._parts("dstate", dstate)
        for (layer, shortcut), (tape_l, shortcut_tape), part in reversed(
            list(zip(self._pairs, tapes, dstates, strict=True))
        ):
            skipped = d if shortcut is None else shortcut.backward(shortcut_tape, d)
            dx, dstate0 = layer.backward(tape_l, d, dstate=part)
            d = dx + skipped
            states.append(dstate0)
        return d, tuple(reversed(states))

    def stream(self, batch_size: int = 1) -> ResidualStream:
        """Return a :class:`ResidualStream`: one time step per call, with the recurrent weights as they are now."""
        for index, (layer, _) in enumerate(self._pairs):
            if layer.reads_future():
                got = f"stream needs one forward direction; layer {index} is {described(layer)}"
                raise ValueError(f"{self.op}: {got}, which also reads the future")
        return ResidualStream(self._pairs, batch_size, self.dtype, self.op)

    def input_shape(self) -> Shape:
        """Return (B, T, I)."""
        return "B", "T", self.input_size

    def output_shape(self, x: Shape) -> Any:
        """Return x's shape with the features of the last layer."""
        return (*x[:-1], self.out_features)

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return for each layer, and for the matrix beside it, what the layers below make of x."""
        inputs = {}
        for index, (layer, shortcut) in enumerate(self._pairs):
            inputs[str(index)] = x
            if shortcut is not None:
                inputs[f"shortcut{index}"] = x
            x = layer.output_shape(x)
        return inputs

    def _run(self, training: bool, x: Any, state: Any, lengths: Any, resets: Any) -> tuple[Any, Tape]:
        check_resets(self.op, resets, *(layer for layer, _ in self._pairs))
        y = as_real(self.op, "x", x, self.dtype, self.xp)
        if y.ndim != 3:
            raise ValueError(f"{self.op}: x has shape {y.shape}; expected (batch, time, input_size)")
        lengths = batch_lengths(self.op, y, lengths)
        y = without_padding(self.op, y, lengths)
        tapes, states = [], []
        for (layer, shortcut), part in zip(self._pairs, self._parts("state", state), strict=True):
            (h, final), tape = run(layer, training, y, state=part, **options(layer, lengths, resets))
            skipped, shortcut_tape = (y, None) if shortcut is None else run(shortcut, training, y)
            y = skipped + h
            tapes.append((tape, shortcut_tape))
            states.append(final)
        return (y, tuple(states)), Tape(self, (tapes, y.shape, lengths))

    def _parts(self, name: str, state: Any) -> Any:
        if state is None:
            return (None,) * len(self._pairs)
        if not isinstance(state, (tuple, list)) or len(state) != len(self._pairs):
            raise ValueError(f"{self.op}: {name} is {described(state)}; expected {len(self._pairs)} states")
        return state


class ResidualStream:
    """Single steps of a :class:`Residual`; made by its ``stream``. One stream belongs to one thread at a time."""

    def __init__(self, pairs: list[tuple[Any, Layer | None]], batch_size: int, dtype: Any, op: str) -> None:
        self._parts = [(layer.stream(batch_size), shortcut) for layer, shortcut in pairs]
        self._dtype, self._op = dtype, op
        self.batch_size = batch_size

    def step(self, x: Any) -> Array:
        """Advance by one time step: x (batch_size, input_size) to y (batch_size, features)."""
        y = as_real(self._op, "x", x, self._dtype)
        for stream, shortcut in self._parts:
            y = (y if shortcut is None else shortcut(y)) + stream.step(y)
        return y

    @property
    def state(self) -> tuple[Any, ...]:
        """A copy of the layers' states."""
        return tuple(stream.state for stream, _ in self._parts)

    def reset(self, state: Any = None) -> None:
        """Set the states; None: zeros."""
        parts = (None,) * len(self._parts) if state is None else state
        for (stream, _), part in zip(self._parts, parts, strict=True):
            stream.reset(part)
