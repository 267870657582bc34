"""What each kind of layer is in ONNX's operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..arrays.checks import Array
from ..layers import Activation, Bidirectional, Dropout, Embedding, GaussianNoise, Layer, Linear, Recurrent, Sequential
from ..models import SequenceToSequence, SequenceToVector
from .attributes import node_attributes
from .builder import Builder

OP = "onnx.export"
# Which of this package's gates come in ONNX's order: ifgo -> iofc, rzn -> zrh.
_ORDER = {"RNN": [0], "LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}
_FUNCTIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "identity": "Identity"}


@dataclass(frozen=True)
class Batch:
    """What a batch is in the graph: the names of its lengths (B,) int32 and of the mask (B, T, 1); "" for none."""

    builder: Builder
    lengths: str = ""
    mask: str = ""

    def cleaned(self, x: str, dtype: np.dtype[Any], *, tokens: bool = False) -> str:
        """Return x (B, T, ...) with 0 past each sample's end."""
        if not self.mask:
            return x
        build = self.builder
        mask = build.add("Squeeze", self.mask, build.integers(2)) if tokens else self.mask
        return str(build.add("Where", mask, x, build.tensor(np.zeros((), np.int64 if tokens else dtype))))


def write(batch: Batch, layer: Layer, x: str, start: tuple[str, ...] = ()) -> tuple[str, tuple[str, ...]]:
    """Add a layer to the graph; return the names of y and of its final state.

    Raises
    ------
    TypeError
        If there is nothing in ONNX for its class.
    """
    for cls in type(layer).__mro__:
        if cls in _WRITERS:
            return _WRITERS[cls](batch, layer, x, start)
    raise TypeError(f"{OP}: {layer.op} cannot be written; expected recurrent layers, Sequential and the like")


