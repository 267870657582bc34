"""Files: what is saved comes back; whatever else a file holds is a ValueError, in bounded time and memory."""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.layers import Layer, register_layer

LINEAR = {"class": "Linear", "config": {"in_features": 2, "out_features": 3, "bias": False, "dtype": "float32"}}
WEIGHT = {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}


def content(header: Mapping[str, Any] | bytes, data: bytes = b"", spec: Any = LINEAR) -> bytes:
    """Build a file by hand: a header as an object (the specification is added) or as bytes, and the data."""
    if not isinstance(header, bytes):
        text = spec if isinstance(spec, str) else json.dumps({"format": 1, **spec})
        header = json.dumps({"__metadata__": {"fusedrnn": text}, **header}).encode()
    return struct.pack("<Q", len(header)) + header + data


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return path


def refused(folder: Path, data: bytes, match: str = "load: ") -> None:
    """Check that the file is a ValueError that names it."""
    path = write(folder, data)
    with pytest.raises(ValueError, match=match) as caught:
        fr.load(path)
    assert str(caught.value).startswith(f"load: {path}: ")


def assert_same(first: Any, second: Any, x: NDArray[Any]) -> None:
    assert type(first) is type(second) and first.config() == second.config()
    assert first.params.keys() == second.params.keys()
    for name, value in first.params.items():
        assert value.dtype == second.params[name].dtype
        assert value.tobytes() == second.params[name].tobytes(), name
    a, b = first(x), second(x)
    a, b = (a[0], b[0]) if isinstance(a, tuple) else (a, b)
    assert a.tobytes() == b.tobytes()


