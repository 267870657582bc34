"""The heat maps of gates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.checks import Array
from ..cell_table import SIGMOID
from ..figure import INK, new_figure, whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .gates import DirectionTrace, Saturation

_NAMES = {
    "i": "input gate i",
    "f": "forget gate f",
    "o": "output gate o",
    "g": "candidate g",
    "c": "cell state c",
    "h": "hidden state h",
    "r": "reset gate r",
    "z": "update gate z",
    "n": "candidate n",
}
_COLUMNS = 3


def draw_gates(trace: DirectionTrace, path: str | os.PathLike[str] | None, sample: int, title: str) -> Figure:
    """See ``DirectionTrace.plot``; ``title`` stands above all maps."""
    count = len(trace["h"])
    if not -count <= sample < count:
        raise IndexError(f"GateTrace.plot: sample is {sample}; expected one of {count}")
    values = {name: _valid(activations[sample]) for name, activations in trace.items()}
    columns = min(_COLUMNS, len(values)) if len(values) != 4 else 2
    rows = -(-len(values) // columns)
    figure = new_figure("GateTrace.plot", (4.3 * columns + 0.6, 2.7 * rows + 0.4), on_screen=path is None)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    saturation = trace.saturation()
    for axes, (name, activations) in zip(grid.flat, values.items(), strict=False):
        image = _image(axes, activations, name, trace.cell)
        heading = f"{_NAMES[name]}   {_ends(name, trace.cell, saturation[name])}"
        axes.set_title(heading, color=INK, fontsize=9.5, loc="left")
        axes.tick_params(colors=INK, length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=25)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=INK, length=0, labelsize=8)
        whole_numbers(axes.xaxis)
        whole_numbers(axes.yaxis)
    if title:
        figure.suptitle(title, color=INK, fontsize=11, x=0.01, ha="left")
    for axes in grid[-1]:
        axes.set_xlabel("time step t", color=INK)
    for axes in grid[:, 0]:
        axes.set_ylabel("unit", color=INK)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _valid(activations: Array) -> Array:
    """Return the valid steps (T, H) of one sample."""
    return activations[~np.isnan(activations).any(axis=-1)] if np.isnan(activations).any() else activations


def _image(axes: Any, activations: Array, name: str, cell: str) -> Any:
    """Draw units over time: one colour scale for [0, 1], one that is white at 0 for what has a sign."""
    if name in SIGMOID:
        low, high, colours = 0.0, 1.0, "viridis"
    elif cell == "rnn_relu":
        low, high, colours = 0.0, _largest(activations), "viridis"
    else:
        high = _largest(activations) if name == "c" else 1.0
        low, colours = -high, "RdBu_r"
    extent = (-0.5, len(activations) - 0.5, activations.shape[1] - 0.5, -0.5)
    return axes.imshow(
        activations.T, aspect="auto", interpolation="nearest", cmap=colours, vmin=low, vmax=high, extent=extent
    )


def _largest(activations: Array) -> float:
    return float(np.abs(activations).max(initial=1e-30))


def _ends(name: str, cell: str, of: Saturation) -> str:
    if cell == "rnn_relu":
        return f"{of.low:.0%} zero"
    if name in SIGMOID:
        return f"{of.low:.0%} closed, {of.high:.0%} open"
    return f"{of.low + of.high:.0%} saturated"
