"""What each operator of a chain does to a value: pure bookkeeping of layers and axes, nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx

from ..arrays.checks import Array
from ..interop import Pool
from .graph import Model, NotConstant, Place, label
from .recurrent import cell_spec, constant_state
from .values import FEATURES, ONE, Affine, Cells, FromInput, Function, Lookup, Side, Stack, Static, Value, Zero, joined

Known: TypeAlias = "Value | Stack | FromInput | Static | None"  # None: a constant


class Unknown(Exception):
    """The chain ends here; the text says why."""


class Call:
    """A node with what is known of its inputs."""

    def __init__(self, model: Model, place: Place, env: dict[str, Known], ranks: dict[str, int]) -> None:
        self.model, self.place, self.node, self.env, self.ranks = model, place, place.node, env, ranks
        self.attributes = {each.name: onnx.helper.get_attribute_value(each) for each in place.node.attribute}

    def operand(self, index: int) -> Known:
        """Return what an input is; None for a constant and for none."""
        name = self.name(index)
        return self.env[name] if name else None

    def name(self, index: int) -> str:
        """Return the name of an input; "" for none."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def data(self, index: int = 0) -> Value | Stack:
        """Return an input that must be a value of the chain."""
        known = self.operand(index)
        if not isinstance(known, (Value, Stack)):
            raise Unknown(f"input {index} is not what the layers before return")
        return known

    def value(self, index: int = 0) -> Value:
        """Return an input that must be an array of the chain, not a stack of several."""
        known = self.data(index)
        if isinstance(known, Stack):
            raise Unknown("it takes the directions or layers of a recurrent node apart")
        return known

    def constant(self, index: int, what: str) -> Array:
        """Return the value of a constant input."""
        if not self.name(index):
            raise Unknown(f"{what} is not given")
        try:
            return self.model.constant(self.place.scope, self.name(index))
        except NotConstant as error:
            raise Unknown(f"{what} is not constant: {error}") from None

    def numbers(self, attribute: str, index: int) -> list[int] | None:
        """Return integers that are an attribute in old operators and an input in new ones; None if not given."""
        if attribute in self.attributes:
            return [int(each) for each in np.ravel(self.attributes[attribute])]
        return [int(each) for each in self.constant(index, attribute).ravel()] if self.name(index) else None


def _features_last(call: Call, value: Value) -> Value:
    """Return a value whose last axis the layers read as features; of an input it becomes that."""
    axes = value.axes
    if axes and axes[-1] != FEATURES and not value.steps and axes[-1] == len(axes) - 1:
        return replace(value, axes=(*axes[:-1], FEATURES))
    if not axes or axes[-1] != FEATURES:
        raise Unknown("the features are not on the last axis")
    return value


def _each(known: Value | Stack, function: Callable[[Value], Value]) -> Value | Stack:
    if isinstance(known, Stack):
        return replace(known, parts=tuple(map(function, known.parts)))
    return function(known)


def _function(name: str) -> Callable[[Call], Known]:
    return lambda call: _each(call.data(), lambda value: value.then(Function(name)))


def _same(call: Call) -> Known:
    return call.operand(0)


def _softmax(call: Call) -> Known:
    value = _features_last(call, call.value())
    default = -1 if call.model.opset >= 13 else 1
    if int(call.attributes.get("axis", default)) not in (-1, len(value.axes) - 1):
        raise Unknown(f"attribute axis is {call.attributes.get('axis', default)}; expected the features, the last")
    return value.then(Function("softmax"))


def _transpose(call: Call) -> Known:
    known = call.data()
    order = [int(each) for each in call.attributes.get("perm", range(len(known.axes))[::-1])]
    axes = tuple(known.axes[each] for each in order)
    if isinstance(known, Value):
        return replace(known, axes=axes)
    at = axes.index(known)
    inner = tuple(each for each in axes if each is not known)
    return Stack(tuple(replace(part, axes=inner) for part in known.parts), at)


