"""How gradients travel back through time in the recurrent layers of a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays.checks import Array, integer
from ..layers.base import Layer, Tape
from ..layers.bidirectional import Bidirectional
from ..layers.calling import first
from ..layers.protocol import is_time_major
from ..layers.recurrent import Recurrent
from ..training.losses import Loss, get_loss, sequence_mask
from .direction_flow import GradientFlow, flow_of_call
from .powers import matrix_norms
from .recording import recorded, run_forward


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
        Valid time steps; for an encoder-decoder a pair, as it takes them.
    jacobian_samples : int
        For how many samples the Jacobians are computed: H backward passes each, in batches; 8 T H^2 bytes.
    norm : {"spectral", "frobenius"}
        Norm of the Jacobians: the largest singular value, or the root of the sum of their squares.
    seed : int, optional
        Seed for the random vectors.

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
    if not single and any(map(is_time_major, model.layers())):
        raise ValueError("gradient_flow: the model has batch_first=False; expected a batch-major model")
    judge, rng = get_loss(loss, "gradient_flow"), np.random.default_rng(seed)
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
        flow.update(flow_of_call(call, jacobian_samples, norm))
    return flow


def _backward_of_loss(model: Layer, tape: Tape, outputs: Any, target: Any, loss: Loss, lengths: Any) -> None:
    if model.output_names:
        raise TypeError(f"gradient_flow: target is given, but {model.op} has several outputs; expected None")
    pred, lengths = first(outputs), _of_output(lengths)
    mask = None if lengths is None or pred.ndim < 3 else sequence_mask(lengths, pred.shape[1])
    model.backward(tape, loss(pred, target, mask)[1])


def _backward_of_projection(model: Layer, tape: Tape, outputs: Any, lengths: Any, rng: np.random.Generator) -> None:
    if isinstance(model, Recurrent):
        model.backward(tape, None, _unit_state(outputs[1], model.num_directions, rng))
    elif isinstance(model, Bidirectional):
        states = tuple(_unit_state(state, 1, rng) for state in outputs[1])
        model.backward(tape, None, states)
    else:
        y, lengths = first(outputs), _of_output(lengths)
        several = isinstance(y, dict)
        d = {name: _unit_output(each, lengths, rng) for name, each in y.items()} if several else None
        model.backward(tape, _unit_output(y, lengths, rng) if d is None else d)


def _unit_output(y: Array, lengths: Any, rng: np.random.Generator) -> Array:
    """Return a unit vector for each sample, at its last step where y has steps; zeros elsewhere."""
    if y.ndim < 3:
        return _unit_rows(y.shape, rng)
    d = np.zeros_like(y)
    ends = np.full(len(y), y.shape[1]) if lengths is None else np.asarray(lengths)
    rows = np.flatnonzero(ends)
    d[rows, ends[rows] - 1] = _unit_rows((len(rows), *y.shape[2:]), rng)
    return d


def _of_output(lengths: Any) -> Any:
    """Return the lengths of the outputs: those of the last input of a model with several."""
    return (
        lengths[-1]
        if isinstance(lengths, tuple) and len(lengths) == 2 and not all(map(_is_number, lengths))
        else lengths
    )


def _is_number(value: Any) -> bool:
    return value is not None and np.ndim(value) == 0


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
