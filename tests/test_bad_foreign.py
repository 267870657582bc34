"""Files of Keras and ONNX that mean harm: one clear error, and memory and time in proportion to the file."""

from __future__ import annotations

import io
import json
import os
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr

h5py = pytest.importorskip("h5py")
onnx = pytest.importorskip("onnx")
import fusedrnn.keras  # noqa: E402
import fusedrnn.onnx  # noqa: E402

helper, from_array = onnx.helper, onnx.numpy_helper.from_array
DENSE = {"class_name": "Dense", "config": {"name": "d", "units": 2}}


@contextmanager
def bounded(megabytes: float = 64, seconds: float = 20) -> Iterator[None]:
    """Fail where NumPy and Python take more memory than so much at once, or more time."""
    tracemalloc.start()
    begin = time.process_time()
    try:
        yield
        assert time.process_time() - begin < seconds
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------------------------------------------- Keras


def h5(fill: Callable[[Any], None]) -> bytes:
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        fill(file)
    return memory.getvalue()


def weights(group: Any, kernel: Any = None) -> None:
    group.create_dataset("0", data=np.ones((3, 2), "f4") if kernel is None else kernel)
    group.create_dataset("1", data=np.ones(2 if kernel is None else kernel.shape[1], "f4"))


def keras_file(path: Path, h5_content: bytes, layers: list[Any], packing: int = zipfile.ZIP_STORED) -> Path:
    config = {"class_name": "Sequential", "config": {"layers": layers}}
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.1.0"}')
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", h5_content)
    return path


def test_the_plain_file_is_read(tmp_path: Path) -> None:
    """Of which those below are variations."""
    path = keras_file(tmp_path / "m.keras", h5(lambda file: weights(file.create_group("layers/dense/vars"))), [DENSE])
    assert isinstance(fr.keras.load(path), fr.Linear)


def elsewhere(path: Path) -> dict[str, Callable[[Any], None]]:
    """Return what fills an h5 file with weights that are in the file at ``path``."""
    other = path / "other.h5"
    with h5py.File(other, "w") as file:
        weights(file.create_group("vars"))
    raw = path / "secret"
    raw.write_bytes(bytes(24))

    def external_link(file: Any) -> None:
        file.create_group("layers/dense")["vars"] = h5py.ExternalLink(str(other), "/vars")

    def soft_link(file: Any) -> None:
        file.create_group("layers/dense")["vars"] = h5py.SoftLink("/layers/dense/vars")

    def external_array(file: Any) -> None:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", (3, 2), "f4", external=[(str(raw), 0, 24)])
        group.create_dataset("1", data=np.ones(2, "f4"))

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((3, 2), "f4")
        layout[...] = h5py.VirtualSource(str(other), "vars/0", (3, 2))
        group = file.create_group("layers/dense/vars")
        group.create_virtual_dataset("0", layout)
        group.create_dataset("1", data=np.ones(2, "f4"))

    return {"external link": external_link, "soft link": soft_link, "external": external_array, "virtual": virtual}


@pytest.mark.parametrize("kind", ["external link", "soft link", "external", "virtual"])
def test_weights_in_another_file(kind: str, tmp_path: Path) -> None:
    path = keras_file(tmp_path / "m.keras", h5(elsewhere(tmp_path)[kind]), [DENSE])
    with pytest.raises(ValueError, match=r"expected it in the file itself"):
        fr.keras.load(path)


def many_names(file: Any) -> None:
    """One array of 8 MB under 2,000 names."""
    first = file.create_group("layers/dense/vars")
    weights(first, np.ones((1000, 2000), "f4"))
    for index in range(1, 2000):
        file["layers"][f"dense_{index}"] = file["layers/dense"]


def big_chunk(file: Any) -> None:
    group = file.create_group("layers/dense/vars")
    made = group.create_dataset("0", (3, 2), "f4", maxshape=(None, None), chunks=(2**14, 2**14), compression="gzip")
    made[...] = 1
    group.create_dataset("1", data=np.ones(2, "f4"))


def texts(file: Any) -> None:
    group = file.create_group("layers/dense/vars")
    group.create_dataset("0", data=["x" * 1000] * 6)
    group.create_dataset("1", data=np.ones(2, "f4"))


