"""What is known of the gradients in each direction of each recurrent layer, and how it is measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..arrays.checks import Array
from ..arrays.lengths import valid_steps
from ..cell_table import CELLS
from .flow_plot import plot_gradient_flow
from .powers import matrix_norms, power_norms, spectral_norm, spectral_radius, vector_norms
from .recording import Call, direction_name
from .through_time import Direction, Gradients, Pass, direction_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class DirectionFlow:
    """The gradients of one direction of one layer. All arrays are float64, NaN past a sample's end.

    Attributes
    ----------
    cell : str
        "rnn_tanh", "rnn_relu", "lstm" or "gru".
    reverse : bool
        Whether it reads from the end; its gradients then travel from the first time step to the last.
    dh : ndarray (B, T)
        2-norms of dL/dh(t).
    dc : ndarray (B, T) or None
        2-norms of dL/dc(t), of an LSTM.
    jacobian : ndarray (S, T) or None
        Norms of dh(end)/dh(t) for the first S samples.
    lengths : ndarray of int (B,)
        Valid time steps.
    recurrent : dict of str to ndarray (H, H)
        The blocks of W_hh by gate: "h" of an RNN, "i", "f", "g", "o" or "r", "z", "n".
    norm : {"spectral", "frobenius"}
        Norm used for ``jacobian`` and ``powers``.
    """

    cell: str
    reverse: bool
    dh: Array
    dc: Array | None
    jacobian: Array | None
    lengths: Array
    recurrent: Mapping[str, Array]
    norm: str

    @property
    def spectral_radius(self) -> dict[str, float]:
        """Largest absolute eigenvalue of each block of W_hh."""
        return {gate: spectral_radius(block) for gate, block in self.recurrent.items()}

    @property
    def spectral_norm(self) -> dict[str, float]:
        """Largest singular value of each block of W_hh."""
        return {gate: spectral_norm(block) for gate, block in self.recurrent.items()}

    @property
    def powers(self) -> Array:
        """Norms of (W^T)^k (T,) with k the steps from t to the end: the Jacobian of an RNN without its non-linearity.

        Raises
        ------
        ValueError
            If the cell has gates, where no such power is a Jacobian.
        """
        if set(self.recurrent) != {"h"}:
            raise ValueError(f"DirectionFlow: powers is of an RNN without gates; the cell is {self.cell}")
        steps = self.dh.shape[1]
        norms = power_norms(self.recurrent["h"], max(0, steps - 1), norm=self.norm)[:steps]
        return norms if self.reverse else norms[::-1]

    @property
    def gain_per_step(self) -> float:
        """By which factor dL/dh(t) changes on each step back, over all steps: the geometric mean over the samples."""
        gains = []
        for row, length in zip(self.dh, self.lengths, strict=True):
            if length > 1:
                ends = (row[0], row[length - 1])
                late, early = ends if self.reverse else ends[::-1]
                # The quotient itself may be beyond float64.
                gains.append((np.log(early) - np.log(late)) / (length - 1) if early > 0 and late > 0 else -np.inf)
        return float(np.exp(np.mean(gains))) if gains else float("nan")

    def __repr__(self) -> str:
        return f"DirectionFlow({self._summary()})"

    def _summary(self) -> str:
        batch, steps = self.dh.shape
        radii = ", ".join(f"{gate} {radius:.3g}" for gate, radius in self.spectral_radius.items())
        where = f"{self.cell}{' reverse' * self.reverse}, {batch} x {steps} steps"
        return f"{where}, gradient x {self.gain_per_step:.4g} a step back, spectral radius {radii}"


class GradientFlow(dict[str, DirectionFlow]):
    """Gradients by direction: "l0", "l0_reverse", "l1" ...; inside a model with the layer's path, "0.l0"."""

    def __repr__(self) -> str:
        return "\n".join(["GradientFlow:", *(f"  {name}: {flow._summary()}" for name, flow in self.items())])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the norms over time, one panel per direction; see :func:`plot_gradient_flow`."""
        return plot_gradient_flow({"": self}, path)


def flow_of_call(call: Call, samples: int, norm: str) -> GradientFlow:
    """Run one call of a recurrent layer again in float64, up through its layers and down again."""
    layer = call.layer
    if layer.proj_size:
        raise ValueError(f"gradient_flow: {layer.op} has proj_size={layer.proj_size}; expected the cell without")
    if not layer.variant.plain:
        raise ValueError(f"gradient_flow: {layer.op} has {layer.variant}; expected the cell without")
    x = call.input()
    lengths = call.known_lengths(*x.shape[:2])
    h0, c0 = call.states(call.state)
    passes: list[list[Pass]] = []
    for index in range(layer.num_layers):
        slabs = range(index * layer.num_directions, (index + 1) * layer.num_directions)
        passes.append(
            [
                direction_of(layer, index, slab % layer.num_directions == 1).run(
                    x, None if h0 is None else h0[slab], None if c0 is None else c0[slab], lengths
                )
                for slab in slabs
            ]
        )
        x = np.concatenate([each.y for each in passes[-1]], axis=-1)

    dh, dc = call.states(call.dstate)
    dy = call.output_gradient(x.shape)
    flow: dict[str, DirectionFlow] = {}
    with np.errstate(over="ignore", invalid="ignore"):  # an explosion is a result
        for index in reversed(range(layer.num_layers)):
            slab = index * layer.num_directions
            dx = np.zeros(passes[index][0].input_shape)
            for k, (each, d) in enumerate(zip(passes[index], np.split(dy, layer.num_directions, axis=-1), strict=True)):
                finals = [None if part is None else part[slab + k] for part in (dh, dc)]
                gradients = each.backward(d, *finals)
                name = direction_name(call.name, index, k == 1)
                flow[name] = _measure(each, gradients, samples, norm)
                dx += gradients.dx
            dy = dx
    return GradientFlow(sorted(flow.items()))


def _measure(each: Pass, gradients: Gradients, samples: int, norm: str) -> DirectionFlow:
    direction, lengths = each.direction, each.lengths
    batch = len(lengths)
    valid = valid_steps("gradient_flow", lengths, *gradients.dh.shape[:2])
    jacobian = None
    if min(samples, batch):
        jacobian = np.stack(
            [matrix_norms("gradient_flow", each.jacobian(sample), norm) for sample in range(min(samples, batch))]
        )
        jacobian = np.where(valid[: len(jacobian)], jacobian, np.nan)
    return DirectionFlow(
        direction.cell,
        direction.reverse,
        np.where(valid, vector_norms(gradients.dh), np.nan),
        None if gradients.dc is None else np.where(valid, vector_norms(gradients.dc), np.nan),
        jacobian,
        lengths,
        _blocks(direction),
        norm,
    )


def _blocks(direction: Direction) -> dict[str, Array]:
    gates = CELLS[direction.cell].gates
    return dict(zip(gates, np.split(direction.weight_hh, direction.gates), strict=True))
