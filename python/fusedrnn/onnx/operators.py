"""What each operator of a chain is: which layer it adds, or how it rearranges; nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..arrays.checks import Array
from ..interop import Pool
from . import arranging
from .arranging import time_axis
from .call import Call, Known, Unknown
from .graph import label
from .recurrent import cell_spec, constant_state
from .values import FEATURES, ONE, Affine, Cells, FromInput, Function, Side, Stack, Static, Value, Zero


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
    "Transpose": arranging.transpose,
    "Squeeze": arranging.squeeze,
    "Unsqueeze": arranging.unsqueeze,
    "Reshape": arranging.reshape,
    "Gather": arranging.gather,
    "Slice": arranging.cut,
    "Concat": arranging.concat,
    "Split": arranging.split,
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
