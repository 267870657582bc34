"""The table of a model's layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from .activation import Activation
from .base import Layer
from .bidirectional import Bidirectional
from .dense import Linear
from .dropout import Dropout
from .embedding import Embedding
from .recurrent import Recurrent
from .sequential import Sequential

Shape: TypeAlias = tuple[Any, ...]  # sizes, or names of sizes: ("B", "T", 64)
Visit: TypeAlias = Callable[..., Any]

_INDENT = "  "
_UNKNOWN: Shape = ("?",)
_ANY: Shape = ("...",)


@dataclass(frozen=True)
class Row:
    """One layer: its path of names, its depth in the model, its class, output shape and own number of parameters."""

    name: str
    depth: int
    kind: str
    shape: Any
    parameters: int


class Summary:
    """The rows of a model, from the outside in; ``str`` gives the table.

    Attributes
    ----------
    rows : list of Row
        The first is the model itself.
    num_parameters : int
        Of the model; what layers share counts once.
    """

    def __init__(self, rows: list[Row], num_parameters: int) -> None:
        self.rows = rows
        self.num_parameters = num_parameters

    def __str__(self) -> str:
        lines = [("layer", "output shape", "parameters")]
        for row in self.rows:
            title = f"{row.name} ({row.kind})" if row.name else row.kind
            lines.append((_INDENT * row.depth + title, _text(row.shape), f"{row.parameters:,}"))
        lines.append(("total", "", f"{self.num_parameters:,}"))
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        texts = [f"{line[0]:{widths[0]}}   {line[1]:{widths[1]}}   {line[2]:>{widths[2]}}" for line in lines]
        rule = "-" * len(texts[0])
        return "\n".join([texts[0], rule, *texts[1:-1], rule, texts[-1]])

    __repr__ = __str__


def summarize(layer: Layer) -> Summary:
    """Return the table of a layer or model."""
    rows: list[Row] = []
    _visit(rows, "", 0, layer, (expected_input(layer),))
    return Summary(rows, layer.num_parameters)


def _visit(rows: list[Row], name: str, depth: int, layer: Layer, inputs: tuple[Any, ...]) -> Any:
    """Append the rows of a layer that reads shapes ``inputs``; return the shape of its y."""
    at = len(rows)

    def visit(child_name: str, *shapes: Any) -> Any:
        return _visit(rows, child_name, depth + 1, layer._children[child_name], shapes)

    shape = _output(layer, visit, inputs)
    rows.insert(at, Row(name, depth, layer.op, shape, layer.num_parameters))
    return shape


def _output(layer: Layer, visit: Visit, inputs: tuple[Any, ...]) -> Any:
    """Return the shape of y; a model says it with ``_shapes(visit, *inputs)``, which visits its children."""
    if isinstance(layer, (Activation, Dropout)):
        return inputs[0]
    if inputs[0] in (_UNKNOWN, _ANY):
        inputs = (expected_input(layer), *inputs[1:])
    shapes = getattr(layer, "_shapes", None)
    if shapes is not None:
        return shapes(visit, *inputs)
    x = inputs[0]
    if isinstance(layer, Recurrent):
        return (*x[:2], layer.hidden_size * layer.num_directions)
    if isinstance(layer, Bidirectional):
        y, _ = visit("forward", x), visit("reverse", x)
        if layer.merge is None:
            return [y, y]
        return (*y[:2], 2 * layer.hidden_size) if layer.merge == "concat" else y
    if isinstance(layer, Sequential):
        for name in layer._children:
            x = visit(name, x)
        return x
    if isinstance(layer, Linear):
        return (*x[:-1], layer.out_features)
    if isinstance(layer, Embedding):
        return (*x, layer.embedding_dim)
    for name, child in layer._children.items():
        visit(name, expected_input(child))
    return _UNKNOWN


def expected_input(layer: Layer) -> Any:
    """Return the shape of what a layer at the bottom of a model reads."""
    if isinstance(layer, Recurrent):
        return ("B", "T", layer.input_size) if layer.batch_first else ("T", "B", layer.input_size)
    if isinstance(layer, Bidirectional):
        return expected_input(layer._children["forward"])
    if isinstance(layer, Sequential):
        return expected_input(layer[0])
    if isinstance(layer, Embedding):
        return ("B", "T")
    if isinstance(layer, Linear):
        return ("...", layer.in_features)
    reads: Callable[[], Shape] | None = getattr(layer, "_reads", None)
    return _ANY if reads is None else reads()


def _text(shape: Any) -> str:
    if isinstance(shape, list):
        return " ".join(map(_text, shape))
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
