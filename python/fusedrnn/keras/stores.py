"""The weights in a file of Keras, whatever its version: lists of arrays by the place of a layer."""

from __future__ import annotations

import io
import math
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..arrays.checks import Array
from ..interop.bounds import Budget
from ..serialization.container import parse
from ..serialization.files import open_regular
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

    def __init__(self, file: h5py.File, budget: Budget) -> None:
        self._file, self._budget = file, budget

    def arrays(self, path: str) -> list[Array]:
        """Return the arrays at a path in their order."""
        group = inside(self._file, path)
        keys = [key for key in group if key.isdigit()] if isinstance(group, h5py.Group) else []
        return [_array(group, key, self._budget) for key in sorted(keys, key=int)]

    def group_named(self, name: str) -> str:
        """Return the group of the layer that Keras calls so; the name itself if there is none."""
        for root in _ROOTS:
            for group in inside(self._file, root) or ():
                variables = inside(self._file, f"{root}/{group}/vars")
                if variables is not None and variables.attrs.get("name") == name:
                    return str(group)
        return name


class Shards(Paths):
    """Several such files, and a JSON file that says what is where."""

    def __init__(self, index: Any, files: dict[str, h5py.File], budget: Budget) -> None:
        self._map = index["weight_map"]
        self._files, self._budget = files, budget

    def arrays(self, path: str) -> list[Array]:
        """Return the arrays at a path in their order."""
        names = self._map.get(f"/{path}", [])
        found: dict[int, Array] = {}
        for name in [names] if isinstance(names, str) else names:
            group = inside(self._files[name], path)
            if isinstance(group, h5py.Group):
                found |= {int(key): _array(group, key, self._budget) for key in group if key.isdigit()}
        return [found[key] for key in sorted(found)]


class Legacy(Store):
    """The h5 files of Keras 1 and 2: arrays by the names of the layers, in the order of an attribute."""

    def __init__(self, group: h5py.Group, budget: Budget) -> None:
        self._group, self._budget = group, budget
        self.names = [name for name in _texts(group, "layer_names") if _texts(inside(group, name), "weight_names")]

    def weights(self, name: str) -> list[Array]:
        """Return all arrays of a layer in their order."""
        group = inside(self._group, name)
        return [_array(group, each, self._budget) for each in _texts(group, "weight_names")]

    def take(self, entry: Entry, parts: Sequence[Part]) -> list[list[Array]]:
        """Return the arrays of the layer of that name, part by part."""
        if inside(self._group, entry.name) is None:
            raise ValueError(f"{entry.where}: the file has no layer of that name; it has {', '.join(self.names)}")
        arrays = self.weights(entry.name)
        expected = sum(part.size for part in parts)
        if len(arrays) != expected:
            raise ValueError(f"{entry.where}: the file has {len(arrays)} weights; expected {expected}")
        rest = iter(arrays)
        return [[next(rest) for _ in range(part.size)] for part in parts]


def inside(group: Any, path: str) -> Any:
    """Return what is at a path of a group, None if nothing is; ValueError for a link, maybe to another file."""
    for name in filter(None, path.split("/")):
        link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{OP}: {path} is a link to elsewhere; expected it in the file itself")
        group = group[name]
    return group


def _array(group: h5py.Group, path: str, budget: Budget) -> Array:
    """Return what a file stores; ValueError if it claims to be far more than is there, compressed or not."""
    dataset = inside(group, path)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{OP}: {path} is no array")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{OP}: {dataset.name} is stored in another file; expected it in the file itself")
    if dataset.dtype.kind != "f" and dataset.dtype.name != "bfloat16":
        raise ValueError(f"{OP}: {dataset.name} has dtype {dataset.dtype}; expected floating-point weights")
    if dataset.nbytes > 1000 * dataset.id.get_storage_size() + 2**20:
        raise ValueError(f"{OP}: {dataset.name} has shape {dataset.shape}, of which the file holds next to nothing")
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize  # which is read as a whole
    budget.charge(str(dataset.name), max(dataset.nbytes, chunk))
    array: Array = np.asarray(dataset)
    return array


def _texts(group: Any, name: str) -> list[str]:
    """Return a list of names that is an attribute, or several where it would be too long: name0, name1 ..."""
    chunks = [group.attrs[name]] if name in group.attrs else []
    while not chunks or f"{name}{len(chunks)}" in group.attrs:
        key = f"{name}{len(chunks)}"
        if key not in group.attrs:
            break
        chunks.append(group.attrs[key])
    return [each.decode() if isinstance(each, bytes) else str(each) for chunk in chunks for each in chunk]


def folder_of(path: str | os.PathLike[str], index: Any, budget: Budget) -> Shards:
    """Return the shards of an index that is a file beside them."""
    names = {name for each in index["weight_map"].values() for name in ([each] if isinstance(each, str) else each)}
    folder = os.path.dirname(os.path.abspath(os.fspath(path)))
    for name in names:
        if os.path.basename(name) != name:
            raise ValueError(
                f"keras.load: {os.fspath(path)}: a shard is {name!r}; expected the name of a file beside it"
            )
    files = {}
    for name in names:
        with open_regular(os.path.join(folder, name)) as file:
            content = file.read()
        budget.add(len(content))
        files[name] = h5py.File(io.BytesIO(content))
    return Shards(index, files, budget)


def entry_of(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """Return a part of a ``.keras`` file, unpacked."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        raise ValueError(f"{OP}: {name} is packed in an unusual way; expected stored or deflated")
    budget.charge(name, info.file_size)
    return archive.read(info)


def archive_store(archive: zipfile.ZipFile, budget: Budget) -> Store:
    """Return the weights inside a ``.keras`` file."""
    names = archive.namelist()
    if "model.weights.h5" in names:
        return Hdf5(h5py.File(io.BytesIO(entry_of(archive, "model.weights.h5", budget))), budget)
    if "model.weights.npz" in names:
        from .npz import Npz

        return Npz(entry_of(archive, "model.weights.npz", budget), budget)
    if "model.weights.json" in names:
        index = parse(entry_of(archive, "model.weights.json", budget))
        shards = [name for name in names if name.endswith(".weights.h5")]
        files = {name: h5py.File(io.BytesIO(entry_of(archive, name, budget))) for name in shards}
        return Shards(index, files, budget)
    raise ValueError(f"has no model.weights.h5; it has {', '.join(names[:8])}")
