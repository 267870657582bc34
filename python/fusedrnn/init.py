"""Initial values of parameters. Each function returns a new array; the same generator state gives the same bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .allocation import claim_parameters, initialisation_is_skipped

# Gates in torch's order: LSTM i, f, g, o; GRU r, z, n.
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
LSTM_FORGET_GATE = 1


def uniform(shape: tuple[int, ...], bound: float, dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw from U(-bound, bound). float32 values are the float64 values rounded, so a seed means one set of weights."""
    if initialisation_is_skipped():
        return np.zeros(shape, dtype)
    return rng.uniform(-bound, bound, shape).astype(dtype)


def normal(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw from the standard normal distribution."""
    if initialisation_is_skipped():
        return np.zeros(shape, dtype)
    return rng.standard_normal(shape).astype(dtype)


def glorot_uniform(shape: tuple[int, int], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw a (fan_out, fan_in) matrix from U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Glorot & Bengio 2010, equation 16.
    """
    return uniform(shape, math.sqrt(6.0 / (shape[0] + shape[1])), dtype, rng)


def torch_uniform(shape: tuple[int, ...], size: int, dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw from U(-1/sqrt(size), 1/sqrt(size)): torch's choice, with the hidden size or the number of inputs."""
    return uniform(shape, 1.0 / math.sqrt(size), dtype, rng)


def orthogonal(shape: tuple[int, int], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw a matrix with orthonormal rows or columns (whichever are fewer), uniformly.

    A recurrence with such a matrix neither shrinks nor grows a gradient. Saxe et al. 2014; the QR factors' signs are
    fixed so that the distribution is uniform (Mezzadri 2007).
    """
    if initialisation_is_skipped():
        return np.zeros(shape, dtype)
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray(q if rows >= columns else q.T, dtype)


def limit_spectral_norm(weight: NDArray[Any], limit: float = 1.0) -> NDArray[Any]:
    """Return ``weight`` scaled so that its largest singular value is at most ``limit``.

    The gradient of a linear recurrence over t steps is (W^T)^t: with a spectral norm of at most 1 it cannot explode
    (Pascanu et al. 2013).

    Parameters
    ----------
    weight : ndarray (rows, columns)
        A matrix; for a layer with gates, one gate's block.
    limit : float
        Upper bound of the spectral norm, positive.
    """
    if weight.ndim != 2 or not limit > 0:
        raise ValueError(
            f"limit_spectral_norm: got shape {weight.shape} and limit {limit}; expected a matrix and a positive limit"
        )
    norm = float(np.linalg.norm(weight.astype(np.float64), 2)) if weight.size else 0.0
    return weight * weight.dtype.type(limit / norm) if norm > limit else weight.copy()


def recurrent_parameters(
    cell: str,
    input_size: int,
    hidden_size: int,
    bias: bool,
    dtype: np.dtype[Any],
    rng: np.random.Generator,
    init: str = "default",
) -> dict[str, NDArray[Any]]:
    """Return the parameters of one layer in one direction, with torch's names, shapes and gate order.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru"}
        Its gates G are 1, 4 (i, f, g, o) or 3 (r, z, n).
    input_size, hidden_size : int
        I and H, positive.
    bias : bool
        Whether bias_ih and bias_hh are there.
    dtype : dtype
        float32 or float64.
    rng : numpy.random.Generator
        Its state advances.
    init : {"default", "torch"}
        default: per gate Glorot for the input weights and orthogonal for the recurrent ones, biases 0 but for the
        LSTM's forget gate, which starts at 1 in bias_ih (Gers et al. 2000; Jozefowicz et al. 2015).
        torch: everything from U(-1/sqrt(H), 1/sqrt(H)).

    Returns
    -------
    dict
        weight_ih (G*H, I), weight_hh (G*H, H), and with ``bias`` bias_ih and bias_hh (G*H,).

    Raises
    ------
    ValueError
        If ``cell`` or ``init`` is unknown, or the parameters would be too many to allocate.
    """
    if cell not in GATES:
        raise ValueError(f"recurrent_parameters: cell is {cell!r}; expected one of {', '.join(GATES)}")
    check_init(cell.upper(), init)
    gates = GATES[cell]
    rows = gates * hidden_size
    claim_parameters(cell.upper(), rows * (input_size + hidden_size + 2 * bias), dtype)
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
    if bias:
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    if init == "torch":
        return {name: torch_uniform(shape, hidden_size, dtype, rng) for name, shape in shapes.items()}

    params = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}
    blocks = [slice(gate * hidden_size, (gate + 1) * hidden_size) for gate in range(gates)]
    for block in blocks:
        params["weight_ih"][block] = glorot_uniform((hidden_size, input_size), dtype, rng)
        params["weight_hh"][block] = orthogonal((hidden_size, hidden_size), dtype, rng)
    if bias and cell == "lstm":
        params["bias_ih"][blocks[LSTM_FORGET_GATE]] = 1
    return params


def check_init(op: str, init: str) -> None:
    """Raise ValueError unless ``init`` is "default" or "torch"."""
    if init not in ("default", "torch"):
        raise ValueError(f"{op}: init is {init!r}; expected 'default' or 'torch'")
