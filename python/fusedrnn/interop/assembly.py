"""A model from the chain of layers that a file describes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from ..layers import Activation, Embedding, Layer, Recurrent, Sequential
from ..models import SequenceToVector
from .cells import CellSpec, recurrent_layer, same_but_for_weights


class Pool(Enum):
    """Where a chain goes from sequences to vectors."""

    FINAL = "the final h of the layer before, of both directions side by side"
    LAST_STEP = "y at the last step"
    MEAN = "the mean of y over time"
    MAX = "the maximum of y over time"


def assemble(pieces: Sequence[Layer | CellSpec | Pool], *, batch_first: bool = True) -> Layer:
    """Return the model of a chain: a layer alone, a Sequential, or one with a SequenceToVector where time ends.

    Recurrent layers that follow each other and are alike become one stacked layer.
    """
    return _assembled(list(_stacked(pieces, batch_first)))


def _stacked(pieces: Sequence[Layer | CellSpec | Pool], batch_first: bool) -> Iterator[Layer | Pool]:
    stack: list[CellSpec] = []
    for piece, following in zip(pieces, (*pieces[1:], None), strict=True):
        if not isinstance(piece, CellSpec):
            yield piece
            continue
        stack.append(piece)
        if not (isinstance(following, CellSpec) and _stacks(piece, following)):
            yield recurrent_layer(stack, batch_first=batch_first)
            stack = []


def _stacks(below: CellSpec, above: CellSpec) -> bool:
    return below.direction == above.direction != "reverse" and same_but_for_weights(below, above)


def _assembled(pieces: list[Layer | Pool]) -> Layer:
    at = next((index for index, piece in enumerate(pieces) if isinstance(piece, Pool)), None)
    if at is None:
        return _chain([piece for piece in pieces if isinstance(piece, Layer)])
    before = [piece for piece in pieces[:at] if isinstance(piece, Layer)]
    after = [piece for piece in pieces[at + 1 :] if isinstance(piece, Layer)]
    pool = pieces[at]
    # From any layer but a recurrent one or an embedding, SequenceToVector takes y at the last valid step.
    layer: Layer = before.pop() if before and not isinstance(before[-1], Embedding) else Activation("identity")
    if pool is Pool.LAST_STEP and not _ends_with_its_state(layer):
        layer = Sequential(layer)
    head = _chain(after) if after else Activation("identity")
    pooling = "mean" if pool is Pool.MEAN else "max" if pool is Pool.MAX else "last"
    if len(before) == 1 and isinstance(before[0], Embedding):
        return SequenceToVector(layer, head, pooling=pooling, embedding=before[0])
    return _chain([*before, SequenceToVector(layer, head, pooling=pooling)])


def _chain(layers: list[Layer]) -> Layer:
    return layers[0] if len(layers) == 1 else Sequential(*layers)


def _ends_with_its_state(layer: Layer) -> bool:
    return isinstance(layer, Recurrent) and not layer.bidirectional and "reverse" not in layer.config()