# ------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize(
    "model",
    [
        fr.Linear(3, 4, bias=False, dtype="float64", seed=1),
        fr.Sequential(fr.Linear(3, 4, seed=1), fr.Activation("tanh"), fr.Dropout(0.3), fr.Linear(4, 1, seed=2)),
        fr.Sequential(fr.Sequential(fr.Linear(3, 3, seed=1)), fr.Dropout(0.1, dtype="float32")),
        fr.Dropout(0.5),
    ],
)
def test_round_trip(model: Layer, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    assert_same(model, fr.load(tmp_path / "m.safetensors"), np.random.default_rng(0).standard_normal((2, 5, 3)))
    fr.save(model, str(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_round_trip_of_recurrent_models(name: str, tmp_path: Path) -> None:
    cell = getattr(fr, name)
    models = [
        cell(3, 4, num_layers=2, bidirectional=True, dropout=0.25, seed=1),
        cell(3, 4, bias=False, dtype="float64", seed=1),
        fr.Bidirectional(cell(3, 4, num_layers=2, seed=1), "mul", seed=2),
        fr.Sequential(cell(3, 4, seed=1), fr.Dropout(0.2), fr.Linear(4, 2, seed=1)),
    ]
    for model in models:
        model.save(tmp_path / "m.safetensors")
        assert_same(model, fr.load(tmp_path / "m.safetensors"), np.random.default_rng(0).standard_normal((2, 5, 3)))


def test_round_trip_of_an_embedding(tmp_path: Path) -> None:
    model = fr.Sequential(fr.Embedding(7, 3, padding_idx=-2, seed=1), fr.Linear(3, 2, seed=1))
    model.save(tmp_path / "m.safetensors")
    assert_same(model, fr.load(tmp_path / "m.safetensors"), np.array([[1, 5], [6, 0]]))


def test_shared_layers_stay_shared(tmp_path: Path) -> None:
    shared = fr.Linear(3, 3, seed=1)
    fr.Sequential(shared, fr.Activation("relu"), shared).save(tmp_path / "m.safetensors")
    loaded = fr.load(tmp_path / "m.safetensors")
    assert loaded.num_parameters == 12 and loaded.params["0.weight"] is loaded.params["2.weight"]


def test_sharing_that_a_file_would_lose_is_refused(tmp_path: Path) -> None:
    cell = fr.GRU(4, 4, seed=1)
    lost = {
        r"0\.0\.weight_ih_l0 and 1\.weight_ih_l0": fr.Sequential(fr.Sequential(cell), cell),
        r"encoder\.weight_ih_l0 and decoder\.layer\.weight_ih_l0": fr.models.EncoderDecoder(cell, cell, 4),
    }
    for names, model in lost.items():
        with pytest.raises(ValueError, match=f"save: {names} share one array"):
            model.save(tmp_path / "m.safetensors")
    assert not os.listdir(tmp_path)
    fr.Sequential(fr.Sequential(cell, cell), fr.Linear(4, 1, seed=1)).save(tmp_path / "m.safetensors")
    assert fr.load(tmp_path / "m.safetensors").num_parameters == cell.num_parameters + 5


def test_paths_of_bytes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "model.safetensors")
    layer = fr.Linear(3, 2, seed=1)
    layer.save(path)  # type: ignore[arg-type]
    assert_same(fr.load(path), layer, np.ones((1, 3)))  # type: ignore[arg-type]


def test_nan_weights_and_any_memory_order_are_kept(tmp_path: Path) -> None:
    layer = fr.Linear(2, 3)
    layer._set_parameters({name: np.asfortranarray(array) for name, array in layer.params.items()})
    layer.params["weight"][:] = [[1, 2], [np.nan, np.inf], [5, 6]]
    layer.save(tmp_path / "m.safetensors")
    loaded = fr.load(tmp_path / "m.safetensors").params["weight"]
    assert np.array_equal(loaded, layer.params["weight"], equal_nan=True)
    assert np.array_equal(safetensors.numpy.load_file(tmp_path / "m.safetensors")["weight"], loaded, equal_nan=True)


def test_registered_classes_load_and_others_do_not_save(tmp_path: Path) -> None:
    class Unknown(fr.Linear):
        pass

    with pytest.raises(TypeError, match="Unknown: the class is not registered"):
        Unknown(1, 1).save(tmp_path / "m.safetensors")
    assert not os.listdir(tmp_path)

    @register_layer
    class Known(fr.Linear):
        pass

    Known(3, 1, seed=1).save(tmp_path / "m.safetensors")
    assert type(fr.load(tmp_path / "m.safetensors")) is Known

    with pytest.raises(ValueError, match="register_layer: Linear is already the name of"):
        register_layer(type("Linear", (fr.Linear,), {}))


# ----------------------------------------------------------------------------------------------------- atomic writes


def test_saving_replaces_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    fr.Linear(2, 2, seed=1).save(path)
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    fr.Linear(2, 2, seed=2).save(link)
    assert link.is_symlink() and sorted(os.listdir(tmp_path)) == ["link.safetensors", "m.safetensors"]
    assert np.array_equal(fr.load(path).params["weight"], fr.Linear(2, 2, seed=2).params["weight"])
    reference = tmp_path / "plain"
    reference.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(reference.stat().st_mode)


def test_what_is_no_file_is_written_into(tmp_path: Path) -> None:
    pipe, link, received = tmp_path / "pipe", tmp_path / "link", tmp_path / "received"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    layer = fr.Linear(2, 2, seed=1)
    for path in (pipe, link):
        reader = threading.Thread(target=lambda: received.write_bytes(pipe.read_bytes()), daemon=True)
        reader.start()
        layer.save(path)
        assert stat.S_ISFIFO(os.stat(path).st_mode)
        reader.join(10)
        assert_same(fr.load(received), layer, np.ones((1, 2)))
        received.unlink()


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.touch()
    path.chmod(0o604)
    fr.Linear(2, 2, seed=1).save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604 and fr.load(path).num_parameters == 6


def test_names_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / ("m" * 255)
    fr.Linear(2, 2, seed=1).save(path)
    assert fr.load(path).num_parameters == 6 and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["new/", "new/.", "folder", "folder/", "folder/..", "file/", "file/m", "new/m"])
def test_what_cannot_be_written_is_refused_as_by_open(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught:
        fr.Linear(2, 2).save(f"{tmp_path}/{name}")
    with pytest.raises(OSError) as of_open, open(f"{tmp_path}/{name}", "wb"):
        pass
    assert type(caught.value) is type(of_open.value) and caught.value.filename == f"{tmp_path}/{name}"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and (tmp_path / "file").read_bytes() == b""


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    fr.Linear(2, 2, seed=1).save(path)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        fr.Linear(2, 2, seed=2).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.safetensors"]


def test_kill_during_save_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    fr.Linear(300, 300, seed=0).save(path)
    program = (
        "import sys, fusedrnn as fr\n"
        "layer = fr.Linear(300, 300, seed=1)\n"
        "print('ready', flush=True)\n"
        "while True: layer.save(sys.argv[1])\n"
    )
    rng = np.random.default_rng(0)
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(float(rng.uniform(0, 0.03)))
            process.send_signal(signal.SIGKILL)
        assert fr.load(path).num_parameters == 300 * 301


# ----------------------------------------------------------------------------------------------------- broken files


def test_the_hand_made_file_is_good(tmp_path: Path) -> None:
    values = np.arange(6, dtype="<f4")
    loaded = fr.load(write(tmp_path, content({"weight": WEIGHT}, values.tobytes())))
    assert np.array_equal(loaded.params["weight"].ravel(), values)


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    whole = content({"weight": WEIGHT}, bytes(24))
    for size in range(len(whole)):
        refused(tmp_path, whole[:size])
    refused(tmp_path, whole + b"\0")


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 2**40, 10**6])
def test_header_length_beyond_the_file(size: int, tmp_path: Path) -> None:
    message = "is not a safetensors file" if size > 10**6 else f"header claims {size}"
    refused(tmp_path, struct.pack("<Q", size) + content({"weight": WEIGHT}, bytes(24))[8:], message)


