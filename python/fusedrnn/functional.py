"""The raw kernels: one layer, one direction, one call per sequence. Nothing is converted.

Arrays are NumPy arrays of one dtype, float32 or float64; or they lie in the memory of a GPU, of any library that
shares them by DLPack or ``__cuda_array_interface__`` (CuPy, torch, JAX), bfloat16 and float16 included. Results are
then of that library, ready in the caller's current stream. Another dtype raises TypeError. Any strides are accepted; an
array whose last axis is not dense is copied once. Shapes: ``x`` (B, T, I), or (T, B, I) with ``batch_first=False``;
states (B, H); weights as torch's, (G*H, I) and (G*H, H) with G = 1 (RNN), 4 (LSTM: i, f, g, o) or 3 (GRU: r, z, n);
``lengths`` (B,) integers in [0, T], in any order. Outputs past a sample's end are 0, its final state is the one at its
true end, and ``reverse`` walks its valid steps from the last to the first. ``resets``, bool and laid out as x, (B, T),
marks steps before which the state is zero again; on the cpu.

With ``training=True`` a tape comes back too. The backward function reads the inputs, the weights and y again: leave
them as they are until then (y is read-only for that reason).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays.checks import described
from .arrays.devices import is_device_array, require_device
from .cell_table import CELLS

__all__ = ["Gradients", "KernelTape", "gru", "gru_backward", "lstm", "lstm_backward", "rnn", "rnn_backward"]


def __dir__() -> list[str]:
    return __all__


Array: TypeAlias = NDArray[Any]  # or an array of a device, which has the same shape, ndim and indices


class Gradients(NamedTuple):
    """Gradients of the arguments of a forward call, each shaped as the argument; None for what is not there."""

    x: Array
    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None
    bias_hh: Array | None
    h0: Array
    c0: Array | None


class Backend(Protocol):
    """The kernels of one kind of array."""

    @property
    def Stack(self) -> Any:
        """The class of a stack of layers."""

    @property
    def dtype(self) -> str:
        """The dtype of x."""

    def zeros(self, like: Any) -> Any:
        """Return zeros of the shape of a weight."""

    def result(self, array: Any) -> Any:
        """Return what ``zeros`` made as the caller should see it."""


class _Cpu:
    """NumPy arrays."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    @property
    def Stack(self) -> Any:
        return _core.Stack

    def zeros(self, like: Any) -> Any:
        return np.zeros(like.shape, self.dtype)

    def result(self, array: Any) -> Any:
        return array


@dataclass(frozen=True, slots=True)
class KernelTape:
    """What a forward kernel keeps for its backward: the activated gates (and c), and references to x and y."""

    op: str
    core: Any
    weights: tuple[Array, ...]
    h: Array  # the final state, whose shape and dtype its gradient has
    backend: Backend

    def __repr__(self) -> str:
        return f"KernelTape of {self.op}, state {self.h.dtype} {tuple(self.h.shape)}"


def lstm(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    batch_first: bool = True,
    training: bool = False,
) -> tuple[Any, ...]:
    """Long short-term memory over a whole sequence (Hochreiter & Schmidhuber 1997; forget gate Gers et al. 2000).

    The formulas are those of :class:`fusedrnn.layers.LSTM`. Shapes and dtypes: see the module.

    Returns
    -------
    y : ndarray (B, T, H)
        h of every step.
    h, c : ndarray (B, H)
        The state after each sample's last valid step.
    tape : KernelTape
        Only with ``training``.

    Raises
    ------
    TypeError
        For a wrong dtype.
    ValueError
        For a wrong shape or length; the message names the argument, what was got and what was expected.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return _forward("lstm", x, weights, h0, c0, lengths, resets, reverse, batch_first, training)


def gru(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    h0: Array | None = None,
    *,
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    batch_first: bool = True,
    training: bool = False,
    reset_after: bool = True,
) -> tuple[Any, ...]:
    """Gated recurrent unit over a whole sequence, reset after the product, as torch and cuDNN (Cho et al. 2014).

    The formulas are those of :class:`fusedrnn.layers.GRU`, those of ``reset_after=False`` included, which are on the
    cpu only. Returns (y, h), and the tape with ``training``; errors as :func:`lstm`.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    if not reset_after and is_device_array(x):
        raise RuntimeError("gru: reset_after is False for an array on a device; expected one on the cpu")
    cell = "gru" if reset_after else "gru_before"
    y, h, _, *tape = _forward(cell, x, weights, h0, None, lengths, resets, reverse, batch_first, training)
    return (y, h, *tape)


