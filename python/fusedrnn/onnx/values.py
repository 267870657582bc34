"""What a name in a chain stands for, while the chain is read: the layers so far, and which axis is which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ..arrays.checks import Array
from ..interop import CellSpec, Pool, same_but_for_weights

FEATURES = "features"
ONE = "one"  # an axis of size 1


@dataclass(frozen=True, eq=False)
class Lookup:
    """A Gather from a table (N, D) by tokens."""

    table: Array


@dataclass(frozen=True, eq=False)
class Affine:
    """x W^T + b."""

    weight: Array
    bias: Array | None = None


@dataclass(frozen=True)
class Function:
    """An elementwise function, or softmax over the features."""

    name: str


@dataclass(frozen=True, eq=False)
class Cells:
    """A recurrent node."""

    spec: CellSpec
    time: Any  # the labels of the axes that the node takes as time and as batch
    batch: Any


@dataclass(frozen=True)
class Side:
    """What one direction of a recurrent node returns; of a node of one direction, all of it."""

    cells: Cells
    direction: int

    @property
    def whole(self) -> bool:
        """Whether the node has no other direction."""
        return len(self.cells.spec.weights) == 1


Step: TypeAlias = Lookup | Affine | Function | Cells | Side | Pool


@dataclass(frozen=True)
class Value:
    """An array: the layers that it went through, from which input, and the labels of its axes.

    The axes of an input are labelled with their numbers, what the layers add is FEATURES. ``state`` is "h" or "c" for a
    final state.
    """

    source: str
    axes: tuple[Any, ...]
    steps: tuple[Step, ...] = ()
    state: str | None = None

    def then(self, *steps: Step, axes: tuple[Any, ...] | None = None) -> Value:
        """Return the array after more layers."""
        return replace(self, steps=(*self.steps, *steps), axes=self.axes if axes is None else axes)


@dataclass(frozen=True)
class Stack:
    """Arrays of the same axes stacked on a new axis: the directions of a node, or the states of several layers."""

    parts: tuple[Value, ...]
    axis: int

    @property
    def axes(self) -> tuple[Any, ...]:
        """The labels of the parts with that of the stack in between."""
        inner = self.parts[0].axes
        return (*inner[: self.axis], self, *inner[self.axis :])


@dataclass(frozen=True)
class FromInput:
    """What is cut or rearranged from an input: an initial state, or lengths."""

    source: str


class Static:
    """What depends on shapes and constants alone."""


class Zero(Static):
    """Zeros whose shape depends on shapes."""


def joined(parts: tuple[Value, ...]) -> Value | None:
    """Return parts side by side on the features as one array, if they are the directions of one layer."""
    first = parts[0]
    if len(parts) == 1:
        return first
    # A side, and what ends time after it.
    depth = 2 if isinstance(first.steps[-1], Pool) else 1
    sides = [part.steps[-depth] for part in parts if len(part.steps) >= depth]
    alike = all(
        part.steps[:-depth] == first.steps[:-depth]
        and part.axes == first.axes
        and part.state == first.state
        and part.steps[len(part.steps) - depth + 1 :] == first.steps[len(first.steps) - depth + 1 :]
        for part in parts
    )
    if not alike or len(parts) != 2 or len(sides) != 2:
        return None
    a, b = sides
    tail = first.steps[len(first.steps) - depth + 1 :]
    if isinstance(a, Side) and isinstance(b, Side) and a.cells is b.cells and (a.direction, b.direction) == (0, 1):
        return replace(first, steps=(*first.steps[:-depth], a.cells, *tail))
    return _both(first, depth, a, b, tail)


def _both(first: Value, depth: int, a: Step, b: Step, tail: tuple[Step, ...]) -> Value | None:
    """Join a forward and a reverse node that read the same."""
    if not isinstance(a, Cells) or not isinstance(b, Cells):
        return None
    if (a.spec.direction, b.spec.direction) != ("forward", "reverse") or not same_but_for_weights(a.spec, b.spec):
        return None
    if a.spec.input_size != b.spec.input_size:
        return None
    spec = replace(a.spec, direction="bidirectional", weights=a.spec.weights + b.spec.weights)
    return replace(first, steps=(*first.steps[:-depth], replace(a, spec=spec), *tail))
