"""Recurrent nodes of ONNX as layers."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array
from ..interop import CellSpec, Option, recurrent_layer
from ..interop.bounds import reading
from ..layers import GRU, LSTM, RNN, Recurrent
from .attributes import DIRECTIONS, KNOWN, attributes_of, options_of
from .files import Source, what_of
from .graph import Model, NotConstant, Place, label, node_name

_CLASSES: dict[str, type[Recurrent]] = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
# Which of ONNX's gates come in this package's order: iofc -> ifgo, zrh -> rzn.
_ORDER = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}
_DOMAINS = {"", "ai.onnx", "com.microsoft"}
_LAYER = 1 << 16  # bytes that a layer takes beside its weights


def layers(path: Source, *, constants: Mapping[str, Any] | None = None) -> dict[str, Recurrent]:
    """Make a layer of every RNN, LSTM and GRU node, also of those inside If, Loop and Scan.

    Weights are followed through whatever computes them from constants, quantised ones are converted back. A layer reads
    x as its node does: (T, B, I) for ``layout=0``, (B, T, I) for ``layout=1``; ``sequence_lens`` is its ``lengths``,
    ``initial_h`` and ``initial_c`` are its ``state``.

    Parameters
    ----------
    path : path, bytes or onnx.ModelProto
        The model.
    constants : mapping of str to array_like, optional
        Values of inputs of the graph, such as weights that it takes as inputs.

    Returns
    -------
    dict of str to RNN, LSTM or GRU
        By the node's name; by that of its first output if it has none, and with the names of the nodes around it in
        front if that is not unique.

    Raises
    ------
    ValueError
        If the file is not a model, or for a node that no layer here can be; the message names the node and the
        attribute or input.
    """
    with reading("onnx.layers", what_of("onnx.layers", path), "model of ONNX"):
        return _layers(Model("onnx.layers", path, constants))


def _layers(model: Model) -> dict[str, Recurrent]:
    found = [place for place in model.places() if is_recurrent(place)]
    names = [node_name(place) for place in found]
    count, again = Counter(names), Counter[str]()
    result: dict[str, Recurrent] = {}
    for place, name in zip(found, names, strict=True):
        unique = name if count[name] == 1 else f"{place.scope.path}{name}"
        again[unique] += 1
        unique += "'" * (again[unique] - 1)
        batch_first = bool(attributes_of(label(model.op, place), place.node, model.opset)["layout"])
        spec = cell_spec(model, place)
        _warn_of_state(model, place)
        model.budget.charge(unique, _LAYER)
        result[unique] = recurrent_layer([spec], batch_first=batch_first)
    return result


def is_recurrent(place: Place) -> bool:
    """Return whether a node is one that ``layers`` makes a layer of."""
    return place.node.op_type in KNOWN and place.node.domain in _DOMAINS


def cell_spec(model: Model, place: Place) -> CellSpec:
    """Return what a recurrent node is, with its weights in this package's order."""
    where = label(model.op, place)
    attributes = attributes_of(where, place.node, model.opset)
    cell = place.node.op_type.removeprefix("DynamicQuantize")
    options = options_of(where, cell, attributes)
    directions, gates = DIRECTIONS[attributes["direction"]], len(_ORDER[cell])
    w, r = (_weight(model, place, name) for name in ("W", "R"))
    hidden = int(attributes["hidden_size"]) if "hidden_size" in attributes else r.shape[-1]
    if r.ndim != 3 or r.shape != (directions, gates * hidden, hidden):
        expected = f"(num_directions, {gates}*hidden_size, hidden_size) = ({directions}, {gates * hidden}, {hidden})"
        raise ValueError(f"{where}: R has shape {r.shape}; expected {expected}")
    if w.ndim != 3 or w.shape[:2] != r.shape[:2]:
        expected = f"(num_directions, {gates}*hidden_size, input_size) = ({directions}, {gates * hidden}, input_size)"
        raise ValueError(f"{where}: W has shape {w.shape}; expected {expected}")
    b = _optional(model, place, "B", 3, (directions, 2 * gates * hidden))
    p = _optional(model, place, "P", 7, (directions, 3 * hidden)) if cell == "LSTM" else None
    if p is not None and p.any():
        options["peephole"] = Option(True, "input P is given")
    each = []
    for direction in range(directions):
        weights = {"weight_ih": w[direction], "weight_hh": r[direction]}
        if b is not None:
            weights["bias_ih"], weights["bias_hh"] = np.split(b[direction], 2)
        weights = {name: _reordered(value, _ORDER[cell]) for name, value in weights.items()}
        if "peephole" in options and p is not None:
            weights["weight_peephole"] = _reordered(p[direction], [0, 2, 1])  # from i o f to i f o
        each.append(weights)
    return CellSpec(where, _CLASSES[cell], attributes["direction"], tuple(each), options)


