"""What a file may ask for: bounded by what it holds, whatever it says; and what happens to it on the disk."""

from __future__ import annotations

import errno
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
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import fusedrnn as fr
from fusedrnn.serialization import atomic, container, files
from scripts import run_python
from test_serialization import LINEAR, WEIGHT, content, refused, write

OLD_FILE = Path(__file__).parent / "data" / "format_1.safetensors"
KIND = "of which no layer can be made"


def model() -> fr.Sequential:
    """Return a model with layers of several kinds."""
    return fr.Sequential(fr.Embedding(5, 3, seed=1), fr.GRU(3, 2, 2, seed=2), fr.Dropout(0.1), fr.Linear(2, 2, seed=3))


def nested(spec: Any, times: int, occurrences: int) -> Any:
    """Return a Sequential of Sequentials, in each of which the one inside occurs several times."""
    for _ in range(times):
        spec = {"class": "Sequential", "config": {"layers": [spec] + [0] * (occurrences - 1)}}
    return spec


# ------------------------------------------------------------------------------------------ a small file is cheap

GREEDY = {
    "names": (nested(LINEAR, 7, 10), "names 2 parameters or more; the file has 1"),
    "parts": (nested({"class": "Dropout", "config": {"p": 0.1, "dtype": None}}, 7, 10), "1111 layers or more"),
    "depth": (nested(LINEAR, 64, 1), "at most 64 layers deep"),
    "names of recurrent layers": (
        {"class": "RNN", "config": {"input_size": 1, "hidden_size": 1, "num_layers": 2, "bias": False}},
        "names 4 parameters",
    ),
    "dtype": ({"class": "Linear", "config": {**LINEAR["config"], "dtype": "f4," * 300_000}}, "dtype is 'f4,"),  # type: ignore[dict-item]
    "class": ({"class": "L" * 500_000, "config": {}}, "unknown layer class 'LLL"),
    "argument": ({"class": "Linear", "config": {**LINEAR["config"], "in_features": "9" * 500_000}}, "expected an int"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize(("spec", "match"), GREEDY.values(), ids=GREEDY)
def test_what_a_configuration_asks_for_is_bounded(spec: Any, match: str, tmp_path: Path) -> None:
    path = write(tmp_path, content({"weight": WEIGHT}, bytes(24), spec))
    start = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as caught:
            fr.load(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start <= 1
    assert peak <= 2**20 + 12 * path.stat().st_size, peak
    assert len(str(caught.value)) <= 1200 + len(str(path))


def test_a_layer_may_occur_as_often_as_the_file_has_names_for_it(tmp_path: Path) -> None:
    shared = fr.Linear(3, 3, seed=1)
    block = fr.Sequential(shared, fr.Activation("relu"), shared)
    fr.Sequential(block, block).save(tmp_path / "m.safetensors")
    assert fr.load(tmp_path / "m.safetensors").num_parameters == 12


def test_what_load_would_refuse_is_not_saved(tmp_path: Path) -> None:
    deep: Any = fr.Linear(1, 1)
    for _ in range(files.DEEPEST - 1):
        deep = fr.Sequential(deep)
    deep.save(tmp_path / "m.safetensors")
    assert fr.load(tmp_path / "m.safetensors").num_parameters == 2
    with pytest.raises(ValueError, match="save: layer is 65 layers deep; expected at most 64"):
        fr.Sequential(deep).save(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"{" + b",".join(b'"%d":{"shape":[]}' % i for i in range(1_900_000)) + b"}", "header of .* bytes"),
        (b"[" * 2_000_000, "2000000 objects and lists"),
        (b"{" + b",".join(b'"%d":0' % i for i in range(100_001)) + b"}", "100001 tensors; expected at most 100000"),
    ],
    ids=["long", "nested", "many"],
)
def test_a_header_is_judged_before_it_is_read(header: bytes, match: str, tmp_path: Path) -> None:
    path = write(tmp_path, struct.pack("<Q", len(header)) + header)
    start = time.process_time()
    with pytest.raises(ValueError, match=match):
        fr.load(path)
    assert time.process_time() - start <= 2


def test_the_tensors_are_not_read_where_the_header_is_wrong(tmp_path: Path) -> None:
    path = write(tmp_path, content({"weight": {**WEIGHT, "dtype": "F16"}}))
    os.truncate(path, 2**40)  # a hole: no disk has that much
    with pytest.raises(ValueError, match="dtype F16"):
        fr.load(path)


def test_a_file_chooses_no_device(tmp_path: Path) -> None:
    config = {**LINEAR["config"], "device": "cuda"}  # type: ignore[dict-item]
    path = write(tmp_path, content({"weight": WEIGHT}, bytes(24), {**LINEAR, "config": config}))
    code = f"""
        import sys
        import fusedrnn as fr
        before = set(sys.modules)
        try:
            fr.load({str(path)!r})
        except ValueError as error:
            assert "has a device in its config" in str(error), error
        assert not [name for name in set(sys.modules) - before if "cuda" in name]
    """
    run_python(code)


# --------------------------------------------------------------------------------------------- wrong kinds of JSON

KINDS: dict[str, tuple[Any, str]] = {
    "layers a number": ({"class": "Sequential", "config": {"layers": 5}}, "layers is an int; expected a list"),
    "layers a dict": ({"class": "Sequential", "config": {"layers": {"0": LINEAR}}}, "layers is a dict"),
    "layers missing": ({"class": "Sequential", "config": {}}, "layers is a NoneType"),
    "layer a list": ({"class": "Sequential", "config": {"layers": [[LINEAR]]}}, "expected {'class': name"),
    "layer true": ({"class": "Sequential", "config": {"layers": [LINEAR, True]}}, "got True; expected {'class'"),
    "index ahead": ({"class": "Sequential", "config": {"layers": [LINEAR, 1]}}, "layer 1 is 1; expected the index of"),
    "index negative": (
        {"class": "Sequential", "config": {"layers": [LINEAR, -1]}},
        "layer 1 is -1; expected the index",
    ),
    "config a list": ({"class": "Linear", "config": [2, 3]}, "expected {'class': name"),
    "class a dict": ({"class": {}, "config": {}}, "expected {'class': name"),
    "dtype a list": ({"class": "Linear", "config": {**LINEAR["config"], "dtype": [["a", "f4"]]}}, "dtype is"),  # type: ignore[dict-item]
    "dtype true": ({"class": "Linear", "config": {**LINEAR["config"], "dtype": True}}, "dtype is True"),  # type: ignore[dict-item]
    "bias a number": ({"class": "Linear", "config": {**LINEAR["config"], "bias": 3}}, "bias is 3"),  # type: ignore[dict-item]
    "size NaN": (
        {"class": "Linear", "config": {**LINEAR["config"], "in_features": float("nan")}},
        "expected an integer",
    ),  # type: ignore[dict-item]
    "size infinite": ({"class": "Linear", "config": {**LINEAR["config"], "in_features": float("inf")}}, "an integer"),  # type: ignore[dict-item]
    "probability huge": ({"class": "Dropout", "config": {"p": 10**400, "dtype": None}}, "expected a number"),
    "unknown argument": ({"class": "Dropout", "config": {"q": 1}}, KIND),
    "child missing": ({"class": "Bidirectional", "config": {"merge": "sum"}}, KIND),
    "child no layer": (
        {"class": "Bidirectional", "config": {"layer": "GRU", "merge": "sum"}},
        "expected {'class': name",
    ),
    "format a list": ({**LINEAR, "format": [1]}, "another format"),
    "format true": ({**LINEAR, "format": True}, "another format"),
    "format text": ({**LINEAR, "format": "1"}, "another format"),
    "no JSON": ("{'class': 'Linear'}", "holds no JSON"),
    "a list": ("[]", "another format"),
    "half a pair": ('{"format": 1, "class": "\\ud800", "config": {}}', "unknown layer class"),
}


@pytest.mark.parametrize(("spec", "match"), KINDS.values(), ids=KINDS)
def test_wrong_kinds_are_one_sentence(spec: Any, match: str, tmp_path: Path) -> None:
    path = write(tmp_path, content({"weight": WEIGHT}, bytes(24), spec))
    with pytest.raises(ValueError) as caught:
        fr.load(path)
    message = str(caught.value)
    assert message.startswith(f"load: {path}: ") and match in message and "\n" not in message, message


def test_we_refuse_what_the_library_refuses(tmp_path: Path) -> None:
    """The library of the format is the judge of the container: nothing that it refuses is loaded."""
    model().save(tmp_path / "m.safetensors")
    good = (tmp_path / "m.safetensors").read_bytes()
    end = 8 + int.from_bytes(good[:8], "little")
    rng = np.random.default_rng(1)
    refusals = 0
    for _ in range(1500):
        data = bytearray(good)
        at = int(rng.integers(8, end))
        data[at : at + int(rng.integers(0, 3))] = [b"", b"0", b"1", b" ", b"[", b"-", b"\x00"][int(rng.integers(7))]
        data[:8] = struct.pack("<Q", len(data) - (len(good) - end) - 8)
        try:
            safetensors.deserialize(bytes(data))
        except safetensors.SafetensorError:
            refusals += 1
            refused(tmp_path, bytes(data))
    assert refusals >= 500


# ------------------------------------------------------------------------------------------------- checksum and formats


def test_the_library_reads_what_is_saved(tmp_path: Path) -> None:
    layer = model()
    mixed = fr.Sequential(fr.Linear(3, 4, dtype="float64", seed=1), fr.Linear(4, 2, seed=2))
    for each in (layer, mixed, fr.Dropout(0.2)):
        each.save(tmp_path / "m.safetensors")
        content_ = (tmp_path / "m.safetensors").read_bytes()
        assert int.from_bytes(content_[:8], "little") % 8 == 0
        theirs = safetensors.numpy.load(content_)
        assert theirs.keys() == each.params.keys()
        assert all(theirs[name].tobytes() == array.tobytes() for name, array in each.params.items())


def test_a_changed_byte_is_seen(tmp_path: Path) -> None:
    """Each byte of a file in turn: refused, or the same layer (spaces of the header say nothing)."""
    fr.Linear(2, 3, seed=1).save(tmp_path / "m.safetensors")
    good = (tmp_path / "m.safetensors").read_bytes()
    expected = fr.load(tmp_path / "m.safetensors")
    seen = 0
    for at in range(len(good)):
        for flip in (1, 255):
            data = bytearray(good)
            data[at] ^= flip
            try:
                loaded = fr.load(write(tmp_path, bytes(data)))
            except ValueError:
                seen += 1
                continue
            assert loaded.config() == expected.config()
            assert all(array.tobytes() == expected.params[name].tobytes() for name, array in loaded.params.items())
    assert seen >= 1.9 * len(good)


def test_what_was_changed_loads_where_that_is_asked_for(tmp_path: Path) -> None:
    fr.Linear(2, 2, seed=1).save(tmp_path / "m.safetensors")
    data = bytearray((tmp_path / "m.safetensors").read_bytes())
    data[-1] ^= 1
    path = write(tmp_path, bytes(data))
    with pytest.raises(ValueError, match="was changed after it was saved: its checksum differs"):
        fr.load(path)
    assert fr.load(path, verify=False).num_parameters == 6


def test_files_of_the_first_format_load() -> None:
    """Written by version 0.1.0 before there was a checksum; the expected outputs are from then, too."""
    loaded: Any = fr.load(OLD_FILE)
    y = loaded(np.array([[1, 2, 4], [3, 0, 2]]))
    expected = [
        [[0.08622827, -0.05681369], [0.06403375, -0.04774808], [0.04066052, -0.03332797]],
        [[-0.00967057, -0.08502681], [0.01288656, -0.06941631], [0.02018318, -0.02968045]],
    ]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [4, 10**30])
