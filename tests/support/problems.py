"""Problems for the kernels: random asymmetric inputs, and one way to call every kernel."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusedrnn as fr
from reference import CELLS

Array = NDArray[Any]
FORWARD: dict[str, Callable[..., Any]] = {
    "rnn_tanh": partial(fr.functional.rnn, nonlinearity="tanh"),
    "rnn_relu": partial(fr.functional.rnn, nonlinearity="relu"),
    "lstm": fr.functional.lstm,
    "gru": fr.functional.gru,
}
BACKWARD: dict[str, Callable[..., Any]] = {
    "rnn_tanh": fr.functional.rnn_backward,
    "rnn_relu": fr.functional.rnn_backward,
    "lstm": fr.functional.lstm_backward,
    "gru": fr.functional.gru_backward,
}
LAYERS: dict[str, Callable[..., Any]] = {
    "rnn_tanh": partial(fr.RNN, nonlinearity="tanh"),
    "rnn_relu": partial(fr.RNN, nonlinearity="relu"),
    "lstm": fr.LSTM,
    "gru": fr.GRU,
}


@dataclass(frozen=True)
class Case:
    """One problem for a kernel. Its numbers follow from its fields and are representable in float32."""

    cell: str
    batch: int = 3
    steps: int = 4
    inputs: int = 3
    hidden: int = 5
    bias: bool = True
    state: bool = True
    ragged: bool = False
    reverse: bool = False
    batch_first: bool = True

    def rng(self, salt: str = "") -> np.random.Generator:
        """Return the generator of this case; another ``salt`` gives other numbers."""
        return np.random.default_rng(zlib.crc32((repr(self) + salt).encode()))

    def arguments(self, dtype: str = "float64") -> dict[str, Any]:
        """Return the arguments of ``functional`` and of ``reference.run``.

        A weight has the scale of 1/sqrt(inputs of its sum), so that no gate function gets huge arguments and the
        recurrence neither explodes nor dies. h0 is a value that h can have, inside (-1, 1).
        Ragged lengths hold a 0 and a full length where the batch has room for both.
        """
        rng = self.rng()
        rows = CELLS[self.cell].gates * self.hidden

        def uniform(fan_in: int, *shape: int) -> Array:
            scale = fan_in**-0.5
            return rng.uniform(-scale, 1.1 * scale, shape).astype(np.float32).astype(dtype)

        def normal(*shape: int) -> Array:
            return rng.normal(0.1, 1, shape).astype(np.float32).astype(dtype)

        axes = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        arguments: dict[str, Any] = {
            "x": normal(*axes, self.inputs),
            "weight_ih": uniform(self.inputs, rows, self.inputs),
            "weight_hh": uniform(self.hidden, rows, self.hidden),
        }
        if self.bias:
            arguments |= {"bias_ih": uniform(self.hidden, rows), "bias_hh": uniform(self.hidden, rows)}
        if self.state:
            arguments["h0"] = uniform(1, self.batch, self.hidden) / 2
            if "c" in CELLS[self.cell].states:
                arguments["c0"] = normal(self.batch, self.hidden)
        if self.ragged:
            lengths = rng.integers(0, self.steps + 1, self.batch)
            lengths[:2] = (0, self.steps)[: self.batch]
            arguments["lengths"] = rng.permutation(lengths)
        return arguments | {"reverse": self.reverse, "batch_first": self.batch_first}

    def cotangents(self, dtype: str = "float64") -> tuple[Array, ...]:
        """Return random dy, dh (and dc)."""
        rng = self.rng("cotangents")
        axes = (self.batch, self.steps) if self.batch_first else (self.steps, self.batch)
        shapes = [(*axes, self.hidden)] + [(self.batch, self.hidden)] * len(CELLS[self.cell].states)
        return tuple(rng.normal(0.1, 1, shape).astype(np.float32).astype(dtype) for shape in shapes)


def differentiable(arguments: Mapping[str, Any]) -> list[str]:
    """Return the names of the arguments that have a gradient."""
    return [name for name, value in arguments.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]


def as_float64(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same numbers for the reference: real arrays become float64, the rest stays."""
    return {**arguments, **{name: arguments[name].astype(np.float64) for name in differentiable(arguments)}}


def forward(cell: str, arguments: Mapping[str, Any]) -> tuple[Array, ...]:
    """Inference: (y, h) or (y, h, c)."""
    return tuple(FORWARD[cell](**arguments))


def train(cell: str, arguments: Mapping[str, Any]) -> tuple[tuple[Array, ...], Any]:
    """Training: the outputs and the tape."""
    *outputs, tape = FORWARD[cell](**arguments, training=True)
    return tuple(outputs), tape


def backward(cell: str, tape: Any, cotangents: tuple[Array | None, ...]) -> dict[str, Array]:
    """Gradients by name, without those of absent biases."""
    names = ["dy", *(f"d{name}" for name in CELLS[cell].states)]
    gradients = BACKWARD[cell](tape, **dict(zip(names, cotangents, strict=True)))
    return {name: value for name, value in gradients._asdict().items() if value is not None}


def gradients(cell: str, arguments: Mapping[str, Any], cotangents: tuple[Array | None, ...]) -> dict[str, Array]:
    """Forward in training, then backward: the gradients by name."""
    return backward(cell, train(cell, arguments)[1], cotangents)


def as_state(arrays: Sequence[Array]) -> Any:
    """Return one array as it is, h and c as the pair that an LSTM takes."""
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def flat(y: Array, state: Any) -> tuple[Array, ...]:
    """Return (y, h) or (y, h, c) from what a layer returned."""
    return (y, *state) if isinstance(state, tuple) else (y, state)
