"""Each layer of Keras as pieces of a chain."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from ..arrays.checks import Array
from ..interop import CellSpec, Pool, recurrent_layer, same_but_for_weights, with_weights
from ..layers import Activation, Bidirectional, Dropout, Embedding, GaussianNoise, Layer, Linear
from ..layers.activation import FUNCTIONS
from .cells import CLASSES, cell_spec, part_of
from .entries import Entry
from .stores import Part, Store

Piece: TypeAlias = Layer | CellSpec | Pool
_DIRECTIONS = ("forward", "reverse")


def pieces_of(entry: Entry, store: Store) -> list[Piece]:
    """Return what a layer of Keras is in a chain.

    Raises
    ------
    ValueError
        If it is nothing here; the message names the layer and the argument.
    """
    make = _MAKERS.get(entry.cls)
    if make is None:
        raise ValueError(f"{entry.where}: nothing here does that; expected one of {', '.join(sorted(_MAKERS))}")
    return make(entry, store)


def _recurrent(entry: Entry, store: Store) -> list[Piece]:
    (arrays,) = store.take(entry, [part_of(entry, "cell")])
    backwards = _checked(entry)
    return [cell_spec(entry, arrays, _DIRECTIONS[backwards]), *_end(entry, backwards)]


def _checked(entry: Entry) -> bool:
    """Return go_backwards; ValueError for arguments that no layer here has."""
    config = entry.config
    if config.get("return_state"):
        raise ValueError(f"{entry.where}: return_state is True; the state here comes from the call of a layer")
    if config.get("time_major"):
        raise ValueError(f"{entry.where}: time_major is True; expected False")
    if config.get("stateful"):
        text = f"{entry.where}: stateful is True; here the caller keeps the state: state= and return_state=True"
        warnings.warn(text, UserWarning, stacklevel=6)
    return bool(config.get("go_backwards"))


def _end(entry: Entry, backwards: bool) -> list[Piece]:
    if not entry.config.get("return_sequences"):
        return [Pool.FINAL]
    if backwards:
        raise ValueError(
            f"{entry.where}: go_backwards with return_sequences returns the steps from the last to the first; here y "
            "is in the order of x"
        )
    return []


def _bidirectional(entry: Entry, store: Store) -> list[Piece]:
    forward = entry.inner(entry.config["layer"])
    reverse = entry.inner(entry.config.get("backward_layer") or entry.config["layer"])
    if forward.cls not in CLASSES or _checked(forward):
        raise ValueError(f"{entry.where}: the layer inside is no RNN, LSTM or GRU that goes forward")
    names = ("forward_layer", "backward_layer")
    inside = ["" if part_of(forward, "cell").path == "" else "/cell"] * 2
    parts = [
        Part(f"{name}{tail}", part_of(each, "cell").size)
        for name, tail, each in zip(names, inside, (forward, reverse), strict=True)
    ]
    arrays = store.take(entry, parts)
    a, b = (
        cell_spec(replace(each, name=entry.name), weights, direction)
        for each, weights, direction in zip((forward, reverse), arrays, _DIRECTIONS, strict=True)
    )
    if not same_but_for_weights(a, b):
        raise ValueError(f"{entry.where}: the layers of the two directions differ; expected alike ones")
    merge = entry.config.get("merge_mode", "concat")
    if merge not in ("concat", "sum", "mul", "ave"):
        raise ValueError(f"{entry.where}: merge_mode is {merge!r}; expected concat, sum, mul or ave")
    sequences = bool(forward.config.get("return_sequences"))
    both = replace(a, direction="bidirectional", weights=a.weights + b.weights)
    if merge == "concat":
        return [both] if sequences else [both, Pool.FINAL]
    if sequences:
        return [_merged(a, b, merge)]
    if merge == "mul":
        raise ValueError(f"{entry.where}: merge_mode is 'mul' without return_sequences; expected concat, sum or ave")
    identity = np.tile(np.eye(a.hidden_size), 2) * (0.5 if merge == "ave" else 1)
    return [both, Pool.FINAL, _linear(identity.astype(a.dtype), None)]


def _merged(a: CellSpec, b: CellSpec, merge: str) -> Layer:
    layer = Bidirectional(recurrent_layer([a], batch_first=True), merge, seed=0)
    layer.children()["reverse"].load_state_dict(recurrent_layer([b], batch_first=True).params)
    return layer


def _stack(entry: Entry, store: Store) -> list[Piece]:
    backwards = _checked(entry)
    outer = entry.inner(entry.config["cell"])
    if outer.cls == "StackedRNNCells":
        cells = [entry.inner(spec) for spec in outer.config["cells"]]
        if backwards and len(cells) > 1:
            raise ValueError(f"{entry.where}: go_backwards over stacked cells; expected False")
    else:
        cells = [outer]
    for cell in cells:
        if cell.cls not in CLASSES:
            raise ValueError(f"{entry.where}: the cell is a {cell.cls}; expected SimpleRNNCell, LSTMCell or GRUCell")
    paths = ["cell"] if cells == [outer] else [f"cell/cells/{name}" for name in _numbered(cells)]
    arrays = store.take(entry, [part_of(cell, path) for cell, path in zip(cells, paths, strict=True)])
    specs = [cell_spec(cell, each, _DIRECTIONS[backwards]) for cell, each in zip(cells, arrays, strict=True)]
    return [*specs, *_end(entry, backwards)]


def _numbered(cells: Sequence[Entry]) -> list[str]:
    from .entries import GROUPS

    names = [GROUPS[cell.cls] for cell in cells]
    return [f"{name}_{names[:i].count(name)}" if names[:i].count(name) else name for i, name in enumerate(names)]


def _dense(entry: Entry, store: Store, path: str = "") -> list[Piece]:
    bias = entry.config.get("use_bias", entry.config.get("bias", True))  # the second is Keras 1's
    ((kernel, *biases),) = store.take(entry, [Part(path, 1 + bool(bias))])
    if kernel.ndim != 2:
        raise ValueError(f"{entry.where}: the kernel has shape {kernel.shape}; expected (inputs, units)")
    return [_linear(kernel.T, biases[0] if biases else None), *_function(entry, entry.config.get("activation"))]


def _linear(weight: Array, bias: Array | None) -> Layer:
    dtype = "float64" if weight.dtype == np.float64 else "float32"
    out_features, in_features = weight.shape
    config = {"in_features": in_features, "out_features": out_features, "bias": bias is not None, "dtype": dtype}
    return with_weights(Linear, config, {"weight": weight} | ({} if bias is None else {"bias": bias}))


def _function(entry: Entry, name: Any) -> list[Piece]:
    if isinstance(name, dict):
        name = name.get("config", {}).get("name", name.get("class_name"))
    if name in (None, "linear"):
        return []
    if name not in FUNCTIONS:
        raise ValueError(f"{entry.where}: activation is {name!r}; expected linear or one of {', '.join(FUNCTIONS)}")
    return [Activation(name)]


def _distributed(entry: Entry, store: Store) -> list[Piece]:
    inner = entry.inner(entry.config["layer"])
    if inner.cls == "Dense":
        return _dense(inner, store, "layer")
    if inner.cls in ("Dropout", "Activation"):
        return pieces_of(inner, store)
    raise ValueError(f"{entry.where}: the layer inside is a {inner.cls}; expected Dense, Dropout or Activation")


def _embedding(entry: Entry, store: Store) -> list[Piece]:
    ((table,),) = store.take(entry, [Part("", 1)])
    if table.ndim != 2:
        raise ValueError(f"{entry.where}: the table has shape {table.shape}; expected (tokens, size)")
    dtype = "float64" if table.dtype == np.float64 else "float32"
    config = {"num_embeddings": len(table), "embedding_dim": table.shape[1], "dtype": dtype}
    return [with_weights(Embedding, config, {"weight": table})]


_MAKERS: dict[str, Callable[[Entry, Store], list[Piece]]] = {
    "SimpleRNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "CuDNNLSTM": _recurrent,
    "CuDNNGRU": _recurrent,
    "Bidirectional": _bidirectional,
    "RNN": _stack,
    "Embedding": _embedding,
    "Dense": lambda entry, store: _dense(entry, store),
    "TimeDistributed": _distributed,
    "Activation": lambda entry, store: _function(entry, entry.config.get("activation")),
    "Dropout": lambda entry, store: [Dropout(float(entry.config.get("rate", entry.config.get("p", 0))))],
    "GaussianNoise": lambda entry, store: [
        GaussianNoise(float(entry.config.get("stddev", entry.config.get("sigma", 0))))
    ],
    "GlobalAveragePooling1D": lambda entry, store: [Pool.MEAN],
    "GlobalMaxPooling1D": lambda entry, store: [Pool.MAX],
}