def test_newer_formats_are_refused(number: int, tmp_path: Path) -> None:
    refused(
        tmp_path,
        content({"weight": WEIGHT}, bytes(24), {**LINEAR, "format": number}),
        f"was written by a newer version of fusedrnn, in format {str(number)[:20]}; this one reads up to 3",
    )


def test_the_second_format_has_a_checksum(tmp_path: Path) -> None:
    refused(tmp_path, content({"weight": WEIGHT}, bytes(24), {**LINEAR, "format": 2}), "has no checksum")


# ----------------------------------------------------------------------------------------------------- the file system


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a regular file"):
        fr.load(tmp_path / "pipe")


def test_a_full_disk_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        fr.Linear(2, 2).save("/dev/full")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")
    path = tmp_path / "m.safetensors"
    fr.Linear(2, 2, seed=1).save(path)
    before = path.read_bytes()
    code = f"""
        import os, resource, signal
        import fusedrnn as fr
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            fr.Linear(300, 300).save({str(path)!r})
        except OSError as error:
            assert error.filename == {str(path)!r}, error
        else:
            raise AssertionError("was written")
    """
    run_python(code)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o555)
    with pytest.raises(PermissionError) as caught:
        fr.Linear(2, 2).save(tmp_path / "folder" / "m.safetensors")
    assert caught.value.filename == str(tmp_path / "folder" / "m.safetensors")


