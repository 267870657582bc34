"""The table of a model's layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .protocol import known_input, output_of

_HEADINGS = ("layer", "output shape", "parameters")
_BRANCH, _LAST, _LINE, _SPACE = "├─ ", "└─ ", "│  ", "   "


@dataclass(frozen=True)
class Row:
    """One layer: its name, depth in the model, class, output shape, and parameters, those inside included."""

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
        Number of parameters of the model; what layers share counts once.
    num_frozen : int
        How many of them are not trainable.
    num_bytes : int
        Bytes of all parameters where some are quantized; else 0, for the dtype says it.
    """

    def __init__(self, rows: list[Row], num_parameters: int, num_frozen: int = 0, num_bytes: int = 0) -> None:
        self.rows = rows
        self.num_parameters = num_parameters
        self.num_frozen = num_frozen
        self.num_bytes = num_bytes

    def __str__(self) -> str:
        body = [
            (branches + _title(row), _text(row.shape), f"{row.parameters:,}")
            for branches, row in zip(_branches([row.depth for row in self.rows]), self.rows, strict=True)
        ]
        feet = [(label, "", f"{number:,}") for label, number in self._feet()]
        lines = [_HEADINGS, *body, *feet]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        texts = [f"{line[0]:{widths[0]}}   {line[1]:{widths[1]}}   {line[2]:>{widths[2]}}" for line in lines]
        rule = "─" * len(texts[0])
        return "\n".join([texts[0], rule, *texts[1 : -len(feet)], rule, *texts[-len(feet) :]])

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        from html import escape  # with a table of all entities: not at every import of the package

        number = "text-align: right"
        heads = "".join(f"<th style='text-align: left'>{heading}</th>" for heading in _HEADINGS)
        body = "".join(
            f"<tr><td style='text-align: left; padding-left: {1 + 2 * row.depth}em'>{escape(_title(row))}</td>"
            f"<td style='text-align: left'>{escape(_text(row.shape))}</td>"
            f"<td style='{number}'>{row.parameters:,}</td></tr>"
            for row in self.rows
        )
        feet = "".join(
            f"<tr><td colspan='2' style='text-align: left'>{label}</td><td style='{number}'>{count:,}</td></tr>"
            for label, count in self._feet()
        )
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody><tfoot>{feet}</tfoot></table>"

    def _feet(self) -> list[tuple[str, int]]:
        frozen = [("frozen", self.num_frozen)] if self.num_frozen else []
        size = [("bytes", self.num_bytes)] if self.num_bytes else []
        return [("total", self.num_parameters), *frozen, *size]

    __repr__ = __str__


def summarize(layer: Any) -> Summary:
    """Return the table of a layer or model."""
    rows = list(_rows("", 0, layer, layer.input_shape()))
    frozen = layer.frozen_names()
    arrays = {id(array): array for name, array in layer.params.items() if name in frozen}
    every = {id(array): array for array in layer.params.values()}.values()
    quantized = any(array.dtype.itemsize == 1 for array in every)
    num_bytes = sum(array.nbytes for array in every) if quantized else 0
    return Summary(rows, layer.num_parameters, sum(array.size for array in arrays.values()), num_bytes)


def _rows(name: str, depth: int, layer: Any, x: Any) -> Iterator[Row]:
    """Yield the rows of a layer that reads an input of shape x: its own, then those of what is inside."""
    quantized = getattr(layer, "quantized", None)
    kind = f"{layer.op} {quantized}" if quantized else layer.op
    yield Row(name, depth, kind, output_of(layer, x), layer.num_parameters)
    children = layer.children()
    for child_name, shape in layer.child_inputs(known_input(layer, x)).items():
        yield from _rows(child_name, depth + 1, children[child_name], shape)


def _branches(depths: list[int]) -> list[str]:
    """Return what a tree draws in front of each row; the rows come from the outside in."""
    texts: list[str] = []
    open_at: set[int] = set()  # depths of which another row follows below
    for depth in reversed(depths):
        lines = "".join(_LINE if level in open_at else _SPACE for level in range(1, depth))
        texts.append(lines + (_BRANCH if depth in open_at else _LAST) if depth else "")
        open_at = {level for level in open_at if level < depth} | {depth}
    return texts[::-1]


def _title(row: Row) -> str:
    return f"{row.name} ({row.kind})" if row.name else row.kind


def _text(shape: Any) -> str:
    if isinstance(shape, list):
        return " ".join(map(_text, shape))
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
