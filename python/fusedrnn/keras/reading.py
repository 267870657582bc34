"""Files of Keras as models."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

import h5py

from ..arrays.checks import described
from ..interop import CellSpec, Pool, assemble
from ..interop.bounds import Budget, reading
from ..layers import Bidirectional, Layer, Sequential
from ..models.masked import Masked
from ..serialization.container import parse
from ..serialization.files import open_regular
from .entries import OP, Entry, entries_of
from .layers import pieces_of
from .stores import Hdf5, Legacy, Store, archive_store, entry_of, folder_of, inside
from .weights import fill

_Path = str | os.PathLike[str]
_Model = TypeVar("_Model", bound=Layer)


@overload
def load(path: _Path) -> Layer: ...


@overload
def load(path: _Path, layers: Sequence[Layer]) -> Sequential: ...


@overload
def load(path: _Path, layers: _Model) -> _Model: ...


@overload
def load(path: _Path, layers: Mapping[str, Layer]) -> dict[str, Layer]: ...


def load(path: _Path, layers: Layer | Sequence[Layer] | Mapping[str, Layer] | None = None) -> Layer | dict[str, Layer]:
    """Read a model that Keras saved; or only weights, into layers.

    Parameters
    ----------
    path : path
        A ``.keras`` file, its weights in h5 or npz, or an h5 file of Keras 1 or 2 with its model in it. With ``layers``
        also a file of weights alone: ``.weights.h5``, ``.weights.json`` beside its shards, or an h5 file of Keras 1 or
        2.
    layers : Layer, sequence of Layer, or mapping of str to Layer, optional
        Layers that take the weights, in place. A model or a sequence: all layers that have some, from the first to the
        last, a stacked layer for several of Keras. A mapping: by Keras's names of the layers, those alone.

    Returns
    -------
    Layer
        The model: a layer, a Sequential, or with a SequenceToVector where a layer has return_sequences=False. It reads
        x (B, T, I), or tokens (B, T). With ``layers`` the model, a Sequential of them, or the mapping. Masks are
        computed from x, as in Keras: see ``fusedrnn.models.Masked``.

    Raises
    ------
    ValueError
        If the file is none of those, or for a layer that is nothing here; the message names it and its argument.
    OSError
        If the file cannot be read.
    """
    name = os.fspath(path)
    for layer in layers.values() if isinstance(layers, Mapping) else [] if isinstance(layers, Layer) else layers or ():
        if not isinstance(layer, Layer):
            raise TypeError(f"{OP}: layers has {described(layer)}; expected layers")
    with reading(OP, name, "file of Keras"):
        return _loaded(name, layers)


def _loaded(name: str, layers: Layer | Sequence[Layer] | Mapping[str, Layer] | None) -> Layer | dict[str, Layer]:
    config, version, store = _opened(name)
    if isinstance(layers, Layer):
        fill(store, [layers])
        return layers
    if layers is not None:
        fill(store, layers)
        return dict(layers) if isinstance(layers, Mapping) else Sequential(*layers)
    if config is None:
        raise ValueError(f"{OP}: {name}: has weights alone; expected layers= that take them, a model or a list")
    return _model(entries_of(config, version), store)


def _model(entries: list[Entry], store: Store) -> Layer:
    """Return the model of a chain of layers; what a mask reaches goes into a Masked."""
    each = [(entry, pieces_of(entry, store)) for entry in entries if entry.cls != "Masking"]
    pieces = [piece for _, some in each for piece in some]
    if not pieces:
        raise ValueError(f"{OP}: the model has no layers")
    if sum(isinstance(piece, Pool) for piece in pieces) > 1:
        raise ValueError(f"{OP}: the model goes from sequences to vectors more than once")
    start = next((index for index, entry in enumerate(entries) if _masks(entry)), None)
    last = [
        index
        for index, (_, some) in enumerate(each)
        if any(isinstance(piece, (CellSpec, Pool, Bidirectional)) for piece in some)
    ]
    if start is None or not last:
        return assemble(pieces)
    if start > 0:
        raise ValueError(f"{entries[start].where}: a mask starts behind the first layer; expected it in front")
    end = last[-1]
    if each[end][0].cls == "GlobalMaxPooling1D":
        raise ValueError(f"{each[end][0].where}: it takes steps that are masked, too; expected none behind a mask")
    inside, rest = ([piece for _, some in part for piece in some] for part in (each[: end + 1], each[end + 1 :]))
    value = float(entries[start].config.get("mask_value", 0.0))
    final = each[end][0]
    zero = final.cls == "Bidirectional" or bool(final.config.get("zero_output_for_mask"))
    return assemble([Masked(assemble(inside), value, repeat=not zero), *rest])


def _masks(entry: Entry) -> bool:
    return entry.cls == "Masking" or bool(entry.cls == "Embedding" and entry.config.get("mask_zero"))


def _opened(name: str) -> tuple[Any, int, Store]:
    """Return the configuration, None in a file of weights alone, Keras's first number, and the weights."""
    with open_regular(name) as file:
        content = file.read()
    budget = Budget(OP, len(content))
    if name.endswith(".json"):
        return None, 3, folder_of(name, parse(content), budget)
    if zipfile.is_zipfile(io.BytesIO(content)):
        archive = zipfile.ZipFile(io.BytesIO(content))
        config, metadata = (parse(entry_of(archive, each, budget)) for each in ("config.json", "metadata.json"))
        return config, _first(metadata.get("keras_version", "3")), archive_store(archive, budget)
    try:
        file5 = h5py.File(io.BytesIO(content))
    except OSError as error:
        raise ValueError(f"{OP}: {name}: neither a zip nor an h5 file: {error}") from None
    attributes = file5.attrs
    config = parse(_text(attributes["model_config"])) if "model_config" in attributes else None
    group = inside(file5, "model_weights") or file5
    if "layer_names" in group.attrs or "layer_names0" in group.attrs:
        return (
            config,
            _first(_text(group.attrs.get("keras_version", attributes.get("keras_version", "2")))),
            Legacy(group, budget),
        )
    return config, 3, Hdf5(file5, budget)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _first(version: str) -> int:
    return int(version.split(".")[0])
