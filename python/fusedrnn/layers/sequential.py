"""One layer after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, overload

from ..arrays.checks import brief, described
from ..arrays.lengths import unragged
from .base import Layer, Tape
from .calling import (
    backward_on,
    call_layer,
    check_carried,
    check_gradients,
    check_resets,
    clean_input,
    first,
    forward_layer,
    frozen_bottom,
    run_on,
    runs_in_training,
)
from .protocol import Shape, is_time_major, output_of
from .registry import layer_from_spec, layer_spec, register_layer
from .states import StateSizes
from .stream import ChainStream, check_steps


@register_layer
class Sequential(Layer):
    """Feed each layer's output to the next; recurrent layers pass on y and drop their state.

    Parameters
    ----------
    *layers : Layer
        At least one. Parameters are named "0.weight", "1.weight_ih_l0" and so on, as in torch. A layer may occur
        twice: its parameters are shared and its gradients add up.
    """

    takes = frozenset({"lengths", "resets"})

    def __init__(self, *layers: Layer) -> None:
        for index, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                raise TypeError(f"{self.op}: layer {index} is {described(layer)}; expected a Layer")
            if layer.output_names:
                raise TypeError(f"{self.op}: layer {index} is {layer.op} with several outputs; expected one output")
        if not layers:
            raise ValueError(f"{self.op}: got no layers; expected at least one")
        typical = next((layer for layer in layers if layer.params), layers[0])
        super().__init__(dtype=typical.dtype, device=typical.device)
        for index, layer in enumerate(layers):
            self._add_child(str(index), layer)

    def config(self) -> dict[str, Any]:
        """Return the specifications of the layers; the index of the first occurrence stands for a repeated one."""
        layers = list(self)
        first_index = {id(layer): index for index, layer in reversed(list(enumerate(layers)))}
        return {
            "layers": [
                layer_spec(layer) if first_index[id(layer)] == index else first_index[id(layer)]
                for index, layer in enumerate(layers)
            ]
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Sequential:
        """Make a model from what ``config`` returned."""
        specs = config.get("layers")
        if not isinstance(specs, list):
            raise TypeError(f"{cls.op}: layers is {described(specs)}; expected a list of specifications")
        layers: list[Layer] = []
        for index, spec in enumerate(specs):
            if type(spec) is not int:
                layers.append(layer_from_spec(spec))
            elif 0 <= spec < index:
                layers.append(layers[spec])
            else:
                raise ValueError(f"{cls.op}: layer {index} is {brief(spec)}; expected the index of an earlier one")
        return cls(*layers)

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._children.values())

    @overload
    def __getitem__(self, index: int) -> Layer: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Layer:
        chosen = list(self)[index]
        return Sequential(*chosen) if isinstance(chosen, list) else chosen

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(map(repr, self))})"

    def __call__(
        self, x: Any, lengths: Any = None, *, state: Any = None, return_state: bool = False, resets: Any = None
    ) -> Any:
        """Compute the last layer's y in inference mode.

        Parameters
        ----------
        x : array_like, or list of N arrays (T_n, ...)
            As the first layer takes it; sequences of unequal length are padded, and ``lengths`` theirs.
        lengths : array_like of int (B,), optional
            Valid time steps of each sample, for the layers that take them.
        state : tuple, optional
            The initial states of the layers that have one, in their order; None for one, or all, stands for zeros.
        return_state : bool
            Return (y, state) with the final states instead, from which another call may go on.
        resets : array_like of bool, optional
            Laid out as x, (B, T): before a marked step the states of all layers are zero again.
        """
        check_resets(self.op, resets, *self)
        x, lengths = unragged(self.op, "x", x, lengths)
        x = self._clean(x, lengths)
        if state is None and not return_state:
            for layer in self:
                x = call_layer(layer, x, lengths, resets)
            return x
        y, final, _ = self._run(False, x, lengths, state, resets)
        return (y, final) if return_state else y

    def forward(
        self, x: Any, lengths: Any = None, *, state: Any = None, return_state: bool = False, resets: Any = None
    ) -> tuple[Any, Tape]:
        """Compute (y, tape), or ((y, state), tape), in training mode; arguments as in ``__call__``."""
        check_resets(self.op, resets, *self)
        x, lengths = unragged(self.op, "x", x, lengths)
        x = self._clean(x, lengths)
        if state is not None or return_state:
            y, final, each = self._run(True, x, lengths, state, resets)
            return ((y, final) if return_state else y), Tape(self, (each, return_state))
        layers, tapes = list(self), []
        bottom = frozen_bottom(layers)
        for index, layer in enumerate(layers):
            frozen = index < bottom
            run = forward_layer if runs_in_training(layer, frozen) else _call_without_tape
            x, tape = run(layer, x, lengths, resets)
            tapes.append(None if frozen else tape)
        return x, Tape(self, (tapes, False))

    def backward(self, tape: Tape, dy: Any, dstate: Any = None) -> Any:
        """Return dx for dy, shaped as the last layer's y; None if x has none: the first layer embeds, or is frozen.

        For a tape with ``return_state=True``, return (dx, dstate0), the latter as the state; ``dstate`` is the gradient
        of the final states, and dy may be None where that is given. None in either stands for zeros.
        """
        tapes, carried = self._saved(tape)
        check_gradients(self.op, carried, dy, dstate)
        if not carried:
            d = dy
            for layer, child_tape in zip(reversed(list(self)), reversed(tapes), strict=True):
                if child_tape is None:
                    return None
                d = first(layer.backward(child_tape, d))
            return d
        d, start = dy, []
        for layer, child_tape, part in zip(
            reversed(list(self)), reversed(tapes), reversed(self._parts("dstate", dstate)), strict=True
        ):
            d, dstate0 = backward_on(layer, child_tape, d, part)
            if layer.carried_sizes() is not None:
                start.append(dstate0)
        return d, tuple(reversed(start))

    def carried_sizes(self) -> StateSizes | None:
        """Return the sizes of the states of the layers that have one, in their order; None if none has."""
        sizes = (layer.carried_sizes() for layer in self)
        return tuple(each for each in sizes if each is not None) or None

    def stream(self, batch_size: int = 1) -> ChainStream:
        """Return what computes y one time step per call: step(x), state, reset(state).

        The bits are those of all steps in one call.

        Raises
        ------
        TypeError
            If no layer has a state.
        ValueError
            If one also reads the future.
        """
        check_steps(self)
        return ChainStream(list(self), batch_size, nested=True)

    def input_shape(self) -> Shape:
        """Return what the first layer reads."""
        return self[0].input_shape()

    def output_shape(self, x: Shape) -> Any:
        """Return what the last layer makes of what the others make of x."""
        return list(self._shapes(x))[-1]

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the first layer, and each one's y for the next."""
        return dict(zip(self._children, self._shapes(x), strict=False))

    def _shapes(self, x: Shape) -> Iterator[Any]:
        """Yield x, and what each layer makes of it."""
        yield x
        for layer in self:
            x = output_of(layer, x)
            yield x

    def _clean(self, x: Any, lengths: Any) -> Any:
        if lengths is None:
            return x
        reads = self[0]
        if "lengths" in reads.takes:
            return x
        return clean_input(self.op, reads, x, lengths, time_major=any(map(is_time_major, self.layers())))

    def _run(
        self, training: bool, x: Any, lengths: Any, state: Any, resets: Any
    ) -> tuple[Any, tuple[Any, ...], list[Any]]:
        """Return (y, states, tapes)."""
        check_carried(self.op, self)
        tapes, states = [], []
        for layer, part in zip(self, self._parts("state", state), strict=True):
            x, final, tape = run_on(layer, training, x, lengths, part, resets)
            tapes.append(tape)
            if layer.carried_sizes() is not None:
                states.append(final)
        return x, tuple(states), tapes

    def _parts(self, name: str, state: Any) -> list[Any]:
        """Return the state of each layer; None for one that has none."""
        carry = [layer.carried_sizes() is not None for layer in self]
        if state is None:
            return [None] * len(carry)
        if not isinstance(state, (tuple, list)) or len(state) != sum(carry):
            got = f"{len(state)} states" if isinstance(state, (tuple, list)) else described(state)
            raise ValueError(
                f"{self.op}: {name} is {got}; expected a tuple of {sum(carry)}, one for each layer with one"
            )
        rest = iter(state)
        return [next(rest) if each else None for each in carry]


def _call_without_tape(layer: Layer, x: Any, lengths: Any, resets: Any) -> tuple[Any, None]:
    return call_layer(layer, x, lengths, resets), None
