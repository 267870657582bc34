"""The safetensors format: 8 bytes with the size of a JSON header, the header, and the bytes of the tensors.

The package of that name ends the process where memory runs out, and copies all tensors once or twice; so it is what
the tests compare with (Hugging Face, "safetensors", format specification).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from ..arrays.checks import Array

DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I8": np.dtype("i1")}
_METADATA = "__metadata__"
_ALIGNMENT = 8
_LARGEST_RANK = 8
_MOST_TENSORS = 100_000
_LARGEST_HEADER = 32 << 20  # bytes
_MOST_BRACKETS = 1 << 20  # objects and lists, each of which takes 20 to 80 times its bytes once it is read


def encode(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> Iterator[Any]:
    """Yield the bytes of a file: the header, and the memory of each array (a copy only of one in another order).

    Parameters
    ----------
    tensors : mapping of str to ndarray
        float32, float64 or int8, on the host.
    metadata : mapping of str to str
        Whatever else the file is to hold.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    arrays = [tensors[name] for name in _in_order(tensors)]
    for name, array in zip(_in_order(tensors), arrays, strict=True):
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _code(array.dtype), "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(tensors) > _MOST_TENSORS:
        raise ValueError(f"save: layer has {len(tensors)} parameters by name; expected at most {_MOST_TENSORS}")
    if len(text) > _LARGEST_HEADER:
        raise ValueError(f"save: names and configuration take {len(text)} bytes; expected at most {_LARGEST_HEADER}")
    yield len(text).to_bytes(8, "little") + text
    for array in arrays:
        yield _memory(array)


def digest(tensors: Mapping[str, Array], text: str) -> str:
    """Return the SHA-256 of a text and of the names, dtypes, shapes and values of tensors, in hexadecimal digits."""
    result = hashlib.sha256(text.encode())
    for name in _in_order(tensors):
        array = tensors[name]
        result.update(json.dumps([name, _code(array.dtype), *array.shape]).encode())
        result.update(_memory(array))
    return result.hexdigest()


def decode(file: BinaryIO, size: int) -> tuple[dict[str, str], dict[str, Array]]:
    """Return the metadata and the tensors, read-only, of a file of ``size`` bytes.

    The header is judged before the tensors are read: it takes memory in proportion to its bytes, and no file that is
    not whole is read to its end.

    Raises
    ------
    ValueError
        If the file is not whole and valid.
    """
    start = file.read(8)
    header_size = int.from_bytes(start, "little")
    if len(start) < 8 or header_size > size - 8:
        if header_size > _LARGEST_HEADER and size > 8:
            raise ValueError(
                "is not a safetensors file; expected one that save wrote (.npz and pickle files are not read; "
                "fusedrnn.onnx.load and fusedrnn.keras.load read those formats)"
            )
        raise ValueError(f"has {size} bytes, its header claims {header_size}; expected a whole safetensors file")
    if header_size > _LARGEST_HEADER:
        raise ValueError(f"has a header of {header_size} bytes; expected at most {_LARGEST_HEADER}")
    header = parse(file.read(header_size))
    if not isinstance(header, dict):
        raise ValueError("has a header that is not a JSON object")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("has metadata that is not an object of texts")
    if len(header) > _MOST_TENSORS:
        raise ValueError(f"has {len(header)} tensors; expected at most {_MOST_TENSORS}")
    places = _places(header, size - 8 - header_size)
    data = file.read(size - 8 - header_size)
    if len(data) != size - 8 - header_size:
        raise ValueError("became shorter while it was read")
    return metadata, {
        name: np.frombuffer(data, dtype, _count(shape), begin).reshape(shape)
        for name, (dtype, shape, begin) in places.items()
    }


def parse(text: bytes | str) -> Any:
    """Return the value of a JSON text that may come from anywhere: bounded, and no key twice."""
    brackets = text.count(b"{") + text.count(b"[") if isinstance(text, bytes) else text.count("{") + text.count("[")
    if brackets > _MOST_BRACKETS:
        raise ValueError(f"has {brackets} objects and lists; expected at most {_MOST_BRACKETS}")
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"holds no JSON where it should: {error}") from None


def _places(header: Mapping[str, Any], size: int) -> dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]:
    """Return (dtype, shape, first byte) of each tensor, after checking that they fill ``size`` bytes without a gap."""
    places = {}
    ends = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"tensor {name[:80]!r} is not described by dtype, shape and data_offsets")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        dtype = DTYPES.get(code) if isinstance(code, str) else None
        if dtype is None:
            raise ValueError(f"tensor {name[:80]!r} has dtype {str(code)[:20]}; expected one of {', '.join(DTYPES)}")
        if not _are_counts(shape) or len(shape) > _LARGEST_RANK or max(shape, default=0) > size:
            raise ValueError(f"tensor {name[:80]!r} has a shape that is none, or an axis longer than the file")
        if not _are_counts(offsets) or len(offsets) != 2:
            raise ValueError(f"tensor {name[:80]!r} has data_offsets that are not [begin, end]")
        begin, end = offsets
        if end - begin != _count(shape) * dtype.itemsize:
            raise ValueError(f"tensor {name[:80]!r} has {end - begin} bytes, which its shape and dtype contradict")
        places[name] = (dtype, tuple(shape), begin)
        ends.append((begin, end))
    reached = 0
    for begin, end in sorted(ends):
        if begin != reached:
            raise ValueError(f"has tensors with a gap or an overlap at byte {reached} of the data")
        reached = end
    if reached != size:
        raise ValueError(f"has {size} bytes of data; its tensors take {reached}")
    return places


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _count(shape: Any) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = set()
        repeated = next(name for name, _ in pairs if name in names or names.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"has the key {repeated[:80]!r} twice")
    return result


def _in_order(tensors: Mapping[str, Array]) -> list[str]:
    """Return the names in the order of the file: widest elements first, so that all are aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def _code(dtype: np.dtype[Any]) -> str:
    return next(code for code, each in DTYPES.items() if each == dtype.newbyteorder("<"))


def _memory(array: Array) -> Any:
    """Return an array's values, C-ordered and little-endian, as bytes without a copy where it is so already."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data