@pytest.mark.parametrize(
    ("fill", "layers", "match"),
    [(many_names, 2000, "100 times"), (big_chunk, 1, "100 times"), (texts, 1, "expected floating-point")],
    ids=["many names", "big chunk", "texts"],
)
def test_small_files_that_ask_for_much(fill: Any, layers: int, match: str, tmp_path: Path) -> None:
    path = keras_file(tmp_path / "m.keras", h5(fill), [DENSE] * layers)
    with pytest.raises(ValueError, match=match), bounded(1200):
        fr.keras.load(path)


def test_bombs_in_an_archive(tmp_path: Path) -> None:
    """300 MB of zeros, or of blanks where JSON should be, in a few hundred kilobytes."""
    for name in ("model.weights.h5", "config.json"):
        path = keras_file(tmp_path / "m.keras", b"", [DENSE], zipfile.ZIP_DEFLATED)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for each in {"metadata.json", "config.json", "model.weights.h5"} - {name}:
                archive.writestr(each, "{}")
            archive.writestr(name, b" " * 300_000_000)
        with pytest.raises(ValueError, match="100 times"), bounded():
            fr.keras.load(path)
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("config.json", b" " * 1000)
    with pytest.raises(ValueError, match="unusual way"):
        fr.keras.load(tmp_path / "m.keras")