@pytest.mark.parametrize(
    "header",
    [
        {"weight": {**WEIGHT, "dtype": "F16"}},
        {"weight": {**WEIGHT, "dtype": "BF16"}},
        {"weight": {**WEIGHT, "dtype": "I32"}},
        {"weight": {**WEIGHT, "dtype": "Q99"}},
        {"weight": {**WEIGHT, "dtype": ["F32"]}},
        {"weight": {**WEIGHT, "shape": [2, 3]}},
        {"weight": {**WEIGHT, "shape": [2**62, 4]}},
        {"weight": {**WEIGHT, "shape": [2**33, 2**33]}},
        {"weight": {**WEIGHT, "shape": [-3, -2]}},
        {"weight": {**WEIGHT, "shape": [3.0, 2]}},
        {"weight": {**WEIGHT, "shape": "3, 2"}},
        {"weight": {**WEIGHT, "data_offsets": [0, 2**63]}},
        {"weight": {**WEIGHT, "data_offsets": [24, 0]}},
        {"weight": {**WEIGHT, "data_offsets": [-24, 0]}},
        {"weight": {"dtype": "F32"}},
        {"weight": None},
        {"weight": WEIGHT, "more": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}},
        {"weight": WEIGHT, "more": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [24, 24]}},
        {"weight": WEIGHT, "more": {"dtype": "F32", "shape": [0] * 100, "data_offsets": [24, 24]}},
        {"weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}},
        {},
    ],
)
def test_broken_headers(header: Any, tmp_path: Path) -> None:
    refused(tmp_path, content(header, bytes(24)))


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"null",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"1" * 10_000 + b"}",
        json.dumps({"weight": WEIGHT}).encode(),
        b'{"__metadata__": {"fusedrnn": 3}}',
        b'{"__metadata__": ["fusedrnn"]}',
    ],
)
def test_headers_that_are_no_headers(header: bytes, tmp_path: Path) -> None:
    refused(tmp_path, content(header, bytes(24)))


def test_duplicate_keys(tmp_path: Path) -> None:
    good = content({"weight": WEIGHT}, bytes(24))[8:-24].decode()
    twice = good[:-1] + f', "weight": {json.dumps(WEIGHT)}}}'
    refused(tmp_path, content(twice.encode(), bytes(24)), "has the key 'weight' twice")
    nested = good.replace('"dtype"', '"dtype": "F32", "dtype"')
    refused(tmp_path, content(nested.encode(), bytes(24)), "twice")


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({**LINEAR, "class": "os.system"}, "unknown layer class 'os.system'"),
        ({**LINEAR, "class": "Layer"}, "unknown layer class"),
        ({**LINEAR, "class": ["Linear"]}, "expected {'class': name"),
        ({"class": "Linear"}, "expected"),
        ({**LINEAR, "format": 0}, "another format"),
        ("{}", "another format"),
        ("[" * 10_000, "nested too deeply"),
        ({**LINEAR, "config": {"in_features": 2}}, "out_features"),
        ({**LINEAR, "config": {**LINEAR["config"], "shell": "ls"}}, "shell"),  # type: ignore[dict-item]
        ({**LINEAR, "config": {**LINEAR["config"], "in_features": 2**30}}, "the file has 24 left"),  # type: ignore[dict-item]
        ({**LINEAR, "config": {**LINEAR["config"], "in_features": 2**200}}, "parameters need"),  # type: ignore[dict-item]
        ({**LINEAR, "config": {**LINEAR["config"], "in_features": "2"}}, "expected an integer"),  # type: ignore[dict-item]
        ({**LINEAR, "config": {**LINEAR["config"], "device": "cuda"}}, "has a device in its config"),  # type: ignore[dict-item]
        ({"class": "Sequential", "config": {"layers": []}}, "no layers"),
        ({"class": "Sequential", "config": {"layers": [0]}}, "layer 0 is 0; expected the index of an earlier one"),
        ({"class": "Sequential", "config": {"layers": [LINEAR, LINEAR]}}, "the file has 0 left"),
        (
            {"class": "Sequential", "config": {"layers": [LINEAR, 0]}},
            "the configuration names 2 parameters or more; the file has 1",
        ),
        ({"class": "Linear", "config": {"in_features": 1, "out_features": 3}}, "missing: bias; wrong shapes: weight"),
        ({"class": "Bidirectional", "config": {"layer": LINEAR, "merge": "sum"}}, "expected a recurrent layer"),
    ],
)
def test_configurations_are_not_trusted(spec: Any, match: str, tmp_path: Path) -> None:
    refused(tmp_path, content({"weight": WEIGHT}, bytes(24), spec), match)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 2**20}, {"num_layers": 4 * 10**6}, {"hidden_size": 0}, {"dtype": "int8"}, {"num_layers": "2"}],
)
def test_configurations_of_recurrent_layers_are_not_trusted(name: str, change: dict[str, Any], tmp_path: Path) -> None:
    config = {**getattr(fr, name)(1, 1).config(), **change}
    start = time.process_time()
    refused(tmp_path, content({"weight": WEIGHT}, bytes(24), {"class": name, "config": config}))
    assert time.process_time() - start <= 0.5


