"""The figure of gradient flows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.checks import Array, described
from ..figure import INK, new_figure, style, whole_numbers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .direction_flow import DirectionFlow, GradientFlow

_H, _C, _JACOBIAN = "#4C72B0", "#DD8452", "#55A868"
_FLOOR = 1e-16  # of what is drawn, below the largest value: what is smaller no optimizer notices


def plot_gradient_flow(
    flows: GradientFlow | Mapping[str, GradientFlow], path: str | os.PathLike[str] | None = None
) -> Figure:
    """Draw several flows side by side, with one scale: an RNN next to an LSTM.

    Parameters
    ----------
    flows : GradientFlow, or mapping of str to GradientFlow
        One, or several by title.
    path : path, optional
        Where to save the figure (png, svg, pdf ...). Without it the figure is pyplot's current one.

    Returns
    -------
    matplotlib.figure.Figure
        The median of ‖dL/dh(t)‖ over the samples with the range of the middle 80 %, ‖dL/dc(t)‖ of an LSTM, the
        Jacobian's norm, and for an RNN the norm of (W^T)^k and the k-th power of the spectral radius.

    Raises
    ------
    ImportError
        If matplotlib is not installed (``pip install matplotlib``).
    """
    if not isinstance(flows, Mapping):
        raise TypeError(f"plot_gradient_flow: flows is {described(flows)}; expected a GradientFlow or some by title")
    by_title: Mapping[str, Any] = flows if all(isinstance(flow, Mapping) for flow in flows.values()) else {"": flows}
    if not by_title or not all(by_title.values()):
        raise ValueError("plot_gradient_flow: got no flows; expected at least one")
    panels = [
        [(_title(title, name, direction, len(flow)), direction) for name, direction in flow.items()]
        for title, flow in by_title.items()
    ]
    if len(panels) == 1:  # layers below each other, or directions side by side
        panels = [panels[0][::2], panels[0][1::2]] if len(panels[0]) > 1 else panels
    rows, columns = max(map(len, panels)), len(panels)
    figure = new_figure("plot_gradient_flow", (4.3 * columns + 1.2, 3.0 * rows + 1.0), on_screen=path is None)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    values = []
    for column, panel in enumerate(panels):
        for axes in grid[len(panel) :, column]:
            axes.set_visible(False)
        for axes, (title, direction) in zip(grid[:, column], panel, strict=False):
            values += _draw(axes, direction)
            axes.set_title(title, color=INK, fontsize=10, loc="left")
        grid[len(panel) - 1, column].set_xlabel("time step t", color=INK)
    _limits(grid[0, 0], values)
    for axes in grid[:, 0]:
        axes.set_ylabel("norm", color=INK)
    handles = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False, labelcolor=INK
    )
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw(axes: Any, flow: DirectionFlow) -> list[Array]:
    """Draw one direction; return what was measured, which the vertical limits should show."""
    steps = np.arange(flow.dh.shape[1])
    drawn = []
    for name, norms, colour in (("h", flow.dh, _H), ("c", flow.dc, _C)):
        if norms is not None:
            low, middle, high = _quantiles(norms)
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(steps, middle, color=colour, linewidth=2, label=rf"$\|\partial L/\partial {name}(t)\|$")
            drawn.append(middle)
    if flow.jacobian is not None:
        middle = _quantiles(flow.jacobian)[1]
        axes.plot(steps, middle, color=_JACOBIAN, linewidth=1.6, label=r"$\|\partial h(T)/\partial h(t)\|$")
        drawn.append(middle)
    if set(flow.recurrent) == {"h"}:
        powers = flow.powers
        back = steps if flow.reverse else steps[::-1]
        with np.errstate(over="ignore", under="ignore"):
            radius = flow.spectral_radius["h"] ** back.astype(np.float64)
        axes.plot(
            steps, powers, color=INK, linewidth=1.2, linestyle=(0, (5, 2)), label=r"$\|(W^T)^k\|$, $k$ steps back"
        )
        axes.plot(steps, radius, color=INK, linewidth=1.2, linestyle=(0, (1, 1.5)), label=r"$\rho(W)^k$")
    axes.set_yscale("log")
    whole_numbers(axes.xaxis)
    style(axes)
    return drawn


def _quantiles(norms: Array) -> Array:
    """Return the 10, 50 and 90 % quantiles over the samples (3, T), NaN where every sample has ended."""
    result = np.full((3, norms.shape[1]), np.nan)
    some = ~np.isnan(norms).all(axis=0)
    result[:, some] = np.nanquantile(norms[:, some], (0.1, 0.5, 0.9), axis=0, method="nearest")
    return result


def _limits(axes: Any, values: list[Array]) -> None:
    """Show all finite values, but for those that are lost in the rounding of the largest; powers of W may leave."""
    shown = np.concatenate(values)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if shown.size:
        top = float(shown.max())
        axes.set_ylim(max(float(shown.min()), min(1.0, top) * _FLOOR) / 3, top * 3)


def _title(title: str, name: str, flow: DirectionFlow, directions: int) -> str:
    where = [title] if title else []
    if directions > 1 or not title:
        where.append(name)
    gain = rf"gradient $\times$ {flow.gain_per_step:.3g} a step back"
    return f"{', '.join(where)}\n{gain}, " + rf"$\rho(W)$ = {_radius(flow)}"


def _radius(flow: DirectionFlow) -> str:
    radii = flow.spectral_radius.values()
    low, high = f"{min(radii):.2f}", f"{max(radii):.2f}"
    return low if low == high else f"{low} … {high}"
