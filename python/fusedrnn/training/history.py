"""What training recorded, epoch by epoch: a table, and the figure of the losses."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from ..figure import INK, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = {"loss": ("training", "#4C72B0"), "val_loss": ("validation", "#DD8452")}
_LOG_RATIO = 20.0  # a loss that falls by more is easier to read on a logarithmic axis


class History(dict[str, list[float]]):
    """Recorded values by name, one per finished epoch: "loss", "val_loss" (with validation data), "lr", "seconds".

    ``print(history)`` shows the last epoch and the best one; a notebook shows the same as a table.

    Attributes
    ----------
    epochs : int
        Number of finished epochs.
    best_epoch : int
        Epoch (from 0) that is best by the value which ``EarlyStopping`` or ``Checkpoint`` watched; by default the one
        with the lowest validation loss, or loss without validation data. -1 if there is none, or every one is NaN.
    watched : (str, bool), optional
        The name of that value, and whether it is better when higher.
    stopped : str
        Why training ended before its last epoch; empty if it did not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped = ""
        self.watched: tuple[str, bool] | None = None

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.get("loss", ()))

    @property
    def best_epoch(self) -> int:
        """Epoch (from 0) that is best by the value that was watched; -1 if there is none."""
        name, rises = self.watched or ("", False)
        if name not in self:
            name, rises = "val_loss" if self.get("val_loss") else "loss", False
        sign, values = -1 if rises else 1, self.get(name, [])
        known = [epoch for epoch, value in enumerate(values) if not math.isnan(value)]
        return min(known, key=lambda epoch: sign * values[epoch], default=-1)

    def record(self, values: dict[str, float]) -> None:
        """Append the values of one epoch."""
        for name, value in values.items():
            self.setdefault(name, []).append(float(value))

    def add(self, values: dict[str, Any]) -> None:
        """Append those numbers that the last epoch does not have yet; NaN stands for epochs without them."""
        for name, value in values.items():
            column = self.get(name, [])
            if len(column) < self.epochs and isinstance(value, Real):
                self[name] = [*column, *[math.nan] * (self.epochs - 1 - len(column)), float(value)]

    def __str__(self) -> str:
        head, *rows = self._table()
        table = [head, *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        return "\n".join([*lines, self._ending()])

    def _repr_html_(self) -> str:
        head, *rows = ([html.escape(cell) for cell in row] for row in self._table())
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        heads = "".join(f"<th>{cell}</th>" for cell in head)
        return f"<table><tr>{heads}</tr>{body}</table><p>{html.escape(self._ending())}</p>"

    def _table(self) -> list[list[str]]:
        """Return the names, and the values of the best epoch and of the last one."""
        table = [["", "epoch", *self]]
        for label, epoch in (("best", self.best_epoch), ("last", self.epochs - 1)):
            if epoch >= 0:
                values = (f"{column[epoch]:.4g}" if epoch < len(column) else "" for column in self.values())
                table.append([label, str(epoch + 1), *values])
        return table

    def _ending(self) -> str:
        count = f"{self.epochs} epoch" + ("" if self.epochs == 1 else "s")
        return f"{count}; stopped: {self.stopped}" if self.stopped else count

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the loss curves.

        Parameters
        ----------
        path : path, optional
            Where to save the figure (png, svg, pdf ...). Without it the figure is pyplot's current one:
            show it with ``matplotlib.pyplot.show()``.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed (``pip install matplotlib``).
        ValueError
            If no epoch is finished.
        """
        curves = {name: list(self[name]) for name in _CURVES if self.get(name)}
        if not curves:
            raise ValueError("History.plot: there is no finished epoch; expected at least one")
        figure = new_figure("History.plot", (7.5, 4.5), on_screen=path is None)
        axes = figure.subplots()
        for name, values in curves.items():
            label, colour = _CURVES[name]
            epochs, dots = range(1, len(values) + 1), "o" if len(values) < 15 else ""
            axes.plot(epochs, values, color=colour, linewidth=2, label=label, marker=dots, ms=4)
        if self.best_epoch >= 0:
            _mark(axes, self.best_epoch, curves.get("val_loss") or curves["loss"])
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
