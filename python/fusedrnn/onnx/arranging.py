"""What operators that rearrange, join and pick do to a value of a chain: bookkeeping of axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..interop import Pool
from .call import Call, Known, Unknown
from .values import FEATURES, ONE, Cells, FromInput, Lookup, Side, Stack, Value, joined


def transpose(call: Call) -> Known:
    """Return the value with its axes in another order."""
    known = call.data()
    order = [int(each) for each in call.attributes.get("perm", range(len(known.axes))[::-1])]
    axes = tuple(known.axes[each] for each in order)
    if isinstance(known, Value):
        return replace(known, axes=axes)
    at = axes.index(known)
    inner = tuple(each for each in axes if each is not known)
    return Stack(tuple(replace(part, axes=inner) for part in known.parts), at)


def squeeze(call: Call) -> Known:
    """Return the value without axes of size 1, or the only part of a stack."""
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


def unsqueeze(call: Call) -> Known:
    """Return the value with more axes of size 1."""
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


def reshape(call: Call) -> Known:
    """Return the value with directions merged into the features, or every step a sample, or back."""
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


def gather(call: Call) -> Known:
    """Look tokens up, or pick a direction, a layer or the last step."""
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


def cut(call: Call) -> Known:
    """Cut directions, layers or the last step out."""
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


def concat(call: Call) -> Known:
    """Join directions or states, or the two directions of a layer on the features."""
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


def split(call: Call) -> tuple[Known, ...]:
    """Part the directions or layers."""
    known = call.data()
    if isinstance(known, Value) and not known.steps:
        return (FromInput(known.source),) * len(call.node.output)
    axis = int(call.attributes.get("axis", 0)) % len(known.axes)
    if not isinstance(known, Stack) or known.axis != axis or len(call.node.output) != len(known.parts):
        raise Unknown("it splits something else than the directions or layers")
    return tuple(Stack((part,), axis) for part in known.parts)
