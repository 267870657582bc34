"""What training recorded, epoch by epoch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(dict[str, list[float]]):
    """Recorded values by name, one a finished epoch: "loss", "val_loss" (with validation data), "lr", "seconds".

    Attributes
    ----------
    epochs : int
        Number of finished epochs.
    best_epoch : int
        Epoch (from 0) with the least validation loss, or loss without validation data; -1 before the first one.
    stopped : str
        Why training ended before its last epoch; empty if it did not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped = ""

    @property
    def epochs(self) -> int:
        """Number of finished epochs."""
        return len(self.get("loss", ()))

    @property
    def best_epoch(self) -> int:
        """Epoch (from 0) with the least validation loss, or loss without validation data; -1 before the first one."""
        values = self.get("val_loss") or self.get("loss") or []
        return min(range(len(values)), key=lambda epoch: (values[epoch] != values[epoch], values[epoch]), default=-1)

    def record(self, values: dict[str, float]) -> None:
        """Append the values of one epoch."""
        for name, value in values.items():
            self.setdefault(name, []).append(float(value))

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
            If matplotlib is not installed (``pip install fusedrnn[plot]``).
        ValueError
            If no epoch is finished.
        """
        from .plotting import plot_history

        return plot_history(self, path)
