"""The weights of layers here as those of the layers of Keras that they stand for, in both directions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..arrays.checks import Array
from ..layers import GRU, LSTM, RNN, Bidirectional, Embedding, Layer, Linear, Recurrent
from .cells import GATES, cell_spec
from .entries import OP, Entry
from .stores import Hdf5, Legacy, Part, Paths, Store

_CLASSES: dict[type[Layer], str] = {RNN: "SimpleRNN", LSTM: "LSTM", GRU: "GRU"}
_GROUPS: dict[type[Layer], str] = {RNN: "simple_rnn", LSTM: "lstm", GRU: "gru", Linear: "dense", Embedding: "embedding"}


class Cell(NamedTuple):
    """One direction of one layer of a stack, and where Keras has it below its layer."""

    layer: Recurrent
    suffix: str  # "_l0", "_l1_reverse"
    path: str


class Slot(NamedTuple):
    """A layer of Keras with weights: the kind of its group, and the cells in it, or what else it is."""

    group: str
    cells: tuple[Cell, ...]
    layer: Layer


def slots_of(layers: Sequence[Layer]) -> Iterator[Slot]:
    """Yield the layers of Keras that layers here stand for; a stacked layer stands for several."""
    for layer in layers:
        if isinstance(layer, Recurrent):
            variant, proj_size = layer.variant, layer.proj_size
            unknown = variant.peephole or variant.coupled or variant.clip or any(variant.zoneout) or variant.layer_norm
            if unknown or proj_size:
                got = str(variant) or f"proj_size={proj_size}"
                raise ValueError(f"keras: {layer.op} has {got}; expected a cell that Keras has")
        if isinstance(layer, (RNN, LSTM, GRU)):
            for index in range(layer.num_layers):
                if layer.bidirectional:
                    sides = (("", "forward_layer/cell"), ("_reverse", "backward_layer/cell"))
                    cells = tuple(Cell(layer, f"_l{index}{suffix}", path) for suffix, path in sides)
                    yield Slot("bidirectional", cells, layer)
                else:
                    yield Slot(_kind_of(layer), (Cell(layer, f"_l{index}", "cell"),), layer)
        elif isinstance(layer, Bidirectional):
            forward, reverse = layer.children().values()
            if not isinstance(forward, Recurrent) or not isinstance(reverse, Recurrent) or forward.num_layers > 1:
                raise ValueError(f"keras: {layer.op} holds a stack; expected a layer of num_layers=1, as Keras has it")
            cells = (Cell(forward, "_l0", "forward_layer/cell"), Cell(reverse, "_l0", "backward_layer/cell"))
            yield Slot("bidirectional", cells, layer)
        elif isinstance(layer, (Linear, Embedding)):
            yield Slot(_kind_of(layer), (), layer)
        elif layer.children():
            yield from slots_of(list(layer.children().values()))
        elif layer.params:
            raise ValueError(f"keras: {layer.op} is nothing in Keras; expected recurrent layers, Linear and Embedding")


def _kind_of(layer: Layer) -> str:
    return next(group for cls, group in _GROUPS.items() if isinstance(layer, cls))


def named_groups(slots: Sequence[Slot]) -> list[str]:
    """Return the groups in which Keras 3 keeps layers: "lstm", then "lstm_1"."""
    count: Counter[str] = Counter()
    names = []
    for slot in slots:
        names.append(f"{slot.group}_{count[slot.group]}" if count[slot.group] else slot.group)
        count[slot.group] += 1
    return names


def fill(store: Store, layers: Sequence[Layer] | Mapping[str, Layer]) -> None:
    """Copy the weights of a file into layers; on an error of the file nothing has changed.

    Raises
    ------
    ValueError
        If there are others than the layers need.
    """
    if isinstance(layers, Mapping):
        named = {store.group_named(name) if isinstance(store, Hdf5) else name: layer for name, layer in layers.items()}
        found = [(slot, name) for name, layer in named.items() for slot in slots_of([layer])]
        if len({name for _, name in found}) < len(found):
            raise ValueError(f"{OP}: layers has a stacked layer; expected one of num_layers=1 for each name")
    else:
        slots = list(slots_of(layers))
        if isinstance(store, Legacy) and len(store.names) != len(slots):
            names = ", ".join(store.names)
            raise ValueError(f"{OP}: layers stand for {len(slots)} layers with weights; the file has {names}")
        found = list(zip(slots, _names(store, slots), strict=True))
    states: list[tuple[Layer, dict[str, Array]]] = []
    for slot, name in found:
        states.extend(_state(slot, name, store))
    for layer, state in states:  # judge all before the first changes
        wrong = [key for key, value in state.items() if value.shape != layer.params[key].shape]
        if wrong:
            got, expected = state[wrong[0]].shape, layer.params[wrong[0]].shape
            raise ValueError(f"{OP}: {wrong[0]} of a {layer.op} has shape {got} in the file; the layer has {expected}")
    for layer, state in states:
        layer.load_state_dict(state, strict=False)


def _names(store: Store, slots: Sequence[Slot]) -> list[str]:
    """Return the names by which a file has the layers."""
    if isinstance(store, Legacy):
        return store.names
    if not isinstance(store, Paths):
        return named_groups(slots)
    # A Linear is a Dense or, over time, one in a TimeDistributed: what the file has next of that size.
    chosen: list[Slot] = []
    for slot in slots:
        over_time = slot._replace(group="time_distributed")
        name = named_groups([*chosen, over_time])[-1]
        shape = slot.layer.params["weight"].shape[::-1] if slot.group == "dense" else None
        found = store.arrays(f"layers/{name}/layer/vars") if shape else []
        chosen.append(over_time if found and found[0].shape == shape else slot)
    return named_groups(chosen)


def _state(slot: Slot, name: str, store: Store) -> list[tuple[Layer, dict[str, Array]]]:
    """Return the parameters of the layers of a slot by name."""
    entry = Entry(slot.layer.op, {}, name, name, 3)
    if not slot.cells:
        arrays = _arrays(store, entry, [Part("", len(slot.layer.params))])[0]
        names = ("weight", "bias") if isinstance(slot.layer, Linear) else ("weight",)
        values = dict(zip(names, arrays, strict=True))
        if isinstance(slot.layer, Linear):
            values["weight"] = values["weight"].T
        return [(slot.layer, values)]
    parts = [Part(cell.path, 3 if cell.layer.bias else 2) for cell in slot.cells]
    result: list[tuple[Layer, dict[str, Array]]] = []
    for cell, arrays in zip(slot.cells, _arrays(store, entry, parts), strict=True):
        spec = cell_spec(_kind(entry, cell.layer, arrays), arrays, "forward")
        result.append((cell.layer, {f"{key}{cell.suffix}": value for key, value in spec.weights[0].items()}))
    return result


def _arrays(store: Store, entry: Entry, parts: list[Part]) -> list[list[Array]]:
    if entry.group.startswith("time_distributed"):
        parts = [Part("layer", parts[0].size)]
    return store.take(entry, parts)


def _kind(entry: Entry, layer: Recurrent, arrays: list[Array]) -> Entry:
    """Return what the arrays are of: a CuDNN layer has both biases in a row; which a GRU resets, its bias tells."""
    cls = next(name for kind, name in _CLASSES.items() if isinstance(layer, kind))
    size = arrays[1].shape[-1]
    after = layer.config().get("reset_after", True)
    if len(arrays) == 3 and cls == "GRU" and (arrays[2].size == 2 * size) != after:
        raise ValueError(f"{entry.where}: the file's GRU has reset_after={not after}; the layer {after}")
    if len(arrays) == 3 and arrays[2].shape == (2 * size,) and cls != "SimpleRNN":
        cls = f"CuDNN{cls}"
    return Entry(cls, {"reset_after": after}, entry.name, entry.group, 3)


def keras_arrays(cell: Cell) -> list[Array]:
    """Return a cell's kernel, recurrent kernel and bias as Keras has them."""
    params = cell.layer.state_dict()
    back = np.argsort(GATES[next(kind for kind in _CLASSES if isinstance(cell.layer, kind))])  # type: ignore[index]

    def ordered(name: str) -> Array:
        parts = np.split(params[f"{name}{cell.suffix}"], len(back))
        return np.concatenate([parts[index] for index in back])

    arrays = [ordered("weight_ih").T, ordered("weight_hh").T]
    if cell.layer.bias:
        first, second = ordered("bias_ih"), ordered("bias_hh")
        both = isinstance(cell.layer, GRU) and cell.layer.config().get("reset_after", True)
        arrays.append(np.stack([first, second]) if both else first + second)
    return arrays


def plain_arrays(layer: Any) -> list[Array]:
    """Return the arrays of a Linear or an Embedding as Keras has them."""
    params = layer.state_dict()
    if isinstance(layer, Embedding):
        return [params["weight"]]
    return [params["weight"].T, *([params["bias"]] if "bias" in params else [])]