def rnn(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    h0: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    batch_first: bool = True,
    training: bool = False,
) -> tuple[Any, ...]:
    """Elman network over a whole sequence (Elman 1990).

    The formula is that of :class:`fusedrnn.layers.RNN`. ``nonlinearity`` is "tanh" or "relu". Returns (y, h), and the
    tape with ``training``; errors as :func:`lstm`.
    """
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    cell = rnn_cell("RNN", nonlinearity)
    y, h, _, *tape = _forward(cell, x, weights, h0, None, lengths, resets, reverse, batch_first, training)
    return (y, h, *tape)


def lstm_backward(
    tape: KernelTape, dy: Array | None = None, dh: Array | None = None, dc: Array | None = None
) -> Gradients:
    """Backpropagation through time of :func:`lstm`.

    Parameters
    ----------
    tape : KernelTape
        From the forward call. A second call on it gives the same bits and costs another forward.
    dy : ndarray (B, T, H), optional
        dL/dy; what it holds past a sample's end is not read. None: zeros.
    dh, dc : ndarray (B, H), optional
        dL/dh and dL/dc of the final state. None: zeros.
    """
    return _backward("lstm", tape, dy, dh, dc)


def gru_backward(tape: KernelTape, dy: Array | None = None, dh: Array | None = None) -> Gradients:
    """Backpropagation through time of :func:`gru`; arguments as :func:`lstm_backward`."""
    return _backward("gru", tape, dy, dh, None)


def rnn_backward(tape: KernelTape, dy: Array | None = None, dh: Array | None = None) -> Gradients:
    """Backpropagation through time of :func:`rnn`; arguments as :func:`lstm_backward`."""
    return _backward("rnn", tape, dy, dh, None)


def rnn_cell(op: str, nonlinearity: str) -> str:
    """Return the kernel's name of an Elman cell; ValueError for an unknown nonlinearity."""
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"{op}: nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'")
    return f"rnn_{nonlinearity}"


def _forward(
    cell: str,
    x: Array,
    weights: tuple[Array | None, ...],
    h0: Array | None,
    c0: Array | None,
    lengths: Any,
    resets: Any,
    reverse: bool,
    batch_first: bool,
    training: bool,
) -> tuple[Any, ...]:
    op = cell.partition("_")[0]
    backend = _backend(op, x)
    if x.ndim != 3:
        raise ValueError(f"{op}: x has shape {tuple(x.shape)}; expected (batch, time, input_size), 3 axes")
    given = _check_weights(op, len(CELLS[cell.removesuffix("_before")].gates), x, weights)
    input_size, hidden_size = given[0].shape[1], given[1].shape[1]
    batch = x.shape[0 if batch_first else 1]
    for name, state in (("h0", h0), ("c0", c0)):
        _check(op, name, state, x, "batch, hidden", (batch, hidden_size))
    stack = backend.Stack(
        cell,
        backend.dtype,
        input_size=input_size,
        hidden_size=hidden_size,
        num_layers=1,
        num_directions=1,
        reverse=reverse,
        bias=len(given) == 4,
    )
    marks = {} if resets is None else {"resets": _marks(op, resets, x)}
    y, h, c, tape = stack.forward(given, x, _slab(h0), _slab(c0), lengths, batch_first, training, **marks)
    out = (y, h[0], None if c is None else c[0])
    return (*out, KernelTape(op, tape, tuple(given), out[1], backend)) if training else out


def _backward(op: str, tape: KernelTape, dy: Array | None, dh: Array | None, dc: Array | None) -> Gradients:
    if not isinstance(tape, KernelTape):
        raise TypeError(f"{op}_backward: tape is {described(tape)}; expected the tape of {op}")
    if tape.op != op:
        raise ValueError(f"{op}_backward: tape is one of {tape.op}; expected the tape of {op}")
    for name, state in (("dh", dh), ("dc", dc)):
        _check(f"{op}_backward", name, state, tape.h, "batch, hidden", tuple(tape.h.shape))
    gradients = [tape.backend.zeros(w) for w in tape.weights]
    dx, dh0, dc0, *_ = tape.core.backward(dy, _slab(dh), _slab(dc), gradients)
    weight_ih, weight_hh, *biases = map(tape.backend.result, gradients)
    bias_ih, bias_hh = biases if biases else (None, None)
    return Gradients(dx, weight_ih, weight_hh, bias_ih, bias_hh, dh0[0], None if dc0 is None else dc0[0])


