"""Files: safetensors with the configuration as JSON in the metadata. Nothing in a file is trusted."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from .allocation import parameters_from_file
from .arrays.checks import Array, described, parse_device
from .arrays.namespace import to_host
from .data.preprocessor import preprocessing_from_spec, preprocessing_spec
from .layers.base import Layer
from .layers.registry import layer_from_spec, layer_spec

_METADATA_KEY = "fusedrnn"
_FORMAT = 1
_LARGEST_RANK = 8
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}


def save(layer: Layer, path: str | os.PathLike[str]) -> None:
    """Write a layer or model to ``path``: its parameters, and its configuration and preprocessing as JSON.

    The file appears at once: a process that is killed midway leaves the old file as it was. A file that was there keeps
    its permissions; what is no regular file, such as a pipe, is written into. Nothing in it tells the device.

    Raises
    ------
    TypeError
        If ``layer`` is none, or its class, or that of one inside it, is not registered
        (``fusedrnn.layers.register_layer``), or its preprocessing is no mapping to Preprocessors.
    ValueError
        If two parameters share an array that ``load`` would make two of.
    OSError
        If the file cannot be written.
    """
    write(layer, path, {})


def write(layer: Layer, path: str | os.PathLike[str], extra: Mapping[str, Any]) -> None:
    """Write as ``save`` does, with ``extra``, JSON values by names of their own, beside the configuration."""
    import safetensors.numpy

    if not isinstance(layer, Layer):
        raise TypeError(f"save: layer is {described(layer)}; expected a Layer")
    content = {"format": _FORMAT, **layer_spec(layer), **extra}
    if layer.preprocessing:
        content["preprocessing"] = preprocessing_spec(layer.preprocessing)
    spec = json.dumps(content)
    _check_sharing(layer.params, spec)
    # safetensors writes the memory of a Fortran-ordered array as if it were C-ordered.
    tensors = {name: np.ascontiguousarray(to_host(array)) for name, array in layer.params.items()}
    _write(os.fsdecode(path), safetensors.numpy.save(tensors, metadata={_METADATA_KEY: spec}))


def load(path: str | os.PathLike[str], device: str = "cpu") -> Layer:
    """Read a layer or model that ``save`` wrote.

    Only classes that are registered are made, nothing is unpickled, and memory is bounded by the size of the file.

    Parameters
    ----------
    path : path
        The file.
    device : {"cpu", "cuda"}
        Where the layer goes, wherever it was when it was saved.

    Raises
    ------
    RuntimeError
        If there is no such device.
    ValueError
        With the path and the reason, if the file is not whole and valid or its parameters do not fit its configuration.
    OSError
        If the file cannot be read.
    """
    return read(path, device)[0]


def read(path: str | os.PathLike[str], device: str = "cpu") -> tuple[Layer, Mapping[str, Any]]:
    """Read as ``load`` does; return the layer, and all that ``write`` put beside its parameters. It is not trusted."""
    parse_device("load", device)
    try:
        content = _read(path)
        spec, tensors = _parse(content)
        with parameters_from_file(sum(array.nbytes for array in tensors.values())):
            layer = layer_from_spec(spec)
        layer.load_state_dict(tensors)
        if "preprocessing" in spec:
            layer.preprocessing = preprocessing_from_spec(spec["preprocessing"])
    except OSError:
        raise
    except Exception as error:  # the file chooses the classes and their arguments, so anything may be raised
        raise ValueError(f"load: {os.fspath(path)}: {_reason(error)}") from error
    return layer.to(device), spec


def _check_sharing(params: Mapping[str, Array], spec: str) -> None:
    """Raise ValueError if two names share an array and would not in a layer of this specification."""
    names: dict[int, str] = {}
    shared = [(first, name) for name, array in params.items() if (first := names.setdefault(id(array), name)) != name]
    if not shared:
        return
    with parameters_from_file(sum(array.nbytes for array in params.values())):  # spares the initialisation
        loaded = layer_from_spec(json.loads(spec)).params
    for first, name in shared:
        if loaded.get(first) is not loaded.get(name):
            raise ValueError(
                f"save: {first} and {name} share one array, of which load would make two; expected layers that share "
                "none, or are in the same Sequential"
            )


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        # Read, not mapped: another process that truncates a mapped file would kill this one.
        return file.read(status.st_size)


def _parse(content: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the specification and the tensors (read-only views of copies) of a file's content."""
    import safetensors

    deserialize: Callable[[bytes], Any] = safetensors.deserialize
    header = _header(content)
    spec = _spec(header.pop("__metadata__", {}))
    for name, entry in header.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if dtype not in _DTYPES:
            raise ValueError(f"tensor {name[:80]!r} has dtype {str(dtype)[:20]}; expected one of {', '.join(_DTYPES)}")
    try:
        entries = deserialize(content)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from None
    tensors = {}
    for name, entry in entries:
        # With an axis of 0 safetensors lets the other axes be of any size and number.
        if len(entry["shape"]) > _LARGEST_RANK or max(entry["shape"], default=0) > len(content):
            raise ValueError(f"tensor {name[:80]!r} has {len(entry['shape'])} axes or a size above the file's")
        tensors[name] = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return spec, tensors


def _header(content: bytes) -> dict[str, Any]:
    """Return the JSON header, with the check that safetensors does not make: no key twice."""
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > len(content) - 8:
        hint = " (.npz and pickle files are not read)" if content[:1] in (b"P", b"\x80") else ""
        raise ValueError(f"has {len(content)} bytes, its header claims {size}; expected a whole safetensors file{hint}")
    header = json.loads(content[8 : 8 + size].decode(), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError("has a header that is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = set()
        repeated = next(name for name, _ in pairs if name in names or names.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"has the key {repeated[:80]!r} twice")
    return result


def _spec(metadata: Any) -> dict[str, Any]:
    text = metadata.get(_METADATA_KEY) if isinstance(metadata, Mapping) else None
    if not isinstance(text, str):
        raise ValueError("has no fusedrnn configuration in its metadata; for weights alone use load_state_dict")
    spec = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(spec, dict) or spec.get("format") != _FORMAT:
        raise ValueError(f"has a configuration of another format; expected format {_FORMAT}")
    return spec


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)


def _write(path: str, content: bytes) -> None:
    mode = None
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = os.stat(path).st_mode
    is_file = mode is None or stat.S_ISREG(mode)
    if is_file and os.path.basename(path) not in ("", os.curdir, os.pardir):
        _write_atomically(os.path.realpath(path), content, mode)
        return
    # A pipe or a device must stay one; a folder, and the name of one, is open's to refuse.
    with open(path, "wb") as file:
        file.write(content)


def _write_atomically(path: str, content: bytes, mode: int | None) -> None:
    folder = os.path.dirname(path)
    temporary = os.path.join(folder, f".{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            if mode is not None and mode != os.fstat(file.fileno()).st_mode:
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename == temporary:
            error.filename = path  # which the caller knows
        raise
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new name is on the disk, too
    finally:
        os.close(descriptor)