def _reordered(array: Array, order: list[int]) -> Array:
    gates = np.split(array, len(order))
    return np.concatenate([gates[index] for index in order])


def _optional(model: Model, place: Place, name: str, index: int, shape: tuple[int, ...]) -> Array | None:
    if index >= len(place.node.input) or not place.node.input[index]:
        return None
    array = _constant(model, place, name, index)
    if array.shape != shape:
        raise ValueError(f"{label(model.op, place)}: {name} has shape {array.shape}; expected {shape}")
    return array


def _weight(model: Model, place: Place, name: str) -> Array:
    index = {"W": 1, "R": 2}[name]
    array = _constant(model, place, name, index)
    return array if place.node.op_type in _CLASSES else _dequantised(model, place, name, array)


def _dequantised(model: Model, place: Place, name: str, array: Array) -> Array:
    """Return the (D, G*H, I) weights of a DynamicQuantizeLSTM, which keeps (D, I, G*H) in 8 bits."""
    where, index = label(model.op, place), {"W": 8, "R": 10}[name]
    scale = _constant(model, place, f"{name}_scale", index)
    zero = _constant(model, place, f"{name}_zero_point", index + 1)
    if array.ndim != 3 or {scale.shape, zero.shape} - {array.shape[:1], (array.shape[0], array.shape[2])}:
        expected = f"(num_directions, rows, 4*hidden_size); its scale has shape {scale.shape}"
        raise ValueError(f"{where}: {name} has shape {array.shape}; expected {expected}")
    if name == "W":
        warnings.warn(f"{where}: the 8-bit weights are converted to float32", UserWarning, stacklevel=4)
    scale, zero = (each.reshape(len(array), 1, -1).astype(np.float32) for each in (scale, zero))
    return np.ascontiguousarray(((array.astype(np.float32) - zero) * scale).swapaxes(1, 2))


def _constant(model: Model, place: Place, name: str, index: int) -> Array:
    where = label(model.op, place)
    if index >= len(place.node.input) or not place.node.input[index]:
        raise ValueError(f"{where}: {name} is not given")
    try:
        array = model.constant(place.scope, place.node.input[index])
    except NotConstant as error:
        raise ValueError(f"{where}: {name} is not constant: {error}") from None
    return array if array.dtype.kind in "iu" or array.dtype == np.float64 else array.astype(np.float32)


def constant_state(model: Model, place: Place) -> str | None:
    """Return the name of an initial state that the file fixes and that is not 0, if there is one."""
    for name, index in (("initial_h", 5), ("initial_c", 6)):
        if index < len(place.node.input) and place.node.input[index]:
            try:
                if model.constant(place.scope, place.node.input[index]).any():
                    return name
            except NotConstant:
                pass
    return None


def _warn_of_state(model: Model, place: Place) -> None:
    name = constant_state(model, place)
    if name is not None:
        text = f"{label(model.op, place)}: {name} is a constant other than 0; pass it to the layer as state="
        warnings.warn(text, UserWarning, stacklevel=3)