def test_killed_saves_leave_nothing_for_long(tmp_path: Path) -> None:
    """What a killed save has left is removed by the next one to the same path, and nothing else is."""
    path = tmp_path / "m.safetensors"
    others = tmp_path / ".0123456789ab.0.tmp"
    others.touch()
    layer = fr.Linear(300, 300, seed=0)
    layer.save(path)
    program = (
        "import sys, fusedrnn as fr\n"
        "layer = fr.Linear(300, 300, seed=1)\n"
        "print('ready', flush=True)\n"
        "while True: layer.save(sys.argv[1])\n"
    )
    rng = np.random.default_rng(0)
    left = 0
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(float(rng.uniform(0, 0.03)))
            process.send_signal(signal.SIGKILL)
        assert fr.load(path).num_parameters == 300 * 301
        files_ = [name for name in os.listdir(tmp_path) if name.endswith(".tmp") and name != others.name]
        left += len(files_)
        assert len(files_) <= 1
    assert left > 0, "no kill came during a write"
    layer.save(path)
    assert sorted(os.listdir(tmp_path)) == [others.name, path.name]


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """Two writers at once: each has a temporary file of its own, and the path is whole at any time."""
    path = tmp_path / "m.safetensors"
    layers = [fr.Linear(64, 64, seed=k) for k in range(4)]
    expected = {layer.params["weight"].tobytes() for layer in layers}
    layers[0].save(path)

    def save(layer: fr.Linear) -> None:
        for _ in range(30):
            layer.save(path)

    threads = [threading.Thread(target=save, args=(layer,)) for layer in layers]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert fr.load(path).params["weight"].tobytes() in expected
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == [path.name]