def _squeeze(call: Call) -> Known:
    known = call.data()
    numbers = call.numbers("axes", 1)
    rank = len(known.axes)
    gone = {each % rank for each in numbers} if numbers is not None else None
    if isinstance(known, Stack):
        if (gone is None or known.axis in gone) and len(known.parts) == 1:
            gone = None if gone is None else {each - (each > known.axis) for each in gone - {known.axis}}
            return _without_ones(known.parts[0], gone)
        raise Unknown("it squeezes several directions or layers")
    return _without_ones(known, gone)


def _without_ones(value: Value, gone: set[int] | None) -> Value:
    if gone is None:
        gone = {index for index, axis in enumerate(value.axes) if axis == ONE}
    if any(value.axes[index] != ONE for index in gone):
        raise Unknown("it takes away the batch, the time or the features")
    return replace(value, axes=tuple(axis for index, axis in enumerate(value.axes) if index not in gone))


def _unsqueeze(call: Call) -> Known:
    known = call.data()
    numbers = call.numbers("axes", 1) or []
    if isinstance(known, Stack):
        raise Unknown("it adds an axis to several directions or layers")
    axes = list(known.axes)
    for each in sorted(number % (len(axes) + len(numbers)) for number in numbers):
        axes.insert(each, ONE)
    if not known.steps and axes[-1] == len(known.axes) - 1:  # still a plain input: its last axis may be the features
        axes[-1] = FEATURES
    return replace(known, axes=tuple(axes))


def _reshape(call: Call) -> Known:
    known = call.data()
    rank = call.ranks.get(call.node.output[0])
    try:
        shape: list[int] | None = [int(each) for each in call.constant(1, "shape")]
        rank = len(shape or ())
    except Unknown:
        shape = None
    axes = known.axes
    if rank == len(axes) - 1:
        if isinstance(known, Stack) and known.axis == len(axes) - 2:
            whole = joined(known.parts)
            if whole is not None:
                return whole
        elif isinstance(known, Stack) and len(known.parts) == 1:
            return known.parts[0]
        elif isinstance(known, Value) and ONE in axes:
            return _without_ones(known, {axes.index(ONE)})
        elif isinstance(known, Value) and axes[-1] == FEATURES and len(axes) == 3:
            return replace(known, axes=((axes[0], axes[1]), FEATURES))  # every step is a sample
    if rank == len(axes) + 1 and isinstance(known, Value) and isinstance(axes[0], tuple):
        return replace(known, axes=(*axes[0], *axes[1:]))
    if rank == len(axes) and shape is not None and all(each == 0 for each in shape if each != -1):
        return known
    raise Unknown("it changes the shape otherwise than by merging directions into features")


def _gather(call: Call) -> Known:
    axis = int(call.attributes.get("axis", 0))
    if call.operand(0) is None:
        table = call.constant(0, "the table")
        ids = call.value(1)
        if table.ndim != 2 or axis != 0 or ids.steps or table.dtype.kind == "i":
            raise Unknown("it is no look-up of tokens in a table (N, D)")
        return ids.then(Lookup(table), axes=(*ids.axes, FEATURES))
    known = call.data()
    axis %= len(known.axes)
    at = call.constant(1, "indices")
    if at.size != 1:
        raise Unknown("it picks several elements")
    return _picked(known, axis, int(at.ravel()[0]), keep=at.ndim == 1)


def _picked(known: Value | Stack, axis: int, index: int, *, keep: bool) -> Value:
    """Return one direction or layer of a stack, or the last time step."""
    if isinstance(known, Stack) and known.axis == axis:
        if not -len(known.parts) <= index < len(known.parts):
            raise Unknown(f"it picks number {index} of {len(known.parts)}")
        part = known.parts[index]
        return replace(part, axes=(*part.axes[:axis], ONE, *part.axes[axis:])) if keep else part
    if isinstance(known, Stack):
        whole = joined(known.parts) if len(known.parts) == 1 else None
        if whole is None:
            raise Unknown("it picks a step of several directions")
        axis -= axis > known.axis
        known = whole
    cells = [step for step in known.steps if isinstance(step, (Cells, Side))]
    if not cells or index != -1 or known.axes[axis] != time_axis(cells[-1]):
        raise Unknown("it picks something else than the last time step, a direction or a layer")
    label_ = (ONE,) if keep else ()
    return known.then(Pool.LAST_STEP, axes=(*known.axes[:axis], *label_, *known.axes[axis + 1 :]))


