"""What the figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#333333", "#E5E5E5"


def new_figure(what: str, size: tuple[float, float], *, on_screen: bool) -> Figure:
    """Return an empty figure: pyplot's current one if it is for the screen.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure

        if on_screen:
            from matplotlib import pyplot

            return pyplot.figure(figsize=size, layout="constrained")
    except ImportError as error:
        raise ImportError(f"{what} needs matplotlib: pip install matplotlib") from error
    return Figure(figsize=size, layout="constrained")


def style(axes: Any) -> None:
    """Keep only those parts of the frame that help to read the values."""
    axes.tick_params(colors=INK, length=0)
    axes.grid(True, axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#BBBBBB")


def whole_numbers(axis: Any) -> None:
    """Put the ticks of an axis that counts at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
