"""What the gates of a recurrent layer do over time, read from its training tape."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays.checks import Array
from ..arrays.lengths import valid_steps
from ..cell_table import CELLS, SIGMOID
from ..layers.base import Layer
from .recording import Call, batch_major, direction_name, recorded, run_forward

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Saturation:
    """How a gate's values, over all valid steps, samples and units, lie in its range.

    Attributes
    ----------
    low, high : float
        Shares in the lowest and highest part of the range: a sigmoid gate closed and open; tanh near -1 and 1 (of c,
        its tanh). For h of a relu, low is the share of zeros and high is NaN.
    mean, std : float
        Mean and standard deviation of the values.
    """

    low: float
    high: float
    mean: float
    std: float


class DirectionTrace(dict[str, Array]):
    """Activations (B, T, H) of one direction of one layer, by name, NaN past a sample's end.

    An LSTM has i, f, o, g, c, h; a GRU r, z, n, h; an RNN h. Of the layer's dtype.

    Attributes
    ----------
    cell : str
        "lstm", "gru", "rnn_tanh" or "rnn_relu".
    """

    def __init__(self, cell: str, activations: dict[str, Array]) -> None:
        super().__init__(activations)
        self.cell = cell

    def __repr__(self) -> str:
        return f"DirectionTrace({self._summary()})"

    def _summary(self) -> str:
        batch, steps, units = next(iter(self.values())).shape
        return f"{self.cell}: {' '.join(self)}, each {batch} x {steps} steps x {units} units"

    def saturation(self, margin: float = 0.05) -> dict[str, Saturation]:
        """Return how much of each gate is at the ends of its range, where its slope is small.

        Parameters
        ----------
        margin : float
            Which share of the range counts as its end, in (0, 0.5): sigmoid below 0.05 and above 0.95, tanh below -0.9
            and above 0.9.
        """
        if not 0 < margin < 0.5:
            raise ValueError(f"saturation: margin is {margin}; expected a number in (0, 0.5)")
        return {name: self._saturation(name, values[~np.isnan(values)], margin) for name, values in self.items()}

    def plot(self, path: str | os.PathLike[str] | None = None, *, sample: int = 0) -> Figure:
        """Draw heat maps of one sample, units over time; ``path`` as in ``GradientFlow.plot``.

        Raises
        ------
        ImportError
            If matplotlib is not installed (``pip install matplotlib``).
        IndexError
            If there is no such sample.
        """
        return self._draw(path, sample, "")

    def _draw(self, path: str | os.PathLike[str] | None, sample: int, title: str) -> Figure:
        from .gates_plot import draw_gates

        return draw_gates(self, path, sample, title)

    def _saturation(self, name: str, values: Array, margin: float) -> Saturation:
        if values.size == 0:
            return Saturation(*[float("nan")] * 4)
        position = np.tanh(values) if name == "c" else values
        if name not in SIGMOID:
            position = (position + 1) / 2
        low, high = float(np.mean(position < margin)), float(np.mean(position > 1 - margin))
        if self.cell == "rnn_relu":
            low, high = float(np.mean(values == 0)), float("nan")
        return Saturation(low, high, float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64)))


class GateTrace(dict[str, DirectionTrace]):
    """Traces by direction: "l0", "l0_reverse", "l1" ...; inside a model with the layer's path, "0.l0"."""

    def __repr__(self) -> str:
        return "\n".join(["GateTrace:", *(f"  {name}: {trace._summary()}" for name, trace in self.items())])

    def plot(self, path: str | os.PathLike[str] | None = None, *, name: str | None = None, sample: int = 0) -> Figure:
        """Draw the heat maps of the direction ``name``, by default the first; see ``DirectionTrace.plot``.

        Raises
        ------
        ValueError
            If there is no such direction.
        """
        if name is not None and name not in self:
            raise ValueError(f"GateTrace: name is {name!r}; expected one of {', '.join(map(repr, self))}")
        shown = next(iter(self)) if name is None else name
        return self[shown]._draw(path, sample, f"{shown}, one of {', '.join(self)}" if len(self) > 1 else "")


def gate_trace(model: Layer, x: Any, *, state: Any = None, lengths: Any = None) -> GateTrace:
    """Return the activated gates, c and h of every step, of one forward in training mode.

    Parameters
    ----------
    model : Layer
        A recurrent layer, or a model with recurrent layers inside. Its random states are left as they were.
    x : array_like or tuple
        The model's input; a tuple holds several inputs.
    state : array_like or pair, optional
        Initial state, for models that take one.
    lengths : array_like of int (B,), optional
        Valid time steps.

    Returns
    -------
    GateTrace
        :class:`DirectionTrace` by name; the arrays are (B, T, H) for batch-major and time-major layers, with B = 1 for
        an input without a batch.

    Raises
    ------
    ValueError
        If there is no recurrent layer in the model, or an argument does not fit.
    """
    with recorded(model) as calls:
        run_forward(model, x, state, lengths)
    if not calls:
        raise ValueError(f"gate_trace: {model.op} has no recurrent layer; expected at least one")
    trace = GateTrace()
    for call in calls:
        trace.update(_trace_of_call(call))
    return trace


def _trace_of_call(call: Call) -> GateTrace:
    layer = call.layer
    cores = call.tape.saved[0]  # one for the whole stack, or one a layer where dropout acts between them
    trace = GateTrace()
    for index in range(layer.num_layers):
        core, first_slab, core_layer = (
            (cores[0], index * layer.num_directions, index) if len(cores) == 1 else (cores[index], 0, 0)
        )
        y = batch_major(layer, core.outputs(core_layer))
        outside = ~valid_steps("gate_trace", call.known_lengths(*y.shape[:2]), *y.shape[:2])
        for k, h in enumerate(np.split(y, layer.num_directions, axis=-1)):
            slots = core.gates(first_slab + k).swapaxes(1, 2)
            named = dict(zip(CELLS[layer._cell].slots, slots, strict=True)) | {"h": h}
            cells = core.cell_states(first_slab + k)
            if cells is not None:
                named["c"] = cells[0].swapaxes(0, 1)
            values = {
                name: np.where(outside[..., np.newaxis], h.dtype.type(np.nan), named[name])
                for name in CELLS[layer._cell].shown
            }
            trace[direction_name(call.name, index, k == 1)] = DirectionTrace(layer._cell, values)
    return trace