def time_axis(step: Cells | Side) -> Any:
    """Return the label of the axis that a recurrent node takes as time."""
    return step.time if isinstance(step, Cells) else step.cells.time


def _slice(call: Call) -> Known:
    known = call.data()
    if isinstance(known, Value) and not known.steps:
        return FromInput(known.source)
    starts, ends = call.numbers("starts", 1), call.numbers("ends", 2)
    axes, steps = call.numbers("axes", 3), call.numbers("steps", 4)
    if starts is None or ends is None or len(starts) != 1 or (steps or [1]) != [1]:
        raise Unknown("it cuts several axes, or with a step")
    axis = (axes or [0])[0] % len(known.axes)
    if isinstance(known, Stack) and known.axis == axis:
        parts = known.parts[starts[0] : ends[0]]
        if not parts:
            raise Unknown("it cuts nothing out")
        return replace(known, parts=parts)
    if starts[0] == -1 and ends[0] > 2**30:
        return _picked(known, axis, -1, keep=True)
    raise Unknown("it cuts something else than the last time step, a direction or a layer")


def _concat(call: Call) -> Known:
    operands = [call.data(index) for index in range(len(call.node.input))]
    axis = int(call.attributes["axis"]) % len(operands[0].axes)
    if all(isinstance(each, Stack) and each.axis == axis for each in operands):
        return Stack(tuple(part for each in operands if isinstance(each, Stack) for part in each.parts), axis)
    values = tuple(_part(each) for each in operands)
    if values[0].axes[axis] == FEATURES:
        whole = joined(values)
        if whole is not None:
            return whole
    raise Unknown("it joins something else than the two directions of a layer")


def _part(known: Value | Stack) -> Value:
    if isinstance(known, Value):
        return known
    if len(known.parts) == 1:
        part = known.parts[0]
        return replace(part, axes=(*part.axes[: known.axis], ONE, *part.axes[known.axis :]))
    raise Unknown("it joins several directions or layers")


def _split(call: Call) -> tuple[Known, ...]:
    known = call.data()
    if isinstance(known, Value) and not known.steps:
        return (FromInput(known.source),) * len(call.node.output)
    axis = int(call.attributes.get("axis", 0)) % len(known.axes)
    if not isinstance(known, Stack) or known.axis != axis or len(call.node.output) != len(known.parts):
        raise Unknown("it splits something else than the directions or layers")
    return tuple(Stack((part,), axis) for part in known.parts)


def _matmul(call: Call) -> Known:
    value = _features_last(call, call.value(0))
    weight = call.constant(1, "the matrix")
    if weight.ndim != 2:
        raise Unknown(f"the matrix has shape {weight.shape}; expected (in_features, out_features)")
    return value.then(Affine(weight.T))