def _backend(op: str, x: Any) -> Backend:
    """Return the kernels for x, by where it lies."""
    if is_device_array(x):
        require_device()
        from .cuda.stack import DeviceBackend

        return DeviceBackend(op, x)
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        got = f"has dtype {x.dtype}" if isinstance(x, np.ndarray) else f"is {described(x)}"
        raise TypeError(f"{op}: x {got}; expected a numpy array of float32 or float64")
    return _Cpu(x.dtype.name)


def _check_weights(op: str, gates: int, x: Array, weights: tuple[Array | None, ...]) -> list[Array]:
    """Return the weights that are there, after checking them against each other and x.

    The sizes of a stack are read off the weights, so before there is a stack, whose kernels judge every shape, somebody
    must say which of the arguments does not fit the others; and here they have other names and axes than in a stack.
    """
    bias_ih, bias_hh = weights[2:]
    weight_ih, weight_hh = (
        _matrix(op, name, w, x) for name, w in zip(("weight_ih", "weight_hh"), weights, strict=False)
    )
    if (bias_ih is None) != (bias_hh is None):
        name = "bias_ih" if bias_ih is None else "bias_hh"
        raise ValueError(f"{op}: {name} is None; expected both bias_ih and bias_hh, or neither")
    hidden, inputs = weight_hh.shape[1], weight_ih.shape[1]
    if hidden == 0:
        raise ValueError(f"{op}: weight_hh has shape {tuple(weight_hh.shape)}; expected hidden_size >= 1")
    if inputs == 0:
        raise ValueError(f"{op}: weight_ih has shape {tuple(weight_ih.shape)}; expected input_size >= 1")
    if x.shape[2] != inputs:
        got = tuple(x.shape)
        raise ValueError(f"{op}: x has shape {got}; expected input_size = {inputs}, the columns of weight_ih")
    rows = gates * hidden
    _check(op, "weight_hh", weight_hh, x, f"{gates}*hidden, hidden", (rows, hidden))
    _check(op, "weight_ih", weight_ih, x, f"{gates}*hidden, input_size", (rows, inputs))
    for name, bias in (("bias_ih", bias_ih), ("bias_hh", bias_hh)):
        _check(op, name, bias, x, f"{gates}*hidden,", (rows,))
    return [w for w in weights if w is not None]


def _matrix(op: str, name: str, array: Array | None, like: Array) -> Array:
    if array is None:
        raise TypeError(f"{op}: {name} is a NoneType; expected {_kind(like)}")
    _check_kind(op, name, array, like)
    if array.ndim != 2:
        raise ValueError(f"{op}: {name} has shape {tuple(array.shape)}; expected 2 axes")
    return array


def _check(op: str, name: str, array: Array | None, like: Array, axes: str, expected: tuple[int, ...]) -> None:
    """Raise the error of an operand that is neither None nor an array of the kind of ``like`` and of this shape."""
    if array is None:
        return
    _check_kind(op, name, array, like)
    if isinstance(like, np.ndarray) and array.dtype != like.dtype:  # on a device the kernels compare
        raise TypeError(f"{op}: {name} has dtype {array.dtype}; expected {like.dtype}, as x")
    if tuple(array.shape) != expected:
        raise ValueError(f"{op}: {name} has shape {tuple(array.shape)}; expected ({axes}) = {expected}")


def _check_kind(op: str, name: str, array: Any, like: Array) -> None:
    if not (isinstance(array, np.ndarray) if isinstance(like, np.ndarray) else is_device_array(array)):
        raise TypeError(f"{op}: {name} is {described(array)}; expected {_kind(like)}")


def _kind(like: Array) -> str:
    return "a numpy array" if isinstance(like, np.ndarray) else f"an array on a device, as x, {described(like)}"


def _marks(op: str, resets: Any, x: Array) -> Any:
    if not isinstance(x, np.ndarray):
        raise RuntimeError(f"{op}: resets is given for an array on a device; expected one on the cpu")
    return np.asarray(resets)


def _slab(state: Array | None) -> Array | None:
    """Return a (B, H) state as the (1, B, H) of a stack of one layer."""
    return None if state is None else state[None]
