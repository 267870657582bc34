"""``save`` and ``load``: what a file of a layer or model holds, and what it may ask for."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ..allocation import DEEPEST, Bounds, bounded, unbounded
from ..arrays.checks import Array, described, parse_device
from ..arrays.namespace import to_host
from ..layers.base import Layer
from ..layers.registry import layer_from_spec, layer_spec
from . import atomic, container

_CONFIGURATION, _CHECKSUM = "fusedrnn", "fusedrnn_sha256"  # keys of the metadata
_FORMAT = 3  # 1: without a checksum. 3: of quantized layers, which format 2 does not know
_FEWEST_PARTS = 1000  # that any file may ask for
_LONGEST_REASON = 1000  # characters of a message


def save(layer: Layer, path: str | os.PathLike[str]) -> None:
    """Write a layer or model to ``path``: its parameters, and its configuration and preprocessing as JSON.

    The file appears at once: a process that is killed midway leaves the old file as it was. A file that was there keeps
    its permissions; anything but a regular file, such as a pipe, is written into. Nothing in it depends on the device.
    It holds a checksum of all that counts.

    Raises
    ------
    TypeError
        If ``layer`` is not a Layer, or its class, or that of one inside it, is not registered
        (``fusedrnn.layers.register_layer``), or its preprocessing is not a mapping to Preprocessors.
    ValueError
        If two parameters share an array that ``load`` would make two of, or layers nest so deeply, or are so many, that
        ``load`` would refuse the file.
    OSError
        If the file cannot be written.
    """
    write(layer, path, {})


def write(layer: Layer, path: str | os.PathLike[str], extra: Mapping[str, Any]) -> None:
    """Write as ``save`` does, with ``extra``, JSON values by names of their own, beside the configuration."""
    if not isinstance(layer, Layer):
        raise TypeError(f"save: layer is {described(layer)}; expected a Layer")
    if layer._extent.depth > DEEPEST:
        raise ValueError(f"save: layer is {layer._extent.depth} layers deep; expected at most {DEEPEST}")
    quantized = any(array.dtype == np.int8 for array in layer.params.values())
    content = {"format": _FORMAT if quantized else _FORMAT - 1, **layer_spec(layer), **extra}
    if layer.preprocessing:
        from ..data.preprocessor import preprocessing_spec

        content["preprocessing"] = preprocessing_spec(layer.preprocessing)
    spec = json.dumps(content)
    _check_sharing(layer.params, spec)
    tensors = {name: to_host(array) for name, array in layer.params.items()}
    metadata = {_CONFIGURATION: spec, _CHECKSUM: container.digest(tensors, spec)}
    atomic.write(os.fsdecode(path), container.encode(tensors, metadata))


def load(path: str | os.PathLike[str], device: str = "cpu", *, verify: bool = True) -> Layer:
    """Read a layer or model that ``save`` wrote.

    Only classes that are registered are made, nothing is unpickled, and time and memory are bounded by the size of the
    file.

    Parameters
    ----------
    path : path
        The file.
    device : {"cpu", "cuda"}
        Where the layer is put, wherever it was when it was saved.
    verify : bool
        Whether to compare the checksum of configuration and parameters, at about 1.5 GB/s. False reads a file that
        was changed since.

    Raises
    ------
    RuntimeError
        If there is no such device.
    ValueError
        With the path and the reason, if the file is not whole and valid or its parameters do not fit its configuration.
    OSError
        If the file cannot be read.
    MemoryError
        If memory runs out.
    """
    return read(path, device, verify=verify)[0]


def read(path: str | os.PathLike[str], device: str = "cpu", *, verify: bool = True) -> tuple[Layer, Mapping[str, Any]]:
    """Read as ``load`` does; return the layer, and all that ``write`` put beside its parameters. It is not trusted."""
    parse_device("load", device)
    try:
        layer, spec = _read(path, verify)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the file chooses the classes and their arguments, so anything may be raised
        raise ValueError(f"load: {os.fsdecode(path)}: {_reason(error)}") from error
    return layer.to(device), spec


def _read(path: str | os.PathLike[str], verify: bool) -> tuple[Layer, Mapping[str, Any]]:
    with open_regular(path) as file:
        # Read, not mapped: another process that truncates a mapped file would kill this one.
        metadata, tensors = container.decode(file, os.fstat(file.fileno()).st_size)
    text = metadata.get(_CONFIGURATION)
    if text is None:
        raise ValueError("has no fusedrnn configuration in its metadata; for weights alone use load_state_dict")
    spec = container.parse(text)
    _check_format(spec, metadata)
    if verify and _CHECKSUM in metadata and metadata[_CHECKSUM] != container.digest(tensors, text):
        raise ValueError("was changed after it was saved: its checksum differs; verify=False reads it all the same")
    # A quantized layer is made as one of float32.
    size = sum(array.size * max(array.itemsize, 4) for array in tensors.values())
    parts = max(_FEWEST_PARTS, len(text) + sum(map(len, tensors)))
    with bounded(Bounds(size, names=len(tensors), parts=parts)):
        layer = layer_from_spec(spec)
    layer.load_state_dict(tensors)
    if "preprocessing" in spec:
        from ..data.preprocessor import preprocessing_from_spec

        layer.preprocessing = preprocessing_from_spec(spec["preprocessing"])
    return layer, spec


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read; ValueError for a pipe or a device, which might never end."""
    # Not waiting: for a pipe without a writer that would be for ever.
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "Is a directory", os.fspath(path))
    raise ValueError(f"{os.fsdecode(path)} is not a regular file")


def _check_format(spec: Any, metadata: Mapping[str, str]) -> None:
    number = spec.get("format") if isinstance(spec, dict) else None
    if type(number) is not int or number < 1:
        raise ValueError(f"has a configuration of another format; expected format {_FORMAT} or below")
    if number > _FORMAT:
        raise ValueError(
            f"was written by a newer version of fusedrnn, in format {str(number)[:20]}; this one reads up to {_FORMAT}"
        )
    if number > 1 and _CHECKSUM not in metadata:
        raise ValueError(f"has no checksum ({_CHECKSUM}) in its metadata, which format {number} demands")


def _check_sharing(params: Mapping[str, Array], spec: str) -> None:
    """Raise ValueError if two names share an array and would not in a layer of this specification."""
    names: dict[int, str] = {}
    shared = [(first, name) for name, array in params.items() if (first := names.setdefault(id(array), name)) != name]
    if not shared:
        return
    with unbounded():  # spares the initialisation
        loaded = layer_from_spec(json.loads(spec)).params
    for first, name in shared:
        if loaded.get(first) is not loaded.get(name):
            raise ValueError(
                f"save: {first} and {name} share one array, of which load would make two; expected layers that share "
                "none, or are in the same Sequential"
            )


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    reason = str(error)
    if not isinstance(error, ValueError):
        reason = f"has a configuration of which no layer can be made ({type(error).__name__}: {reason})"
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} ..."
