"""The figure of a training history."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..figure import INK, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .history import History

_CURVES = {"loss": ("training", "#4C72B0"), "val_loss": ("validation", "#DD8452")}
_LOG_RATIO = 20.0  # a loss that falls by more is easier to read on a logarithmic axis


def plot_history(history: History, path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw loss and validation loss over the epochs, and mark the best one; see ``History.plot``."""
    curves = {name: list(history[name]) for name in _CURVES if history.get(name)}
    if not curves:
        raise ValueError("History.plot: there is no finished epoch; expected at least one")
    figure = new_figure("History.plot", (7.5, 4.5), on_screen=path is None)
    axes = figure.subplots()
    for name, values in curves.items():
        label, colour = _CURVES[name]
        epochs = range(1, len(values) + 1)
        axes.plot(epochs, values, color=colour, linewidth=2, label=label, marker="o" if len(values) < 15 else "", ms=4)
    _mark(axes, history.best_epoch, curves.get("val_loss") or curves["loss"])
    _finish(axes, [value for values in curves.values() for value in values])
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _mark(axes: Any, best: int, values: Sequence[float]) -> None:
    """Mark the best epoch, with the text on the side where there is room."""
    axes.plot([best + 1], [values[best]], "o", ms=9, mfc="none", mec=INK, mew=1.3)
    right_half = best + 1 > (len(values) + 1) / 2
    axes.annotate(
        f"best: {values[best]:.4g}, epoch {best + 1}",
        (best + 1, values[best]),
        xytext=(-8 if right_half else 8, 14),
        textcoords="offset points",
        ha="right" if right_half else "left",
        color=INK,
        fontsize=9,
    )


def _finish(axes: Any, values: Sequence[float]) -> None:
    """Choose the scale, and add what explains the axes."""
    from matplotlib.ticker import MaxNLocator

    if min(values) > 0 and max(values) > _LOG_RATIO * min(values):
        axes.set_yscale("log")
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch", color=INK)
    axes.set_ylabel("loss", color=INK)
    style(axes)
    axes.legend(frameon=False, loc="upper right", labelcolor=INK)