def _recurrent(batch: Batch, layer: Any, x: str, start: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    build = batch.builder
    attributes = node_attributes(layer.op, layer.config())
    states: list[list[str]] = []
    if layer.batch_first:
        x = build.add("Transpose", x, perm=[1, 0, 2])
    for index in range(layer.num_layers):
        first, end = index * layer.num_directions, (index + 1) * layer.num_directions
        at = (build.integers(first), build.integers(end), build.integers(0)) if start else ()
        initial = [build.add("Slice", part, *at) for part in start]
        weights = _weights(build, layer, index)
        inputs = [x, *weights, batch.lengths, *initial]
        if layer.variant.peephole:
            inputs += [""] * (7 - len(inputs)) + [_peepholes(build, layer, index)]
        y, *final = build.add(layer.op, *inputs, outputs=2 + layer._has_cell_state, **attributes)
        states.append(final)
        if layer.bidirectional:
            x = build.add("Transpose", y, perm=[0, 2, 1, 3])
            x = build.add("Reshape", x, build.integers(0, 0, 2 * layer.hidden_size))
        else:
            x = build.add("Squeeze", y, build.integers(1))
    if layer.batch_first:
        x = build.add("Transpose", x, perm=[1, 0, 2])
    parts = [list(part) for part in zip(*states, strict=True)]
    return x, tuple(part[0] if len(part) == 1 else build.add("Concat", *part, axis=0) for part in parts)


def _weights(build: Builder, layer: Any, index: int) -> list[str]:
    """Return the names of W, R and B of one layer of a stack; B is "" without a bias."""
    suffixes = ("", "_reverse")[: layer.num_directions]
    params = layer.state_dict()

    def stacked(*names: str) -> str:
        each = [
            np.concatenate([_reordered(layer.op, params[f"{name}_l{index}{suffix}"]) for name in names])
            for suffix in suffixes
        ]
        return build.tensor(np.stack(each))

    return [
        stacked("weight_ih"),
        stacked("weight_hh"),
        stacked("bias_ih", "bias_hh") if layer.bias else "",
    ]


def _peepholes(build: Builder, layer: Any, index: int) -> str:
    """Return the name of P (directions, 3*H) of one layer of a stack, whose order is i o f."""
    params, suffixes = layer.state_dict(), ("", "_reverse")[: layer.num_directions]
    each = [np.split(params[f"weight_peephole_l{index}{suffix}"], 3) for suffix in suffixes]
    return build.tensor(np.stack([np.concatenate([i, o, f]) for i, f, o in each]))


def _reordered(op: str, array: Array) -> Array:
    gates = np.split(array, len(_ORDER[op]))
    return np.concatenate([gates[each] for each in _ORDER[op]])


def _bidirectional(batch: Batch, layer: Any, x: str, start: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    build, half = batch.builder, len(start) // 2
    forward, reverse = layer.children().values()
    y0, s0 = write(batch, forward, x, start[:half])
    y1, s1 = write(batch, reverse, x, start[half:])
    if layer.merge is None:
        raise TypeError(f"{OP}: Bidirectional has merge=None, two outputs; expected one")
    if layer.merge == "concat":
        y = build.add("Concat", y0, y1, axis=-1)
    else:
        y = build.add("Mul" if layer.merge == "mul" else "Add", y0, y1)
    if layer.merge == "ave":
        y = build.add("Mul", y, build.tensor(np.asarray(0.5, layer.dtype)))
    return y, (*s0, *s1)


def _linear(batch: Batch, layer: Any, x: str, _: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    params = layer.state_dict()
    y = batch.builder.add("MatMul", x, batch.builder.tensor(params["weight"].T))
    if layer.bias:
        y = batch.builder.add("Add", y, batch.builder.tensor(params["bias"]))
    return y, ()


def _embedding(batch: Batch, layer: Any, x: str, _: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    return batch.builder.add("Gather", batch.builder.tensor(layer.state_dict()["weight"]), x, axis=0), ()


def _activation(batch: Batch, layer: Any, x: str, _: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    if layer.function == "softmax":
        return batch.builder.add("Softmax", x, axis=-1), ()
    return batch.builder.add(_FUNCTIONS[layer.function], x), ()


def _nothing(batch: Batch, layer: Any, x: str, _: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    return x, ()


def _sequential(batch: Batch, layer: Any, x: str, _: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    for child in layer:
        x, _state = write(batch, child, x)
    return x, ()


def _head(batch: Batch, layer: Any, x: str) -> str:
    """Add the head of a model, which knows no lengths."""
    return write(replace(batch, lengths="", mask=""), layer.head, x)[0]


def _embedded(batch: Batch, layer: Any, x: str) -> str:
    if layer.embedding is not None:
        return write(batch, layer.embedding, x)[0]
    return x


def _to_sequence(batch: Batch, layer: Any, x: str, _: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    y = write(batch, layer.layer, _embedded(batch, layer, x))[0]
    return batch.cleaned(_head(batch, layer, y), layer.dtype), ()


def _to_vector(batch: Batch, layer: Any, x: str, _: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    y, state = write(batch, layer.layer, _embedded(batch, layer, x))
    pool = _last if layer.pooling == "last" else _mean if layer.pooling == "mean" else _maximum
    return _head(batch, layer, pool(batch, layer.layer, y, state)), ()


def _last(batch: Batch, layer: Layer, y: str, state: tuple[str, ...]) -> str:
    build = batch.builder
    if isinstance(layer, Recurrent):
        return _final(build, layer, state[0])
    if isinstance(layer, Bidirectional):
        forward, reverse = layer.children().values()
        halves = (_final(build, forward, state[0]), _final(build, reverse, state[len(state) // 2]))
        return str(build.add("Concat", *halves, axis=1))
    if not batch.mask:
        return str(build.add("Gather", y, build.tensor(np.array(-1)), axis=1))
    # y at the last valid step, 0 without one: of the mask and the mask a step later, the one that differs.
    shifted = build.add("Slice", batch.mask, build.integers(1), build.integers(2**62), build.integers(1))
    none = build.add("Slice", batch.mask, build.integers(0), build.integers(1), build.integers(1))
    none = build.add("And", none, build.tensor(np.zeros((1, 1, 1), bool)))
    last = build.add("Xor", batch.mask, build.add("Concat", shifted, none, axis=1))
    only = build.add("Where", last, y, build.tensor(np.zeros((), layer.dtype)))
    return str(build.add("ReduceSum", only, build.integers(1), keepdims=0))


def _final(build: Builder, layer: Any, h: str) -> str:
    """Return the last layer's final h of each direction, side by side."""
    count = layer.num_directions
    last = build.add("Slice", h, build.integers(-count), build.integers(2**62), build.integers(0))
    last = build.add("Transpose", last, perm=[1, 0, 2])
    return str(build.add("Reshape", last, build.integers(0, count * layer.hidden_size)))


def _mean(batch: Batch, layer: Layer, y: str, _: tuple[str, ...]) -> str:
    build = batch.builder
    if not batch.mask:
        return str(build.add("ReduceMean", y, axes=[1], keepdims=0))
    total = build.add("ReduceSum", batch.cleaned(y, layer.dtype), build.integers(1), keepdims=0)
    count = build.add("Max", batch.lengths, build.tensor(np.ones((), np.int32)))
    count = build.add("Unsqueeze", build.add("CastLike", count, total), build.integers(1))
    return str(build.add("Div", total, count))


def _maximum(batch: Batch, layer: Layer, y: str, _: tuple[str, ...]) -> str:
    build = batch.builder
    if not batch.mask:
        return str(build.add("ReduceMax", y, axes=[1], keepdims=0))
    lowest = build.tensor(np.asarray(np.finfo(layer.dtype).min, layer.dtype))
    most = build.add("ReduceMax", build.add("Where", batch.mask, y, lowest), axes=[1], keepdims=0)
    some = build.add("Greater", batch.lengths, build.tensor(np.zeros((), np.int32)))
    some = build.add("Unsqueeze", some, build.integers(1))
    return str(build.add("Where", some, most, build.tensor(np.zeros((), layer.dtype))))


_WRITERS: dict[type[Any], Callable[[Batch, Any, str, tuple[str, ...]], tuple[str, tuple[str, ...]]]] = {
    Recurrent: _recurrent,
    Bidirectional: _bidirectional,
    Linear: _linear,
    Embedding: _embedding,
    Activation: _activation,
    Dropout: _nothing,
    GaussianNoise: _nothing,
    Sequential: _sequential,
    SequenceToSequence: _to_sequence,
    SequenceToVector: _to_vector,
}
