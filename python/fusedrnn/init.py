"""Initial values of parameters. Each function returns a new array; the same generator state gives the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .allocation import claim_parameters, initialisation_is_skipped
from .arrays.answering import answering
from .arrays.products import row_products
from .cell_table import CELLS

__all__ = [
    "Init",
    "RecurrentInit",
    "glorot_uniform",
    "limit_spectral_norm",
    "normal",
    "orthogonal",
    "recurrent_parameters",
    "torch_uniform",
    "uniform",
]


def __dir__() -> list[str]:
    return __all__


GATES = {cell.op.lower(): len(cell.gates) for cell in CELLS.values()}
LSTM_INPUT_GATE, LSTM_FORGET_GATE = map(CELLS["lstm"].gates.index, "if")
GRU_UPDATE_GATE = CELLS["gru"].gates.index("z")


_BY_REFLECTIONS = 256  # units from which on the QR of LAPACK is the slower way
_AT_ONCE = 1 << 20  # numbers, a few milliseconds
_BLOCK, _ROWS = 64, 128  # reflections that are applied together, and to how many rows


@dataclass(frozen=True)
class RecurrentInit:
    """How the weights of a recurrent layer start: ``LSTM(..., init=RecurrentInit(forget_bias=3))``.

    Input weights are Glorot, biases 0 except the forget gate's. Each gate's block of W_hh is drawn, multiplied by
    ``gain``, then limited to ``spectral_norm``.

    Parameters
    ----------
    recurrent : {"orthogonal", "identity", "glorot", "torch"}
        W_hh. orthogonal: keeps the norm of a gradient (Saxe et al. 2014). identity: for an RNN with relu, which then
        starts as a sum over time (Le et al. 2015). glorot: U(-a, a) with a = sqrt(3 / H). torch: with 1 / sqrt(H).
    gain : float
        Positive.
    spectral_norm : float, optional
        Upper bound of the largest singular value, positive. At most 1 keeps gradients from exploding (Pascanu et al.
        2013).
    forget_bias : float
        Bias of an LSTM's forget gate: large values remember longer from the start (Gers et al. 2000; Jozefowicz et al.
        2015).
    memory_steps : int, optional
        How long the units of an LSTM or GRU should remember from the start, at least 3. The bias of the forget (in a
        GRU: update) gate is log U(1, memory_steps - 1), one per unit, and an LSTM's input gate gets its negative, so
        that the state neither fades nor fills up (Tallec & Ollivier 2018). Takes the place of ``forget_bias``.

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    recurrent: str = "orthogonal"
    gain: float = 1.0
    spectral_norm: float | None = None
    forget_bias: float = 1.0
    memory_steps: int | None = None

    def __post_init__(self) -> None:
        if self.recurrent not in _RECURRENT:
            known = ", ".join(map(repr, _RECURRENT))
            raise ValueError(f"RecurrentInit: recurrent is {self.recurrent!r}; expected one of {known}")
        for name, value in (("gain", self.gain), ("spectral_norm", self.spectral_norm)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"RecurrentInit: {name} is {value}; expected a positive number")
        if not math.isfinite(self.forget_bias):
            raise ValueError(f"RecurrentInit: forget_bias is {self.forget_bias}; expected a finite number")
        if self.memory_steps is not None and self.memory_steps < 3:
            raise ValueError(f"RecurrentInit: memory_steps is {self.memory_steps}; expected at least 3")

    def gate_biases(self, cell: str, size: int, rng: np.random.Generator) -> dict[int, Any]:
        """Return the biases (H,) of the gates, by number, that do not start at 0."""
        if self.memory_steps is None:
            return {LSTM_FORGET_GATE: self.forget_bias} if cell == "lstm" else {}
        if cell not in ("lstm", "gru"):
            raise ValueError(f"{cell.upper()}: init has memory_steps, which sets gates; expected an LSTM or GRU")
        biases = np.log(rng.uniform(1.0, self.memory_steps - 1.0, size))
        return {LSTM_FORGET_GATE: biases, LSTM_INPUT_GATE: -biases} if cell == "lstm" else {GRU_UPDATE_GATE: biases}

    def recurrent_block(self, size: int, dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Return one gate's block of W_hh (H, H)."""
        if initialisation_is_skipped():
            return np.zeros((size, size), dtype)
        block = _RECURRENT[self.recurrent](size, dtype, rng)
        if self.gain != 1:
            block *= dtype.type(self.gain)
        return block if self.spectral_norm is None else limit_spectral_norm(block, self.spectral_norm)


Init: TypeAlias = str | RecurrentInit


def uniform(shape: tuple[int, ...], bound: float, dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw from U(-bound, bound). float32 values are the float64 values rounded, so a seed means one set of weights."""
    if initialisation_is_skipped():
        return np.zeros(shape, dtype)
    return _drawn(shape, dtype, lambda count: rng.uniform(-bound, bound, count))


def normal(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw from the standard normal distribution."""
    if initialisation_is_skipped():
        return np.zeros(shape, dtype)
    return _drawn(shape, dtype, rng.standard_normal)


def _drawn(shape: tuple[int, ...], dtype: np.dtype[Any], draw: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
    """Draw the values one after another, not all in one call, in which Python would see no Ctrl-C."""
    values = np.empty(shape, dtype)
    flat = values.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        part = flat[start : start + _AT_ONCE]
        part[:] = draw(part.size)
    return values


def glorot_uniform(shape: tuple[int, int], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    r"""Draw a (fan_out, fan_in) matrix from U(-a, a) with :math:`a = \sqrt{6 / (\text{fan in} + \text{fan out})}`.

    Glorot & Bengio 2010, equation 16.
    """
    return uniform(shape, math.sqrt(6.0 / (shape[0] + shape[1])), dtype, rng)


def torch_uniform(shape: tuple[int, ...], size: int, dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    r"""Draw from U(-a, a) with :math:`a = 1 / \sqrt{n}`, torch's choice, and n the hidden size or number of inputs."""
    return uniform(shape, 1.0 / math.sqrt(size), dtype, rng)


def orthogonal(shape: tuple[int, int], dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Draw a matrix with orthonormal rows or columns (whichever are fewer), uniformly.

    A recurrence with such a matrix neither shrinks nor grows a gradient. Saxe et al. 2014; the QR factors' signs are
    fixed so that the distribution is uniform (Mezzadri 2007).
    """
    if initialisation_is_skipped():
        return np.zeros(shape, dtype)
    rows, columns = shape
    long, short = max(shape), min(shape)
    if short < _BY_REFLECTIONS:
        q, r = answering(np.linalg.qr, normal((long, short), np.dtype(np.float64), rng))
        q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)
    else:
        q = _reflected(long, short, dtype, rng)
    return np.ascontiguousarray(q if rows >= columns else q.T, dtype)


def _reflected(rows: int, columns: int, dtype: np.dtype[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Return what the QR factorisation of a normal matrix has as Q, without the factorisation.

    Its Householder vectors are normal vectors of falling length, so they are drawn (Stewart 1980), and their product is
    formed a block at a time from the right, as I - V T V^T, where T^-1 is the upper triangle of V^T V with half its
    diagonal (Puglisi 1992): all the work is in matrix products.
    """
    q = np.eye(rows, columns, dtype=dtype)
    signs = np.empty(columns, dtype)
    for start in reversed(range(0, columns, _BLOCK)):
        width = min(_BLOCK, columns - start)
        v = np.tril(rng.standard_normal((rows - start, width)))
        diagonal = np.arange(width)
        sign = np.where(v[diagonal, diagonal] < 0, -1.0, 1.0)
        v[diagonal, diagonal] += sign * np.sqrt((v * v).sum(axis=0))
        products = row_products(v.T, v.T)
        inverse = np.triu(products)
        inverse[diagonal, diagonal] *= 0.5
        part, v_t = q[start:, start:], row_products(v, np.linalg.inv(inverse).T).astype(dtype)
        v = v.astype(dtype)
        inner = row_products(v.T, part.T)
        for row in range(0, len(part), _ROWS):  # so that the product is in the cache when it is taken off
            part[row : row + _ROWS] -= row_products(v_t[row : row + _ROWS], inner.T)
        signs[start : start + width] = -sign
    q *= signs
    return q


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
    norm = float(answering(np.linalg.norm, weight.astype(np.float64), 2)) if weight.size else 0.0
    return weight * weight.dtype.type(limit / norm) if norm > limit else weight.copy()


_RECURRENT: dict[str, Callable[[int, np.dtype[Any], np.random.Generator], NDArray[Any]]] = {
    "orthogonal": lambda size, dtype, rng: orthogonal((size, size), dtype, rng),
    "identity": lambda size, dtype, rng: np.eye(size, dtype=dtype),
    "glorot": lambda size, dtype, rng: glorot_uniform((size, size), dtype, rng),
    "torch": lambda size, dtype, rng: torch_uniform((size, size), size, dtype, rng),
}


def recurrent_parameters(
    cell: str,
    input_size: int,
    hidden_size: int,
    bias: bool,
    dtype: np.dtype[Any],
    rng: np.random.Generator,
    init: Init = "default",
    proj_size: int = 0,
) -> dict[str, NDArray[Any]]:
    """Return the parameters of one layer in one direction, with torch's names, shapes and gate order.

    Parameters
    ----------
    cell : {"rnn", "lstm", "gru"}
        Its gates G are 1, 4 (i, f, g, o) or 3 (r, z, n).
    input_size, hidden_size : int
        I and H, positive.
    bias : bool
        Whether to have bias_ih and bias_hh.
    dtype : dtype
        float32 or float64.
    rng : numpy.random.Generator
        Its state advances.
    init : {"default", "torch", "spectral"} or RecurrentInit
        default: ``RecurrentInit()``: per gate Glorot for the input weights and orthogonal for the recurrent ones,
        biases 0 except the LSTM's forget gate, which starts at 1 in bias_ih. spectral: Glorot for the recurrent ones,
        too, with a spectral norm of at most 1. torch: everything from U(-1/sqrt(H), 1/sqrt(H)).
    proj_size : int
        P, less than H; 0: h is not projected. With a projection weight_hh and weight_hr are Glorot's but for torch.

    Returns
    -------
    dict
        weight_ih (G*H, I), weight_hh (G*H, H or P), with ``bias`` bias_ih and bias_hh (G*H,), with P weight_hr (P, H).

    Raises
    ------
    ValueError
        If ``cell`` or ``init`` is unknown, or the parameters would be too many to allocate.
    """
    if cell not in GATES:
        raise ValueError(f"recurrent_parameters: cell is {cell!r}; expected one of {', '.join(GATES)}")
    check_init(cell.upper(), init, recurrent=True)
    gates = GATES[cell]
    rows = gates * hidden_size
    read = proj_size or hidden_size
    claim_parameters(cell.upper(), rows * (input_size + read + 2 * bias) + proj_size * hidden_size, dtype)
    shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, input_size), "weight_hh": (rows, read)}
    if bias:
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    if proj_size:
        shapes["weight_hr"] = (proj_size, hidden_size)
    if init == "torch":
        return {name: torch_uniform(shape, hidden_size, dtype, rng) for name, shape in shapes.items()}

    recipe = init if isinstance(init, RecurrentInit) else _NAMED[init]
    params = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}
    blocks = [slice(gate * hidden_size, (gate + 1) * hidden_size) for gate in range(gates)]
    for block in blocks:
        params["weight_ih"][block] = glorot_uniform((hidden_size, input_size), dtype, rng)
        if proj_size:  # not square
            params["weight_hh"][block] = glorot_uniform((hidden_size, proj_size), dtype, rng)
        else:
            params["weight_hh"][block] = recipe.recurrent_block(hidden_size, dtype, rng)
    if proj_size:
        params["weight_hr"][...] = glorot_uniform((proj_size, hidden_size), dtype, rng)
    if bias:
        for gate, values in recipe.gate_biases(cell, hidden_size, rng).items():
            params["bias_ih"][blocks[gate]] = values
    return params


_NAMED = {"default": RecurrentInit(), "spectral": RecurrentInit("glorot", spectral_norm=1.0)}


def check_init(op: str, init: Any, *, recurrent: bool = False) -> None:
    """Raise ValueError unless ``init`` is "default" or "torch", or what else a recurrent layer takes."""
    if recurrent and isinstance(init, RecurrentInit):
        return
    if not isinstance(init, str) or init not in ("default", "torch", *(_NAMED if recurrent else ())):
        expected = "'default', 'torch', 'spectral' or a RecurrentInit" if recurrent else "'default' or 'torch'"
        raise ValueError(f"{op}: init is {init!r}; expected {expected}")
