"""A recurrent layer and its reverse, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..arrays.checks import Array, as_real, check_shape, described
from .base import Layer, Tape
from .protocol import Shape, output_of
from .recurrent import Recurrent
from .registry import layer_from_spec, layer_spec, register_layer
from .states import StateSizes

MERGES = ("concat", "sum", "mul", "ave", None)


@register_layer
class Bidirectional(Layer):
    """Run a recurrent layer forward over time and a second one in reverse, and merge their outputs.

    With several layers in ``layer``, the whole stack runs in each direction and the merge comes last
    (``LSTM(bidirectional=True)`` concatenates after every layer instead). Schuster & Paliwal 1997.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        With one direction. It becomes the forward child; the reverse child has its configuration and fresh weights.
    merge : {"concat", "sum", "mul", "ave", None}
        How y_forward and y_reverse (..., H) become y: side by side on the last axis (..., 2 H), their sum, product or
        mean, or the pair (y_forward, y_reverse).
    seed : int, optional
        Seed for the reverse child's weights.

    Raises
    ------
    TypeError
        If ``layer`` is not a recurrent layer.
    ValueError
        If ``layer`` has both directions already or ``merge`` is unknown.
    """

    takes = frozenset({"lengths", "resets"})
    _fixed = frozenset({"hidden_size", "batch_first", "merge", "dtype"})

    def __init__(self, layer: Any, merge: str | None = "concat", *, seed: int | None = None) -> None:
        if not isinstance(layer, Recurrent):
            raise TypeError(f"{self.op}: layer is {described(layer)}; expected a recurrent layer")
        if layer.bidirectional:
            raise ValueError(f"{self.op}: layer has bidirectional=True; expected a layer of one direction")
        if merge not in MERGES:
            raise ValueError(f"{self.op}: merge is {merge!r}; expected one of {', '.join(map(repr, MERGES))}")
        super().__init__(dtype=layer.dtype, device=layer.device)
        self.merge = merge
        self.hidden_size: int = layer.hidden_size
        self.batch_first: bool = layer.batch_first
        self._forward_layer, self._reverse_layer = layer, layer.reversed_copy(seed=seed)
        self._add_child("forward", layer)
        self._add_child("reverse", self._reverse_layer)

    def config(self) -> dict[str, Any]:
        """Return the forward layer's specification and the merge."""
        config: dict[str, Any] = {"layer": layer_spec(self._children["forward"]), "merge": self.merge}
        reverse = self._reverse_layer.quantization
        if reverse != self._forward_layer.quantization:  # one of them was kept by name
            config["reverse_quantized"] = reverse
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Bidirectional:
        """Make a layer from what ``config`` returned."""
        if "reverse_quantized" not in config:
            return cls(layer_from_spec(config["layer"]), config["merge"])
        arguments = dict(config["layer"]["config"])
        forward, reverse = arguments.pop("quantized", None), config["reverse_quantized"]
        layer = cls(layer_from_spec({**config["layer"], "config": arguments}), config["merge"])
        layer._forward_layer._set_quantization(forward)
        layer._reverse_layer._set_quantization(reverse)
        return layer

    def __call__(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None, reset_state: Any = None
    ) -> tuple[Any, tuple[Any, Any]]:
        """Compute (y, (state_forward, state_reverse)) in inference mode.

        Parameters
        ----------
        x : array_like
            As the recurrent layer takes it: (B, T, I), (T, B, I) or (T, I).
        state : pair, optional
            Initial states of the two directions, each as the recurrent layer takes it, or None.
        lengths : array_like of int (B,), optional
            Valid time steps; the reverse direction starts at each sample's true end.
        resets : array_like of bool, optional
            Laid out as x, (B, T): where the state starts again, as the recurrent layer takes it.
        reset_state : pair, optional
            The states after a reset of the two directions, or None.
        """
        (y0, s0), (y1, s1) = (child(x, **kwargs) for child, kwargs in self._calls(state, lengths, resets, reset_state))
        return self._merge(y0, y1), (s0, s1)

    def forward(
        self, x: Any, state: Any = None, lengths: Any = None, resets: Any = None, reset_state: Any = None
    ) -> tuple[tuple[Any, tuple[Any, Any]], Tape]:
        """Compute ((y, (state_forward, state_reverse)), tape) in training mode; arguments as in ``__call__``."""
        ((y0, s0), tape0), ((y1, s1), tape1) = (
            child.forward(x, **kwargs) for child, kwargs in self._calls(state, lengths, resets, reset_state)
        )
        factors = (y0, y1) if self.merge == "mul" else None
        return (self._merge(y0, y1), (s0, s1)), Tape(self, (tape0, tape1, y0.shape, factors))

    def backward(self, tape: Tape, dy: Any, dstate: Any = None) -> Any:
        """Return (dx, (dstate_forward, dstate_reverse)); as a third value that of ``reset_state``, if it was given.

        Parameters
        ----------
        tape : Tape
            From ``forward``.
        dy : array_like
            Shaped as y (a pair of them for ``merge=None``); may be None where dstate is given.
        dstate : pair, optional
            Gradients of the final states, each as the recurrent layer takes it, or None.
        """
        tape0, tape1, shape, factors = self._saved(tape)
        dstates = self._pair("dstate", dstate)
        dy0, dy1 = self._split(dy, shape, factors)
        forward, reverse = self._children.values()
        dx, ds0, *again0 = forward.backward(tape0, dy0, dstate=dstates[0])
        dx_reverse, ds1, *again1 = reverse.backward(tape1, dy1, dstate=dstates[1])
        if not (again0 or again1):
            return dx + dx_reverse, (ds0, ds1)
        return dx + dx_reverse, (ds0, ds1), (next(iter(again0), None), next(iter(again1), None))

    def _calls(self, state: Any, lengths: Any, resets: Any, reset_state: Any) -> Iterator[tuple[Layer, dict[str, Any]]]:
        """Yield each direction's layer and the keywords of its call."""
        shared = {"lengths": lengths} if resets is None else {"lengths": lengths, "resets": resets}
        states, again = self._pair("state", state), self._pair("reset_state", reset_state)
        if reset_state is not None and resets is None:
            raise ValueError(f"{self.op}: reset_state is given without resets; expected both or neither")
        for child, start, restart in zip(self._children.values(), states, again, strict=True):
            yield child, {"state": start, **shared} | ({} if restart is None else {"reset_state": restart})

    def input_shape(self) -> Shape:
        """Return what the recurrent layer reads."""
        return self._children["forward"].input_shape()

    def output_shape(self, x: Shape) -> Any:
        """Return the merged shape; that of each direction for ``merge=None``."""
        y = output_of(self._children["forward"], x)
        if self.merge is None:
            return [y, y]
        return (*y[:-1], 2 * y[-1]) if self.merge == "concat" else y

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for both directions."""
        return {"forward": x, "reverse": x}

    def state_sizes(self) -> StateSizes:
        """Return the pair of the directions' sizes."""
        size = self._forward_layer.state_sizes()
        return size, size

    def reads_future(self) -> bool:
        """Return True."""
        return True

    def final_features(self) -> int:
        """Return 2 H, whatever the merge; 2 P with a projection."""
        return 2 * self._forward_layer.output_size

    def final_output(self, y: Any, state: Any, lengths: Any) -> Array:
        """Return the last layer's final h of both directions, side by side (B, 2 H), whatever the merge."""
        parts = [
            layer.final_output(None, part, lengths)
            for layer, part in zip((self._forward_layer, self._reverse_layer), state, strict=True)
        ]
        joined: Array = self.xp.concatenate(parts, axis=1)
        return joined

    def final_output_backward(self, d: Array, y_shape: Any, lengths: Any) -> tuple[None, Any]:
        """Return (None, the pair of dstate) for the gradient d of ``final_output``."""
        half = d.shape[1] // 2
        layers, parts = (self._forward_layer, self._reverse_layer), (d[:, :half], d[:, half:])
        return None, tuple(
            layer.final_output_backward(part, y_shape, lengths)[1] for layer, part in zip(layers, parts, strict=True)
        )

    def _pair(self, name: str, value: Any) -> tuple[Any, Any]:
        if value is None:
            return None, None
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ValueError(f"{self.op}: {name} is {described(value)}; expected a pair (forward, reverse) or None")
        return value[0], value[1]

    def _merge(self, y0: Array, y1: Array) -> Any:
        if self.merge is None:
            return y0, y1
        if self.merge == "concat":
            return self.xp.concatenate((y0, y1), axis=-1)
        if self.merge == "mul":
            return y0 * y1
        total = y0 + y1
        return total if self.merge == "sum" else total * total.dtype.type(0.5)

    def _split(self, dy: Any, shape: tuple[int, ...], factors: Any) -> tuple[Any, Any]:
        """Return the gradients of the two outputs, (..., H) each, from that of the merged one."""
        if self.merge is None:
            return self._pair("dy", dy)
        if dy is None:
            return None, None
        dy = as_real(self.op, "dy", dy, self.dtype, self.xp)
        width = shape[-1]
        merged_width = 2 * width if self.merge == "concat" else width
        check_shape(self.op, "dy", dy, "..., features", (*shape[:-1], merged_width))
        if self.merge == "concat":
            return dy[..., :width], dy[..., width:]
        if self.merge == "mul":
            return dy * factors[1], dy * factors[0]
        half = dy if self.merge == "sum" else dy * dy.dtype.type(0.5)
        return half, half
