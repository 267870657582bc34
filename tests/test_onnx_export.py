"""``fusedrnn.onnx.export``: other runtimes compute the same, for any batch, time and lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.layers.base import Layer
from fusedrnn.models import Residual, SequenceToSequence, SequenceToVector

onnx = pytest.importorskip("onnx")
from fusedrnn.onnx.attributes import attributes_of, node_attributes, options_of  # noqa: E402
from onnx_nodes import random_node, session  # noqa: E402

TOLERANCE = 1e-5
LENGTHS = np.array([5, 0, 9, 1], np.int32)
INPUTS, H = 3, 7


def lstm(**options: Any) -> fr.LSTM:
    return fr.LSTM(INPUTS, H, **({"seed": 1, "init": "torch"} | options))


def gru(**options: Any) -> fr.GRU:
    return fr.GRU(INPUTS, H, **({"seed": 2, "init": "torch"} | options))


def rnn(**options: Any) -> fr.RNN:
    return fr.RNN(INPUTS, H, **({"seed": 3, "init": "torch"} | options))


def tokens() -> fr.Embedding:
    return fr.Embedding(11, INPUTS, seed=4)


MODELS: dict[str, Any] = {
    "lstm": lstm,
    "stack": lambda: lstm(num_layers=3, bidirectional=True, dropout=0.5),
    "no bias": lambda: gru(num_layers=2, bias=False),
    "time first": lambda: gru(bidirectional=True, batch_first=False),
    "relu": lambda: rnn(nonlinearity="relu"),
    "tanh": lambda: rnn(bidirectional=True),
    "concat": lambda: fr.Bidirectional(lstm(num_layers=2), seed=5),
    "sum": lambda: fr.Bidirectional(gru(), "sum", seed=5),
    "mul": lambda: fr.Bidirectional(rnn(), "mul", seed=5),
    "ave": lambda: fr.Bidirectional(lstm(), "ave", seed=5),
    "sequential": lambda: fr.Sequential(lstm(), fr.Dropout(0.5), fr.Linear(H, 4, seed=6), fr.Activation("softmax")),
    "linear in front": lambda: fr.Sequential(
        fr.Linear(INPUTS, INPUTS, seed=6), fr.Activation("tanh"), gru(), rnn_on(H)
    ),
    "time first sequential": lambda: fr.Sequential(fr.Linear(INPUTS, INPUTS, seed=6), gru(batch_first=False)),
    "embedding in front": lambda: fr.Sequential(tokens(), gru(), fr.Linear(H, 2, bias=False, seed=6)),
    "to sequence": lambda: SequenceToSequence(lstm(bidirectional=True), 4, seed=6),
    "tagger": lambda: SequenceToSequence(gru(), 4, embedding=tokens(), seed=6),
    "to vector": lambda: SequenceToVector(lstm(num_layers=2), 4, seed=6),
    "last of both": lambda: SequenceToVector(gru(bidirectional=True), 4, embedding=tokens(), seed=6),
    "last of Bidirectional": lambda: SequenceToVector(fr.Bidirectional(lstm(num_layers=2), seed=5), 4, seed=6),
    "last step": lambda: SequenceToVector(fr.Sequential(gru(), rnn_on(H)), 4, seed=6),
    "mean": lambda: SequenceToVector(lstm(), fr.Sequential(fr.Linear(H, 2, seed=6)), pooling="mean"),
    "max": lambda: SequenceToVector(gru(bidirectional=True), 4, pooling="max", seed=6),
    "inside": lambda: fr.Sequential(
        fr.Linear(INPUTS, INPUTS, seed=6), SequenceToVector(lstm(), 4, seed=7), fr.Linear(4, 2, seed=8)
    ),
}


def rnn_on(size: int) -> fr.RNN:
    return fr.RNN(size, 4, seed=9)


def data(model: Layer, batch: int, steps: int) -> Any:
    rng = np.random.default_rng(0)
    if any(isinstance(layer, fr.Embedding) for layer in model.layers()):
        return rng.integers(0, 11, (batch, steps))
    time_major = any(not getattr(layer, "batch_first", True) for layer in model.layers())
    return rng.normal(size=(steps, batch, INPUTS) if time_major else (batch, steps, INPUTS)).astype(np.float32)


def flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, tuple):
        return [each for part in outputs for each in flat(part)]
    return [outputs]


def assert_close(ours: list[Any], theirs: list[Any]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max(initial=0) <= TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_other_runtimes_compute_the_same(name: str, tmp_path: Path) -> None:
    """With and without lengths, in batches and of steps of any number, from one file."""
    model = MODELS[name]()
    fr.onnx.export(model, tmp_path / "m.onnx")
    current = session(str(tmp_path / "m.onnx"))
    assert [each.name for each in current.get_inputs()] == ["x"]
    for batch, steps in ((4, 9), (1, 1), (2, 30)):
        x = data(model, batch, steps)
        assert_close(flat(model(x)), current.run(None, {"x": x}))
    x = data(model, 4, 9)
    assert_close(flat(model(x, lengths=LENGTHS)), current.run(None, {"x": x, "lengths": LENGTHS}))


@pytest.mark.parametrize("name", MODELS)
def test_without_lengths(name: str) -> None:
    model = MODELS[name]()
    current = session(fr.onnx.export(model, lengths=False))
    x = data(model, 4, 9)
    assert_close(flat(model(x)), current.run(None, {"x": x}))
    assert "lengths" not in {each.name for each in current.get_overridable_initializers()}


@pytest.mark.parametrize("name", MODELS)
def test_every_constant_is_read(name: str) -> None:
    """ONNX Runtime warns of others."""
    for lengths in (True, False):
        graph = fr.onnx.export(MODELS[name](), lengths=lengths).graph
        read = {each for node in graph.node for each in node.input}
        assert {each.name for each in graph.initializer} <= read


@pytest.mark.parametrize("name", ["lstm", "stack", "time first", "tanh", "concat", "sum"])
def test_states(name: str) -> None:
    model = MODELS[name]()
    x = data(model, 4, 9)
    zero = flat(model(x)[1])
    rng = np.random.default_rng(1)
    start = [rng.normal(0, 0.5, part.shape).astype(np.float32) for part in zero]
    current = session(fr.onnx.export(model))
    names = [each.name for each in current.get_overridable_initializers() if each.name != "lengths"]
    # h and c of an LSTM come in this order, of both directions one after the other.
    state: Any = (
        start[0] if len(start) == 1 else tuple(start) if len(start) == 2 else (tuple(start[:2]), tuple(start[2:]))
    )
    order = ["h0", "c0", "h0_reverse", "c0_reverse"] if len(start) == 4 else None
    order = order or (["h0", "h0_reverse"] if "h0_reverse" in names else ["h0", "c0"])
    assert sorted(names) == sorted(order[: len(start)])
    feeds = dict(zip(order, start, strict=False))
    assert_close(flat(model(x, state)), current.run(None, {"x": x, **feeds}))


@pytest.mark.parametrize(
    "name", ["lstm", "stack", "no bias", "relu", "sequential", "tagger", "last of both", "to vector"]
)
def test_what_was_written_can_be_read(name: str) -> None:
    model = MODELS[name]()
    again = fr.onnx.load(fr.onnx.export(model))
    x = data(model, 4, 9)
    assert_close(flat(model(x)), flat(again(x)))
    ours, theirs = (flat(each(x, lengths=LENGTHS))[0] for each in (model, again))
    valid = np.arange(9) < LENGTHS[:, None] if ours.ndim == 3 else slice(None)
    assert_close([ours[valid]], [theirs[valid]])


def test_reversed_layer() -> None:
    layer = lstm().reversed_copy(seed=7)
    x = data(layer, 4, 9)
    current = session(fr.onnx.export(layer))
    assert_close(flat(layer(x, lengths=LENGTHS)), current.run(None, {"x": x, "lengths": LENGTHS}))


def test_float64_is_written_as_such() -> None:
    model = fr.onnx.export(lstm(dtype="float64"))
    assert {each.type.tensor_type.elem_type for each in model.graph.output} == {onnx.TensorProto.DOUBLE}


@pytest.mark.parametrize("seed", range(60))
def test_attributes_of_variants_come_back(seed: int) -> None:
    """What the importer asks of a layer is what the exporter writes for a layer with it."""
    node = random_node(seed)
    made = node.model().graph.node[0]
    values = attributes_of("here", made, 17)
    options = {name: option.value for name, option in options_of("here", node.op, values).items()}
    config = {"hidden_size": 5, "bidirectional": node.directions == 2, **options}
    config |= {"reverse": True} if values["direction"] == "reverse" else {}
    written = onnx.helper.make_node(node.op, ["X", "W", "R"], ["Y"], **node_attributes(node.op, config))
    again = options_of("here", node.op, attributes_of("here", written, 17))
    assert {name: option.value for name, option in again.items()} == options


def test_what_cannot_be_written() -> None:
    with pytest.raises(TypeError, match=r"onnx.export: Residual cannot be written"):
        fr.onnx.export(Residual(gru()))
    with pytest.raises(TypeError, match="merge=None"):
        fr.onnx.export(fr.Bidirectional(gru(), None))
    with pytest.raises(ValueError, match="LSTM has proj_size=3, which ONNX cannot say"):
        node_attributes("LSTM", {"hidden_size": 5, "bidirectional": False, "proj_size": 3})
    with pytest.raises(TypeError, match="model is an int"):
        fr.onnx.export(3)  # type: ignore[arg-type]


VARIANTS: dict[str, Callable[[], Any]] = {
    "elu and a clip": lambda: fr.RNN(3, 5, activations=["elu"], clip=0.7, seed=0),
    "everything": lambda: fr.LSTM(
        3,
        5,
        2,
        bidirectional=True,
        peephole=True,
        coupled=True,
        clip=0.9,
        seed=0,
        activations=["hard_sigmoid", ("leaky_relu", 0.3), "softsign"],
    ),
    "peepholes": lambda: fr.LSTM(3, 5, peephole=True, seed=0),
    "other functions of a GRU": lambda: fr.GRU(3, 5, activations=[("hard_sigmoid", 1 / 6, 0.5), "softplus"], seed=0),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_written_and_read(name: str) -> None:
    layer = VARIANTS[name]()
    rng = np.random.default_rng(3)
    for key, array in layer.params.items():
        if "peephole" in key:
            array[...] = rng.normal(0.1, 0.6, array.shape)
    x = rng.normal(size=(4, 9, 3)).astype(np.float32)
    written = fr.onnx.export(layer)
    current = session(written)
    assert_close(flat(layer(x, lengths=LENGTHS)), current.run(None, {"x": x, "lengths": LENGTHS}))
    again = fr.onnx.load(written)
    assert_close(flat(layer(x)), flat(again(x)))