@pytest.mark.parametrize("depth", [100, 250, 5000])
def test_deeply_nested_models(depth: int, tmp_path: Path) -> None:
    spec = '"format": 1, ' + '"class": "Sequential", "config": {"layers": [{' * depth + json.dumps(LINEAR)[1:-1]
    refused(tmp_path, content({"weight": WEIGHT}, bytes(24), "{" + spec + "}]}" * depth + "}"))


def test_other_kinds_of_files(tmp_path: Path) -> None:
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, a=np.array([object], dtype=object))
    with pytest.raises(ValueError, match=r"\.npz and pickle files are not read"):
        fr.load(pickled)
    for start in (b"\x08\x08\x12\x08fusedrnn", b"\x89HDF\r\n\x1a\n", b"import numpy as np"):
        pickled.write_bytes(start + bytes(1000))
        with pytest.raises(ValueError, match=r"is not a safetensors file; .* fusedrnn\.onnx\.load and fusedrnn\.keras"):
            fr.load(pickled)
    with pytest.raises(ValueError, match="is not a regular file"):
        fr.load("/dev/zero")
    with pytest.raises(IsADirectoryError):
        fr.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        fr.load(tmp_path / "absent")


def test_a_header_of_many_entries_takes_bounded_time(tmp_path: Path) -> None:
    header = {f"w{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(100_000)}
    path = write(tmp_path, content(header, bytes(400_000)))
    start = time.process_time()
    with pytest.raises(ValueError, match=r"missing: weight; unexpected: .* and 99980 more"):
        fr.load(path)
    assert time.process_time() - start <= 20


def test_mutated_files_are_value_errors_or_whole(tmp_path: Path) -> None:
    model = fr.Sequential(fr.Embedding(5, 3, seed=1), fr.Dropout(0.1), fr.Linear(3, 2, seed=1))
    path = tmp_path / "m.safetensors"
    model.save(path)
    good = path.read_bytes()
    header_end = 8 + struct.unpack("<Q", good[:8])[0]
    rng = np.random.default_rng(0)
    pieces = [b"9" * 15, b"-1", b"{", b"}", b'"', b",", b"null", b"F64", b"\xff", b"0", b"1e9", b"Linear", b"[[[["]
    outcomes = {"refused": 0, "loaded": 0}
    tracemalloc.start()
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(0, header_end))
            kind = rng.integers(0, 4)
            if kind == 0:
                data[at] = int(rng.integers(0, 256))
            elif kind == 1:
                data[at : at + int(rng.integers(1, 9))] = b""
            elif kind == 2:
                data[at:at] = pieces[int(rng.integers(0, len(pieces)))]
            else:  # swap two bytes
                other = int(rng.integers(8, header_end))
                data[at], data[other] = data[other], data[at]
        if rng.integers(0, 2):  # most mutations break the length of the header first: set it right, to get further
            data[:8] = struct.pack("<Q", max(0, len(data) - (len(good) - header_end) - 8))
        path.write_bytes(data)
        try:
            fr.load(path)
            outcomes["loaded"] += 1
        except ValueError as error:
            assert str(error).startswith(f"load: {path}: ")
            outcomes["refused"] += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert outcomes["refused"] >= 1500, outcomes
    assert peak <= 10**6 + 100 * len(good), peak
