"""The recurrent layers of Keras as those of this package."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays.checks import Array
from ..interop import CellSpec, Option
from ..layers import GRU, LSTM, RNN, Recurrent
from .entries import Entry
from .stores import Part

CLASSES: dict[str, type[Recurrent]] = {
    "SimpleRNN": RNN,
    "SimpleRNNCell": RNN,
    "LSTM": LSTM,
    "LSTMCell": LSTM,
    "CuDNNLSTM": LSTM,
    "GRU": GRU,
    "GRUCell": GRU,
    "CuDNNGRU": GRU,
}
GATES: dict[type[Recurrent], list[int]] = {RNN: [0], LSTM: [0, 1, 2, 3], GRU: [1, 0, 2]}  # zrh -> rzn
# Keras 1 kept kernel, recurrent kernel and bias of each gate, of an LSTM in the order i c f o; here as in Keras 2.
_ONE_BY_ONE: dict[type[Recurrent], list[int]] = {LSTM: [0, 2, 1, 3], GRU: [0, 1, 2]}
_POSITIONS: dict[type[Recurrent], tuple[str, ...]] = {
    RNN: ("activation",),
    LSTM: ("recurrent_activation", "activation", "activation"),
    GRU: ("recurrent_activation", "activation"),
}
_USUAL = {"activation": "tanh", "recurrent_activation": "sigmoid"}
_PLAIN = {"tanh", "sigmoid", "relu", "softsign", "softplus"}
_SCALED = {"linear": ("affine", 1.0, 0.0), "elu": ("elu", 1.0, 0.0)}


def part_of(entry: Entry, path: str) -> Part:
    """Return where the weights of a cell are, and how many there are."""
    if entry.cls.startswith("CuDNN"):
        return Part("", 3)
    if _is_of_keras_1(entry):
        return Part(path, 3 * len(_ONE_BY_ONE[CLASSES[entry.cls]]))
    return Part(path, 3 if entry.config.get("use_bias", True) else 2)


def _is_of_keras_1(entry: Entry) -> bool:
    return "inner_activation" in entry.config


def cell_spec(entry: Entry, arrays: list[Array], direction: str) -> CellSpec:
    """Return what a recurrent layer or cell of one direction is."""
    if _is_of_keras_1(entry):
        order = _ONE_BY_ONE[CLASSES[entry.cls]]
        arrays = [np.concatenate([arrays[3 * gate + which] for gate in order], axis=-1) for which in range(3)]
    return CellSpec(entry.where, CLASSES[entry.cls], direction, (_weights(entry, arrays),), _options(entry))


def _options(entry: Entry) -> dict[str, Option]:
    cls, config = CLASSES[entry.cls], entry.config
    options: dict[str, Option] = {}
    # Keras 1 and 2 had no reset_after at first; what has none resets before.
    if cls is GRU and not entry.cls.startswith("CuDNN") and not config.get("reset_after", False):
        options["reset_after"] = Option(False, "reset_after is False")
    chosen = tuple(_activation(entry, position) for position in _POSITIONS[cls])
    if cls is RNN and chosen == ("relu",):
        options["nonlinearity"] = Option("relu", "activation is relu")
    elif chosen != tuple(_USUAL[position] for position in _POSITIONS[cls]):
        options["activations"] = Option(chosen, f"activations are {', '.join(map(str, chosen))}")
    rate = float(config.get("recurrent_dropout") or config.get("dropout_U") or 0)
    if rate > 0:
        options["recurrent_dropout"] = Option(rate, f"recurrent_dropout is {rate:g}")
    return options


def _activation(entry: Entry, position: str) -> Any:
    default = _USUAL[position]
    name = entry.config.get(position, default)
    if position == "recurrent_activation" and _is_of_keras_1(entry):
        name = entry.config["inner_activation"]
    if isinstance(name, dict):  # as an object of its own
        name = name.get("config", {}).get("name", name.get("class_name"))
    if name in _PLAIN:
        return name
    if name in _SCALED:
        return _SCALED[name]
    if name == "hard_sigmoid":  # clip(x / 6 + 1 / 2, 0, 1) since Keras 3, clip(0.2 x + 0.5, 0, 1) before
        return ("hard_sigmoid", 1 / 6, 0.5) if entry.version >= 3 else ("hard_sigmoid", 0.2, 0.5)
    raise ValueError(f"{entry.where}: {position} is {name!r}; no layer here has that")


def _weights(entry: Entry, arrays: list[Array]) -> dict[str, Array]:
    cls = CLASSES[entry.cls]
    count = len(GATES[cls])
    kernel, recurrent, *biases = arrays
    hidden = recurrent.shape[0] if recurrent.ndim == 2 else 0
    if recurrent.shape != (hidden, count * hidden) or kernel.ndim != 2 or kernel.shape[1] != count * hidden:
        expected = f"(input, {count}*units) and (units, {count}*units)"
        raise ValueError(
            f"{entry.where}: the kernels have shapes {kernel.shape}, {recurrent.shape}; expected {expected}"
        )
    if entry.cls.startswith("CuDNN"):
        kernel = _each_gate(kernel, count, lambda part: part.T.reshape(part.shape, order="F"))
        recurrent = _each_gate(recurrent, count, lambda part: part.T)
    weights = {"weight_ih": kernel.T, "weight_hh": recurrent.T}
    if biases:
        weights["bias_ih"], weights["bias_hh"] = _biases(entry, biases[0], count * hidden)
    return {name: _reordered(value, GATES[cls]) for name, value in weights.items()}


def _biases(entry: Entry, bias: Array, size: int) -> tuple[Array, Array]:
    if bias.size == 2 * size and bias.shape in ((2, size), (2 * size,)):
        first, second = bias.reshape(2, size)
        return first, second
    if bias.shape != (size,):
        raise ValueError(f"{entry.where}: the bias has shape {bias.shape}; expected ({size},) or (2, {size})")
    return bias, np.zeros_like(bias)


def _each_gate(array: Array, count: int, change: Any) -> Array:
    return np.concatenate([change(part) for part in np.split(array, count, axis=1)], axis=1)


def _reordered(array: Array, order: list[int]) -> Array:
    parts = np.split(array, len(order))
    return np.ascontiguousarray(np.concatenate([parts[index] for index in order]))
