"""How gradients travel back through time in the recurrent layers of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..layers.arrays import Array, integer
from ..layers.base import Layer, Tape
from ..layers.bidirectional import Bidirectional
from ..layers.calling import first
from ..layers.recurrent import Recurrent
from ..training.losses import Loss, get_loss, sequence_mask
from .powers import matrix_norms, power_norms, spectral_norm, spectral_radius
from .recording import Call, direction_name, recorded, run_forward
from .through_time import Direction, Gradients, Pass, direction_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GATE_NAMES = {1: "h", 3: "rzn", 4: "ifgo"}  # blocks of W_hh by their number


@dataclass(frozen=True)
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
        Of ``jacobian`` and ``powers``.
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
                gains.append(np.log(early / late) / (length - 1) if early > 0 and late > 0 else -np.inf)
        return float(np.exp(np.mean(gains))) if gains else float("nan")


class GradientFlow(dict[str, DirectionFlow]):
    """Gradients by direction: "l0", "l0_reverse", "l1" ...; inside a model with the layer's path, "0.l0"."""

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the norms over time, one panel a direction; see :func:`plot_gradient_flow`."""
        return plot_gradient_flow({"": self}, path)


def gradient_flow(
    model: Layer,
    x: Any,
    target: Any = None,
    *,
    loss: str | Loss = "mse",
    state: Any = None,
    lengths: Any = None,
    jacobian_samples: int = 1,
    norm: str = "spectral",
    seed: int | None = 0,
) -> GradientFlow:
    """Measure the gradients of a loss by h(t), for every step, layer and direction, and the Jacobians dh(end)/dh(t).

    One forward and backward of the model find what each recurrent layer reads and which gradient it gets; each is then
    computed again in float64, so that a gradient can vanish down to 1e-308. The model is left as it was: parameters,
    gradients and random states. Dropout between the layers of one recurrent layer is off.

    Parameters
    ----------
    model : Layer
        A recurrent layer, or a model with recurrent layers inside, batch-major.
    x : array_like or tuple
        The model's input; a tuple holds several inputs.
    target : array_like, optional
        For ``loss``. Without it L is the projection of the last output on a random unit vector, one for each sample:
        of the final h of the top layer (both directions) for a recurrent layer, of y at the last valid step for a
        model. Then ‖dL/dh‖ starts at 1 in a recurrent layer.
    loss : str or callable
        As ``fusedrnn.fit`` takes it.
    state : array_like or pair, optional
        Initial state, for models that take one.
    lengths : array_like of int (B,), optional
        Valid time steps.
    jacobian_samples : int
        For how many samples the Jacobians are computed: H backward passes each, in batches; 8 T H^2 bytes.
    norm : {"spectral", "frobenius"}
        Of the Jacobians: the largest singular value, or the root of the sum of their squares.
    seed : int, optional
        Of the random vectors.

    Returns
    -------
    GradientFlow
        :class:`DirectionFlow` by name.

    Raises
    ------
    ValueError
        If there is no recurrent layer in the model, or an argument does not fit.

    Notes
    -----
    dL/dh(t) counts every path from h(t) to L. In an LSTM c(t) carries a gradient of its own past the gates: ``dc``.
    Hochreiter 1991; Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013.
    """
    if integer("gradient_flow", "jacobian_samples", jacobian_samples) < 0:
        raise ValueError(f"gradient_flow: jacobian_samples is {jacobian_samples}; expected a number >= 0")
    matrix_norms("gradient_flow", np.zeros((0, 1, 1)), norm)
    single = isinstance(model, Recurrent) and target is None
    if not single and any(not getattr(layer, "batch_first", True) for layer in model.layers()):
        raise ValueError("gradient_flow: the model has batch_first=False; expected a batch-major model")
    judge, rng = get_loss(loss), np.random.default_rng(seed)
    with recorded(model) as calls:
        outputs, tape = run_forward(model, x, state, lengths)
        if target is not None:
            _backward_of_loss(model, tape, outputs, target, judge, lengths)
        else:
            _backward_of_projection(model, tape, outputs, lengths, rng)
    if not calls:
        raise ValueError(f"gradient_flow: {model.op} has no recurrent layer; expected at least one")
    flow = GradientFlow()
    for call in calls:
        flow.update(_flow_of_call(call, jacobian_samples, norm))
    return flow


def plot_gradient_flow(flows: Mapping[str, GradientFlow], path: str | os.PathLike[str] | None = None) -> Figure:
    """Draw several flows side by side, with one scale: an RNN next to an LSTM.

    Parameters
    ----------
    flows : mapping of str to GradientFlow
        By title.
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
        If matplotlib is not installed (``pip install fusedrnn[plot]``).
    """
    from .flow_plot import draw_flows

    return draw_flows(flows, path)


def _backward_of_loss(model: Layer, tape: Tape, outputs: Any, target: Any, loss: Loss, lengths: Any) -> None:
    pred = first(outputs)
    mask = None if lengths is None or pred.ndim < 3 else sequence_mask(lengths, pred.shape[1])
    model.backward(tape, loss(pred, target, mask)[1])


def _backward_of_projection(model: Layer, tape: Tape, outputs: Any, lengths: Any, rng: np.random.Generator) -> None:
    if isinstance(model, Recurrent):
        model.backward(tape, None, _unit_state(outputs[1], model.num_directions, rng))
    elif isinstance(model, Bidirectional):
        states = tuple(_unit_state(state, 1, rng) for state in outputs[1])
        model.backward(tape, None, states)
    else:
        y = first(outputs)
        d = np.zeros_like(y)
        if y.ndim < 3:
            d[...] = _unit_rows(y.shape, rng)
        else:
            ends = np.full(len(y), y.shape[1]) if lengths is None else np.asarray(lengths)
            rows = np.flatnonzero(ends)
            d[rows, ends[rows] - 1] = _unit_rows((len(rows), *y.shape[2:]), rng)
        model.backward(tape, d)


def _unit_state(state: Any, directions: int, rng: np.random.Generator) -> Any:
    """Return the gradient of a final state: unit vectors for h of the top layer, nothing for the rest."""
    h = first(state)
    d = np.zeros_like(h)
    d[-directions:] = _unit_rows((directions, *h.shape[1:]), rng)
    return (d, None) if isinstance(state, tuple) else d


def _unit_rows(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    rows: Array = rng.standard_normal(shape)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows


def _flow_of_call(call: Call, samples: int, norm: str) -> GradientFlow:
    """Run one call of a recurrent layer again in float64, up through its layers and down again."""
    layer = call.layer
    x = call.input()
    lengths = call.valid_steps(*x.shape[:2])
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
    batch, steps = gradients.dh.shape[:2]
    valid = np.arange(steps) < lengths[:, np.newaxis]
    jacobian = None
    if min(samples, batch):
        jacobian = np.stack(
            [matrix_norms("gradient_flow", each.jacobian(sample), norm) for sample in range(min(samples, batch))]
        )
        jacobian = np.where(valid[: len(jacobian)], jacobian, np.nan)
    return DirectionFlow(
        direction.cell,
        direction.reverse,
        np.where(valid, np.linalg.norm(gradients.dh, axis=-1), np.nan),
        None if gradients.dc is None else np.where(valid, np.linalg.norm(gradients.dc, axis=-1), np.nan),
        jacobian,
        lengths,
        _blocks(direction),
        norm,
    )


def _blocks(direction: Direction) -> dict[str, Array]:
    names = _GATE_NAMES[direction.gates]
    return dict(zip(names, np.split(direction.weight_hh, direction.gates), strict=True))