class Forged:
    """Pickled as a call of a function, and a state for what it returns."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


def pickled(dtype: Any, shape: Any, content: Any) -> Any:
    rebuild, arguments, _ = np.zeros(1).__reduce__()
    return Forged(rebuild, arguments, (1, shape, dtype, False, content))


# A dtype whose state says that bytes are objects, but not that they are pickled as such.
POINTERS = Forged(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))


@pytest.mark.parametrize(
    "kernel",
    [
        pickled(POINTERS, (3, 2), b"A" * 48),
        pickled(Forged(np.dtype, ("f4," * 100_000 + "f4",)), (3, 2), bytes(24)),
        pickled(np.dtype("f4"), (2**40, 2), bytes(24)),
        Forged(np.ndarray, ((2**34,), np.dtype("f4"))),
        Forged(os.getpid, ()),
    ],
    ids=["pointers", "dtype of text", "shape", "without bytes", "a call"],
)
def test_pickles_of_keras(kernel: Any, tmp_path: Path) -> None:
    """Nothing in the npz of a file is called, and no state of it means memory."""
    content = io.BytesIO()
    held = np.empty((), object)
    held[()] = {"0": kernel, "1": np.ones(2, "f4")}
    with zipfile.ZipFile(content, "w") as archive, archive.open("layers/dense.npy", "w") as file:
        np.lib.format.write_array(file, held, allow_pickle=True)
    path = keras_file(tmp_path / "m.keras", b"", [DENSE])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.weights.npz", content.getvalue())
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "n.keras", "w") as archive:
        for name in {*whole.namelist()} - {"model.weights.h5"}:
            archive.writestr(name, whole.read(name))
    with pytest.raises(ValueError, match=r"^keras.load: "), bounded():
        fr.keras.load(tmp_path / "n.keras")


def test_configurations_that_ask_for_much(tmp_path: Path) -> None:
    content = h5(lambda file: weights(file.create_group("layers/dense/vars")))
    nested: Any = DENSE
    for _ in range(400):
        nested = {"class_name": "TimeDistributed", "config": {"layer": nested}}
    long = {"class_name": "x" * 500_000, "config": {"name": "y" * 500_000}}
    for layers in ([nested], [long], [{"class_name": "Dense", "config": [[]]}], 3, None):
        path = keras_file(tmp_path / "m.keras", content, layers)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^keras.load: ") as caught, bounded():
            fr.keras.load(path)
        assert len(str(caught.value)) < 1300
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "[" * 100_000)
    with pytest.raises(ValueError, match=r"too deeply"):
        fr.keras.load(tmp_path / "m.keras")


@pytest.mark.parametrize("load", [lambda path: fr.keras.load(path), lambda path: fr.onnx.load(path)])
def test_a_pipe_is_not_waited_for(load: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is not a regular file"):
        load(tmp_path / "pipe")
    with pytest.raises(OSError):
        load(tmp_path)


# ----------------------------------------------------------------------------------------------------------- ONNX


def model(nodes: list[Any], tensors: list[Any] = [], functions: list[Any] = []) -> Any:  # noqa: B006
    """Return a model of one RNN of 4 units, whose weights W and R the nodes or tensors are to make."""
    rnn = helper.make_node("RNN", ["x", "W", "R"], ["y"], "rnn", hidden_size=4)
    graph = helper.make_graph(
        [*nodes, rnn],
        "g",
        [helper.make_tensor_value_info("x", 1, ["t", "b", 3])],
        [helper.make_tensor_value_info("y", 1, ["t", 1, "b", 4])],
        [*tensors, from_array(np.ones((1, 4, 4), "f4"), "R")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)


def ones(*shape: int, name: str) -> Any:
    return from_array(np.ones(shape, "f4"), name)


def numbers(*values: int, name: str) -> Any:
    return from_array(np.array(values, np.int64), name)


def test_the_plain_model_is_read() -> None:
    for proto in (
        model([], [ones(1, 4, 3, name="W")]),
        model([helper.make_node("Neg", ["V"], ["W"])], [ones(1, 4, 3, name="V")]),
    ):
        assert isinstance(fr.onnx.load(proto), fr.RNN)
        assert list(fr.onnx.layers(proto)) == ["rnn"]


def doublings(count: int) -> list[Any]:
    nodes = [helper.make_node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(count)]
    return [*nodes, helper.make_node("Identity", [f"v{count}"], ["W"])]


def functions_in_functions(depth: int) -> tuple[list[Any], list[Any]]:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]

    def function(i: int) -> Any:
        called = [f"f{i + 1}", f"f{i + 1}"] if i + 1 < depth else ["Neg", "Neg"]
        domain = "own" if i + 1 < depth else ""
        nodes = [helper.make_node(called[k], ["abc"[k]], ["abc"[k + 1]], domain=domain) for k in range(2)]
        return helper.make_function("own", f"f{i}", ["a"], ["c"], nodes, imports)

    return [helper.make_node("f0", ["V"], ["W"], domain="own")], [function(i) for i in range(depth)]


SMALL = ones(1, 4, 3, name="V")
HOSTILE: dict[str, tuple[Any, ...]] = {
    "constant of a huge shape": (
        [helper.make_node("ConstantOfShape", ["s"], ["W"])],
        [numbers(2**20, 2**20, name="s")],
    ),
    "expanded": ([helper.make_node("Expand", ["V", "s"], ["W"])], [SMALL, numbers(2**30, 4, 3, name="s")]),
    "tiled": ([helper.make_node("Tile", ["V", "s"], ["W"])], [SMALL, numbers(2**20, 2**10, 1, name="s")]),
    "a range": (
        [helper.make_node("Range", ["a", "b", "c"], ["W"])],
        [from_array(np.array(v, "f4"), n) for n, v in (("a", 0), ("b", 1e12), ("c", 1))],
    ),
    "an outer product": (
        [helper.make_node("Mul", ["a", "b"], ["W"])],
        [ones(100_000, 1, name="a"), ones(1, 100_000, name="b")],
    ),
    "doubled": (doublings(40), [from_array(np.ones((1, 4, 3), "f4"), "v0")]),
    "padded": (
        [helper.make_node("Pad", ["V", "s"], ["W"])],
        [SMALL, numbers(0, 0, 0, 2**20, 2**20, 0, name="s")],
    ),
    "one-hot": (
        [helper.make_node("OneHot", ["i", "s", "u"], ["W"])],
        [numbers(1, name="i"), numbers(2**40, name="s"), from_array(np.array([0, 1], "f4"), "u")],
    ),
    "texts": (
        [helper.make_node("Constant", [], ["W"], value=helper.make_tensor("t", 8, [2], [b"a", b"b"]))],
        [],
    ),
    "a shape of negative sizes": ([helper.make_node("Reshape", ["V", "s"], ["W"])], [SMALL, numbers(-5, -1, name="s")]),
    "sizes without bytes": ([], [onnx.TensorProto(name="W", data_type=1, dims=[2**31, 2**31])]),
    "random": ([helper.make_node("RandomNormal", [], ["W"], shape=[2**20, 2**20])], []),
    "long names": ([helper.make_node("Neg", ["z" * 500_000], ["W"], name="n" * 500_000)], []),
    "its own operand": ([helper.make_node("Neg", ["W"], ["W"])], []),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_models_that_ask_for_much(name: str) -> None:
    content = model(*HOSTILE[name]).SerializeToString()
    for load in (fr.onnx.load, fr.onnx.layers):
        with pytest.raises(ValueError, match=r"^onnx\.(load|layers): ") as caught, bounded():
            load(content)
        assert len(str(caught.value)) < 1300


def test_functions_that_call_functions_twice() -> None:
    nodes, functions = functions_in_functions(3)
    assert isinstance(fr.onnx.load(model(nodes, [SMALL], functions)), fr.RNN)
    for depth in (30, 60):
        nodes, functions = functions_in_functions(depth)
        content = model(nodes, [SMALL], functions).SerializeToString()
        with pytest.raises(ValueError, match="100 times"), bounded():
            fr.onnx.load(content)


def test_weights_of_many_nodes() -> None:
    """A tensor of 4 MB that 3,000 nodes have as their weights; a chain of 3,000 functions."""
    graph = model([], [ones(1, 4, 250_000, name="W")])
    for index in range(3000):
        graph.graph.node.append(helper.make_node("RNN", ["x", "W", "R"], [f"y{index}"], hidden_size=4))
    with pytest.raises(ValueError, match="100 times"), bounded(1500, 60):
        fr.onnx.layers(graph.SerializeToString())
    chain = [helper.make_node("Relu", [f"y{i}" if i else "y"], [f"y{i + 1}"]) for i in range(3000)]
    graph = model([], [ones(1, 4, 3, name="W")])
    graph.graph.node.extend(chain)
    graph.graph.output[0].name = "y3000"
    with pytest.raises(ValueError, match="more than 1000 layers"), bounded():
        fr.onnx.load(graph.SerializeToString())


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "pipe", "nothing", ""])
def test_bytes_outside_of_the_folder(location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    for place in (tmp_path, folder):
        (place / "secret").write_bytes(np.ones(12, "f4").tobytes())
    monkeypatch.chdir(folder)

    def content(where: str) -> bytes:
        tensor = onnx.TensorProto(name="W", data_type=1, dims=[1, 4, 3], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=where)
        return bytes(model([], [tensor]).SerializeToString())

    (folder / "m.onnx").write_bytes(content("secret"))
    assert fr.onnx.load(folder / "m.onnx").params["weight_ih_l0"].all()
    with pytest.raises(ValueError, match="expected a file beside"):  # which bytes have none
        fr.onnx.load(content("secret"))
    (folder / "m.onnx").write_bytes(content(location))
    with pytest.raises((ValueError, OSError)):
        fr.onnx.load(folder / "m.onnx")


@pytest.mark.parametrize("seed", range(4))
def test_mutated_models(seed: int) -> None:
    """Whatever bytes are wrong, a model is read or refused."""
    layers = [fr.GRU(3, 5, 2, bidirectional=True, seed=1), fr.LSTM(3, 4, seed=0), fr.RNN(2, 3, seed=0)]
    rng = np.random.default_rng(int(os.environ.get("FUSEDRNN_SEED", "0")) * 100 + seed)
    protos = [*map(fr.onnx.export, layers), model([helper.make_node("Neg", ["V"], ["W"])], [SMALL])]
    whole = [proto.SerializeToString() for proto in protos]
    read = 0
    for round_ in range(int(os.environ.get("FUSEDRNN_TRIES", "40"))):
        broken = bytearray(whole[round_ % len(whole)])
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(broken)))
            broken[at : at + int(rng.integers(3))] = rng.bytes(int(rng.integers(3)))
        for load in (fr.onnx.load, fr.onnx.layers):
            try:
                load(bytes(broken))
                read += 1
            except ValueError as error:
                assert str(error).startswith("onnx."), error
    assert read