def _gemm(call: Call) -> Known:
    if call.attributes.get("transA") or any(call.attributes.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        raise Unknown("attributes transA, alpha and beta must be 0, 1 and 1")
    value = _features_last(call, call.value(0))
    weight = call.constant(1, "B")
    weight = weight if call.attributes.get("transB") else weight.T
    bias = call.constant(2, "C") if call.name(2) else None
    return value.then(Affine(weight, None if bias is None else _bias(bias, len(weight))))


def _add(call: Call) -> Known:
    at = 0 if isinstance(call.operand(0), (Value, Stack)) else 1
    value = call.value(at)
    last = value.steps[-1] if value.steps else None
    if not isinstance(last, Affine) or last.bias is not None:
        raise Unknown("it is no bias of a matrix product")
    bias = _bias(call.constant(1 - at, "the bias"), len(last.weight))
    return replace(value, steps=(*value.steps[:-1], replace(last, bias=bias)))


def _bias(bias: Array, size: int) -> Array:
    if bias.size not in (1, size) or bias.shape[-1:] not in ((size,), (1,), ()):
        raise Unknown(f"the bias has shape {bias.shape}; expected ({size},)")
    return np.broadcast_to(bias.ravel(), (size,))


def _reduced(pool: Pool) -> Callable[[Call], Known]:
    def reduce(call: Call) -> Known:
        value = call.value()
        axes = call.numbers("axes", 1)
        cells = [step for step in value.steps if isinstance(step, (Cells, Side))]
        at = axes[0] % len(value.axes) if axes is not None and len(axes) == 1 else None
        if at is None or not cells or value.axes[at] != time_axis(cells[-1]):
            raise Unknown("it reduces something else than the time")
        kept = (ONE,) if call.attributes.get("keepdims", 1) else ()
        return value.then(pool, axes=(*value.axes[:at], *kept, *value.axes[at + 1 :]))

    return reduce


def _recurrent(call: Call) -> tuple[Known, ...]:
    value = call.value(0)
    value = _features_last(call, value)
    spec = cell_spec(call.model, call.place)
    if len(value.axes) != 3:
        raise Unknown(f"X has {len(value.axes)} axes; expected 3")
    batch_first = bool(call.attributes.get("layout", 0))
    a, b = value.axes[:2]
    cells = Cells(spec, b if batch_first else a, a if batch_first else b)
    _check_start(call, value.source)
    count = len(spec.weights)
    sides = [cells] if count == 1 else [Side(cells, index) for index in range(count)]
    y = Stack(tuple(value.then(side) for side in sides), 2 if batch_first else 1)
    final_axes = (cells.batch, FEATURES)
    h = tuple(replace(value.then(side, Pool.FINAL, axes=final_axes), state="h") for side in sides)
    c = tuple(replace(value.then(side, Pool.FINAL, axes=final_axes), state="c") for side in sides)
    at = 1 if batch_first else 0
    return y, Stack(h, at), Stack(c, at)


def _check_start(call: Call, source: str) -> None:
    """Raise ValueError for lengths and initial states that the call of a model cannot give."""
    where = label(call.model.op, call.place)
    for name, index in (("sequence_lens", 4), ("initial_h", 5), ("initial_c", 6)):
        known = call.operand(index)
        if not call.name(index) or isinstance(known, Zero):
            continue
        if known is None:
            if (name == "sequence_lens" or constant_state(call.model, call.place) == name) and call.constant(
                index, name
            ).any():
                raise ValueError(f"{where}: {name} is a constant; expected an input of the graph, or none")
        elif isinstance(known, Static):
            if name != "sequence_lens":
                raise ValueError(f"{where}: {name} depends on a shape and is not 0")
        elif not isinstance(known, (Value, FromInput)) or (isinstance(known, Value) and known.steps):
            raise ValueError(f"{where}: {name} is what another layer returns; expected an input of the graph")
        elif known.source == source:
            raise ValueError(f"{where}: {name} is made of {source!r}, which X is too")


def _where(call: Call) -> Known:
    """Pass on what sets padding to 0: the lengths of a call say the same."""
    if isinstance(call.operand(0), Static) and call.name(2) and not call.constant(2, "the other value").any():
        return call.data(1)
    raise Unknown("it is more than padding set to 0")


OPERATORS: dict[str, Callable[[Call], Any]] = {
    "Identity": _same,
    "Dropout": _same,
    "Cast": _same,
    "Where": _where,
    "Relu": _function("relu"),
    "Tanh": _function("tanh"),
    "Sigmoid": _function("sigmoid"),
    "Softmax": _softmax,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Split": _split,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Add": _add,
    "ReduceMean": _reduced(Pool.MEAN),
    "ReduceMax": _reduced(Pool.MAX),
    "RNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "DynamicQuantizeLSTM": _recurrent,
}