def test_a_temporary_file_is_no_way_to_another_file(tmp_path: Path) -> None:
    """A link of the temporary file's name is neither followed nor removed."""
    path, victim = tmp_path / "m.safetensors", tmp_path / "victim"
    victim.write_bytes(b"untouched")
    descriptor, temporary = atomic._open_temporary(str(path))
    os.close(descriptor)
    os.unlink(temporary)
    os.symlink(victim, temporary)
    fr.Linear(2, 2, seed=1).save(path)
    assert victim.read_bytes() == b"untouched" and os.path.islink(temporary)
    assert fr.load(path).num_parameters == 6


# ------------------------------------------------------------------------------------------------------------- memory


def test_out_of_memory_is_a_memory_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fr.Linear(2, 2).save(tmp_path / "m.safetensors")

    def fail(spec: Any) -> None:
        raise MemoryError("Unable to allocate")

    monkeypatch.setattr(files, "layer_from_spec", fail)
    with pytest.raises(MemoryError, match="Unable to allocate"):
        fr.load(tmp_path / "m.safetensors")


@pytest.mark.memory_limit
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of the address space")
@pytest.mark.parametrize("operation", ["save", "load"])
def test_files_under_a_limit_of_memory(operation: str, tmp_path: Path) -> None:
    """Whatever the limit, a save or load works or raises MemoryError; the old file stays."""
    path = tmp_path / "m.safetensors"
    fr.Linear(1500, 1500, seed=1).save(path)
    code = f"""
        import os, resource
        import fusedrnn as fr
        layer = fr.Linear(1500, 1500, seed=1)
        fr.load({str(path)!r})
        size = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        outcomes = {{"worked": 0, "out of memory": 0}}
        for allowed in range(0, 40_000_000, 700_000):
            resource.setrlimit(resource.RLIMIT_AS, (size + allowed, resource.RLIM_INFINITY))
            try:
                layer.save({str(path)!r}) if {operation!r} == "save" else fr.load({str(path)!r})
                outcomes["worked"] += 1
            except MemoryError:
                outcomes["out of memory"] += 1
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(outcomes)
        assert all(outcomes.values()) or {operation!r} == "save", outcomes
    """
    run_python(code, OPENBLAS_NUM_THREADS="1", FUSEDRNN_NUM_THREADS="1", MALLOC_MMAP_THRESHOLD_="65536")
    assert fr.load(path).num_parameters == 1500 * 1501


def test_the_digest_covers_names_shapes_and_dtypes() -> None:
    a = np.arange(6, dtype=np.float32)
    digests = {
        container.digest({"a": a}, ""),
        container.digest({"b": a}, ""),
        container.digest({"a": a.reshape(2, 3)}, ""),
        container.digest({"a": a.view(np.float64)}, ""),
        container.digest({"a": a}, "x"),
        container.digest({"a": a[:3], "b": a[3:]}, ""),
    }
    assert len(digests) == 6
    assert container.digest({"a": np.asfortranarray(a.reshape(2, 3))}, "") in digests
    assert stat.S_ISREG(OLD_FILE.stat().st_mode) and json.loads(container.parse('"[1]"')) == [1]
