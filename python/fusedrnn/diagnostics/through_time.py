"""dL/dh(t) at every step of one direction of one layer, in float64, from the fused kernels.

The kernel runs on z_x(t) = W_ih x(t) as its input with the identity as its input weights: its dx is then the gradient
of the gates before their activation, dz(t), of all steps at once. What passes between the steps the kernels compute as
well, but do not give out, so it stands here a second time:

    dL/dh(t) = dy(t) + W_hh^T dz(t+1), in a GRU with r(t+1) before W_n and + z(t+1) dL/dh(t+1)
    dL/dc(t) = dL/dh(t) o(t) (1 - tanh(c(t))^2) + f(t+1) dL/dc(t+1), in an LSTM

Tests hold both to the reference, differentiated by the complex step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional
from ..arrays.checks import Array
from ..arrays.lengths import in_reverse, valid_steps
from ..cell_table import CELLS
from ..layers.recurrent import Recurrent

_CHUNK_ELEMENTS = 2**22  # of the largest array in a Jacobian's backward, 32 MiB


@dataclass(frozen=True)
class Direction:
    """One direction of one recurrent layer with its float64 weights."""

    cell: str
    weight_ih: Array
    weight_hh: Array
    biases: tuple[Array, ...]
    reverse: bool

    @property
    def hidden_size(self) -> int:
        """H."""
        return int(self.weight_hh.shape[1])

    @property
    def gates(self) -> int:
        """G: blocks of H rows in the weights."""
        return len(self.weight_hh) // self.hidden_size

    def run(self, x: Array, h0: Array | None, c0: Array | None, lengths: Array) -> Pass:
        """Run the forward over x (B, T, I)."""
        projected = in_step_order(x, lengths, self.reverse) @ self.weight_ih.T
        return Pass(self, projected, h0, c0, lengths)


@dataclass(frozen=True)
class Gradients:
    """Gradients of one backward: of h and, in an LSTM, c after each step, and of the input; each (B, T, ...)."""

    dh: Array
    dc: Array | None
    dx: Array


class Pass:
    """A forward over a batch of sequences, in the order of the steps, with what its backward needs."""

    def __init__(self, direction: Direction, projected: Array, h0: Array | None, c0: Array | None, lengths: Array):
        self.direction, self.lengths = direction, lengths
        self._projected, self._start = projected, (h0, c0)
        name = direction.cell.partition("_")[0]
        nonlinearity = direction.cell.partition("_")[2]
        options: dict[str, Any] = {"nonlinearity": nonlinearity} if nonlinearity else {}
        initial = [h0, c0] if name == "lstm" else [h0]
        biases = direction.biases or (None, None)
        identity = np.eye(direction.gates * direction.hidden_size)
        y, *_, self._tape = getattr(functional, name)(
            projected, identity, direction.weight_hh, *biases, *initial, lengths=lengths, training=True, **options
        )
        self._backward = getattr(functional, f"{name}_backward")
        self._y = y
        gates = self._tape.core.gates(0).swapaxes(1, 2)
        self._gates: dict[str, Array] = dict(zip(CELLS[direction.cell].slots, gates, strict=True))
        cells = self._tape.core.cell_states(0)
        self._c: Array | None = None if cells is None else cells[0].swapaxes(0, 1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(B, T, I)."""
        return (*self._projected.shape[:2], self.direction.weight_ih.shape[1])

    @property
    def y(self) -> Array:
        """Outputs h(t) (B, T, H)."""
        return in_step_order(self._y, self.lengths, self.direction.reverse)

    def backward(self, dy: Array, dh: Array | None, dc: Array | None) -> Gradients:
        """Return the gradients for dL/dy (B, T, H) and those of the final state, (B, H) each or None."""
        direction = self.direction
        valid = valid_steps("gradient_flow", self.lengths, *dy.shape[:2])
        dy = np.where(valid[..., np.newaxis], in_step_order(dy, self.lengths, direction.reverse), 0.0)
        rows = np.flatnonzero(self.lengths)
        if dh is not None:  # the final h is the h of the last valid step
            dy[rows, self.lengths[rows] - 1] += dh[rows]
        dz: Array = self._backward(self._tape, dy, None, *(() if self._c is None else (dc,))).x
        dh_all = self._dh(dy, dz)
        dc_all = None if self._c is None else self._dc(dh_all, dc)

        def by_time(sequence: Array) -> Array:
            return in_step_order(sequence, self.lengths, direction.reverse)

        return Gradients(
            by_time(dh_all), None if dc_all is None else by_time(dc_all), by_time(dz @ direction.weight_ih)
        )

    def jacobian(self, sample: int) -> Array:
        """Return dh(end)/dh(t) (T, H, H) of one sample: row k is the gradient of the final h_k."""
        direction, hidden = self.direction, self.direction.hidden_size
        steps, width = self._projected.shape[1:]
        result = np.empty((steps, hidden, hidden))
        chunk = max(1, _CHUNK_ELEMENTS // max(1, steps * width))
        for first in range(0, hidden, chunk):
            units = np.arange(first, min(first + chunk, hidden))
            copies = Pass(
                Direction(direction.cell, direction.weight_ih, direction.weight_hh, direction.biases, reverse=False),
                np.broadcast_to(self._projected[sample], (len(units), steps, width)),
                *self._start_copies(sample, len(units)),
                np.repeat(self.lengths[sample], len(units)),
            )
            final = np.eye(hidden)[units]
            result[:, units] = copies.backward(np.zeros((len(units), steps, hidden)), final, None).dh.swapaxes(0, 1)
        if direction.reverse:
            result = in_step_order(result[np.newaxis], self.lengths[sample : sample + 1], True)[0]
        return result

    def _start_copies(self, sample: int, count: int) -> tuple[Array | None, Array | None]:
        h0, c0 = (None if part is None else np.tile(part[sample], (count, 1)) for part in self._start)
        return h0, c0

    def _dh(self, dy: Array, dz: Array) -> Array:
        """Return dL/dh of each step, from dy and the gate gradients."""
        gates = self._gates
        if "m" in gates:  # the n block of W_hh h passes the reset gate before it meets that of W_ih x
            hidden = self.direction.hidden_size
            dz = np.concatenate((dz[..., : 2 * hidden], dz[..., 2 * hidden :] * gates["r"]), axis=-1)
        dh: Array = dy
        dh[:, :-1] += dz[:, 1:] @ self.direction.weight_hh
        if "z" in gates:
            for t in reversed(range(dh.shape[1] - 1)):
                dh[:, t] += gates["z"][:, t + 1] * dh[:, t + 1]
        return dh

    def _dc(self, dh: Array, dc_final: Array | None) -> Array:
        """Return dL/dc of each step: what reaches it through h(t) = o tanh(c(t)) and c(t+1) = f c(t) + i g."""
        assert self._c is not None
        dc: Array = dh * self._gates["o"] * (1 - np.tanh(self._c) ** 2)
        if dc_final is not None:
            rows = np.flatnonzero(self.lengths)
            dc[rows, self.lengths[rows] - 1] += dc_final[rows]
        for t in reversed(range(dc.shape[1] - 1)):
            dc[:, t] += self._gates["f"][:, t + 1] * dc[:, t + 1]
        return dc


def in_step_order(sequence: Array, lengths: Array, reverse: bool) -> Array:
    """Return (B, T, ...) with each sample's valid steps reversed if ``reverse``; its own inverse."""
    return in_reverse("gradient_flow", sequence, lengths) if reverse else sequence


def direction_of(layer: Recurrent, index: int, reverse: bool) -> Direction:
    """Return the ``index``-th layer of a stack, in its first direction or its second."""
    suffix = f"_l{index}{'_reverse' * reverse}"
    weight_ih, weight_hh, *biases = (
        layer.params[name + suffix].astype(np.float64)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        if name + suffix in layer.params
    )
    return Direction(layer._cell, weight_ih, weight_hh, tuple(biases), reverse or layer._reverse)
