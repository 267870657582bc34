"""The weights in a file of Keras, whatever its version: lists of arrays by the place of a layer."""

from __future__ import annotations

import io
import json
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..arrays.checks import Array
from .entries import OP, Entry

_ROOTS = ("layers", "_layer_checkpoint_dependencies")  # the second is TensorFlow 2.13's


class Part(NamedTuple):
    """A part of a layer: where its weights are below the layer, and how many there are."""

    path: str
    size: int


class Store(ABC):
    """Where the weights are."""

    @abstractmethod
    def take(self, entry: Entry, parts: Sequence[Part]) -> list[list[Array]]:
        """Return the arrays of each part of a layer.

        Raises
        ------
        ValueError
            If they are not there.
        """


class Paths(Store):
    """Keras 3: arrays at paths that follow from the classes of the layers."""

    def take(self, entry: Entry, parts: Sequence[Part]) -> list[list[Array]]:
        """Return the arrays at the path of each part."""
        found = []
        for part in parts:
            tail = f"{part.path}/vars" if part.path else "vars"
            for root in _ROOTS:
                arrays = self.arrays(f"{root}/{entry.group}/{tail}")
                if arrays:
                    break
            if len(arrays) != part.size:
                expected = f"expected {part.size} at layers/{entry.group}/{tail}"
                raise ValueError(f"{entry.where}: the file has {len(arrays)} weights; {expected}")
            found.append(arrays)
        return found

    @abstractmethod
    def arrays(self, path: str) -> list[Array]:
        """Return the arrays at a path in their order; none if there is none."""


class Hdf5(Paths):
    """An h5 file in the layout of Keras 3."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def arrays(self, path: str) -> list[Array]:
        """Return the arrays at a path in their order."""
        return _numbered(self._file.get(path))

    def group_named(self, name: str) -> str:
        """Return the group of the layer that Keras calls so; the name itself if there is none."""
        for root in _ROOTS:
            for group, value in (self._file.get(root) or {}).items():
                if isinstance(value, h5py.Group) and "vars" in value and value["vars"].attrs.get("name") == name:
                    return str(group)
        return name


class Shards(Paths):
    """Several such files, and a JSON file that says what is where."""

    def __init__(self, index: Any, files: dict[str, h5py.File]) -> None:
        self._map = index["weight_map"]
        self._files = files

    def arrays(self, path: str) -> list[Array]:
        """Return the arrays at a path in their order."""
        names = self._map.get(f"/{path}", [])
        found: dict[int, Array] = {}
        for name in [names] if isinstance(names, str) else names:
            group = self._files[name].get(path)
            if isinstance(group, h5py.Group):
                found |= {int(key): _array(value) for key, value in group.items() if key.isdigit()}
        return [found[key] for key in sorted(found)]


class Legacy(Store):
    """The h5 files of Keras 1 and 2: arrays by the names of the layers, in the order of an attribute."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group
        self.names = [name for name in _texts(group, "layer_names") if _texts(group[name], "weight_names")]

    def weights(self, name: str) -> list[Array]:
        """Return all arrays of a layer in their order."""
        group = self._group[name]
        return [_array(group[each]) for each in _texts(group, "weight_names")]

    def take(self, entry: Entry, parts: Sequence[Part]) -> list[list[Array]]:
        """Return the arrays of the layer of that name, part by part."""
        if entry.name not in self._group:
            raise ValueError(f"{entry.where}: the file has no layer of that name; it has {', '.join(self.names)}")
        arrays = self.weights(entry.name)
        expected = sum(part.size for part in parts)
        if len(arrays) != expected:
            raise ValueError(f"{entry.where}: the file has {len(arrays)} weights; expected {expected}")
        rest = iter(arrays)
        return [[next(rest) for _ in range(part.size)] for part in parts]


def _array(dataset: h5py.Dataset) -> Array:
    """Return what a file stores; ValueError if it claims to be far more than is there, compressed or not."""
    if dataset.nbytes > 1000 * dataset.id.get_storage_size() + 2**20:
        raise ValueError(f"{OP}: {dataset.name} has shape {dataset.shape}, of which the file holds next to nothing")
    array: Array = np.asarray(dataset)
    if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise ValueError(f"{OP}: {dataset.name} has dtype {array.dtype}; expected floating-point weights")
    return array


def _numbered(group: Any) -> list[Array]:
    if not isinstance(group, h5py.Group):
        return []
    return [_array(group[key]) for key in sorted((key for key in group if key.isdigit()), key=int)]


def _texts(group: Any, name: str) -> list[str]:
    """Return a list of names that is an attribute, or several where it would be too long: name0, name1 ..."""
    chunks = [group.attrs[name]] if name in group.attrs else []
    while not chunks or f"{name}{len(chunks)}" in group.attrs:
        key = f"{name}{len(chunks)}"
        if key not in group.attrs:
            break
        chunks.append(group.attrs[key])
    return [each.decode() if isinstance(each, bytes) else str(each) for chunk in chunks for each in chunk]


def folder_of(path: str | os.PathLike[str], index: Any) -> Shards:
    """Return the shards of an index that is a file beside them."""
    names = {name for each in index["weight_map"].values() for name in ([each] if isinstance(each, str) else each)}
    folder = os.path.dirname(os.path.abspath(os.fspath(path)))
    for name in names:
        if os.path.basename(name) != name:
            raise ValueError(
                f"keras.load: {os.fspath(path)}: a shard is {name!r}; expected the name of a file beside it"
            )
    return Shards(index, {name: h5py.File(os.path.join(folder, name)) for name in names})


def archive_store(archive: zipfile.ZipFile) -> Store:
    """Return the weights inside a ``.keras`` file."""
    names = archive.namelist()
    if "model.weights.h5" in names:
        return Hdf5(h5py.File(io.BytesIO(archive.read("model.weights.h5"))))
    if "model.weights.npz" in names:
        from .npz import Npz

        return Npz(archive.read("model.weights.npz"))
    if "model.weights.json" in names:
        index = json.loads(archive.read("model.weights.json"))
        files = {name: h5py.File(io.BytesIO(archive.read(name))) for name in names if name.endswith(".weights.h5")}
        return Shards(index, files)
    raise ValueError(f"has no model.weights.h5; it has {', '.join(names[:8])}")
