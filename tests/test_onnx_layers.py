"""``fusedrnn.onnx.layers``: every recurrent node of ONNX becomes a layer that computes the same, or a named error."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from onnx_nodes import LACKING, Node, as_onnx, random_node, session  # noqa: E402
from scripts import run_python  # noqa: E402

TOLERANCE = 1e-5
# What messages call the arguments that a layer may lack.
NAMED = {
    "reset_after": "linear_before_reset",
    "peephole": "input P",
    "coupled": "input_forget",
    "clip": "clip",
    "activations": "activations",
}


# ONNX's own collection: every node test of the three operators.
STANDARD = [
    *("test_simple_rnn_defaults", "test_simple_rnn_with_initial_bias", "test_rnn_seq_length"),
    *("test_simple_rnn_batchwise", "test_simple_rnn_reverse", "test_simple_rnn_bidirectional"),
    *("test_lstm_defaults", "test_lstm_with_initial_bias", "test_lstm_with_peepholes"),
    *("test_lstm_batchwise", "test_lstm_reverse", "test_lstm_bidirectional"),
    *("test_gru_defaults", "test_gru_with_initial_bias", "test_gru_seq_length"),
    *("test_gru_batchwise", "test_gru_reverse", "test_gru_bidirectional"),
]


@pytest.fixture(scope="module")
def collection() -> dict[str, Any]:
    """The node tests by name."""
    from onnx.backend.test.case import node

    for name in ("rnn", "lstm", "gru"):  # collect_testcases would make those of all operators on the way
        import_module(f"{node.__name__}.{name}")
    return {case.name: case for case in node._NodeTestCases}


def refused(needs: set[str]) -> str:
    """Return the pattern of the error for what is lacking."""
    return "node .*(" + "|".join(re.escape(NAMED[each]) for each in sorted(needs)) + ")"


def only(layers: dict[str, Any]) -> Any:
    (layer,) = layers.values()
    return layer


def check(actual: list[Any], expected: list[Any], what: object) -> None:
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape, what
        assert np.abs(ours - theirs).max(initial=0) <= TOLERANCE * max(1, np.abs(theirs).max(initial=0)), what


def test_the_collection_has_no_others(collection: dict[str, Any]) -> None:
    assert set(STANDARD) <= set(collection)
    if onnx.__version__.startswith("1.23"):
        assert set(STANDARD) == set(collection)


@pytest.mark.parametrize("name", STANDARD)
def test_node_of_the_standard(collection: dict[str, Any], name: str) -> None:
    """Every node test of ONNX's own collection, its weights given as constants."""
    case = collection[name]
    node = case.model.graph.node[0]
    inputs, outputs = case.data_sets[0]
    by_role = dict(zip(("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"), node.input, strict=False))
    values = dict(zip((each for each in node.input if each), inputs, strict=True))
    weights = {by_role[name]: values[by_role[name]] for name in ("W", "R", "B", "P") if by_role.get(name)}
    before = [each.i for each in node.attribute if each.name == "linear_before_reset"]
    needs = {"reset_after"} if node.op_type == "GRU" and not any(before) else set()
    needs |= {"peephole"} if "P" in by_role else set()
    if needs & LACKING:
        with pytest.raises(ValueError, match=refused(needs & LACKING)):
            fr.onnx.layers(case.model, constants=weights)
        return
    layer = only(fr.onnx.layers(case.model, constants=weights))
    h, c = (values.get(by_role.get(name, "")) for name in ("initial_h", "initial_c"))
    y, state = layer(values["X"], (h, c) if node.op_type == "LSTM" else h, values.get(by_role.get("sequence_lens", "")))
    ours = as_onnx(layer, y, state)
    named = [output for output, name in zip(ours, node.output, strict=False) if name]
    check(named, outputs, case.name)


@pytest.mark.parametrize("block", range(10))
def test_random_nodes(block: int) -> None:
    """500 nodes of random sizes, inputs and attributes against ONNX Runtime."""
    ran = 0
    for seed in range(50 * block, 50 * block + 50):
        node = random_node(seed, plain=seed % 2 == 0)
        model = node.model()
        if node.needs & LACKING:
            with pytest.raises(ValueError, match=refused(node.needs & LACKING)):
                fr.onnx.layers(model)
            continue
        ran += 1
        layer = fr.onnx.layers(model)["the node"]
        y, state = layer(node.inputs["X"], node.state(), node.inputs.get("sequence_lens"))
        check(as_onnx(layer, y, state), session(model).run(None, node.fed()), (seed, node.op, node.attributes))
    assert ran >= 20


def test_layout_one_is_batch_first() -> None:
    node = random_node(3, plain=True)
    time_major = only(fr.onnx.layers(node.model()))
    node.attributes["layout"] = 1
    batch_major = only(fr.onnx.layers(node.model()))
    assert batch_major.batch_first and not time_major.batch_first
    x = node.inputs["X"]
    np.testing.assert_array_equal(batch_major(x.swapaxes(0, 1))[0], time_major(x)[0].swapaxes(0, 1))


def test_float64_stays() -> None:
    node = random_node(4, plain=True)
    node.inputs = {name: value.astype(np.float64) for name, value in node.inputs.items()}
    layer = only(fr.onnx.layers(node.model(baked=("W", "R", "B", "P"))))
    assert layer.dtype == np.float64


def folded(node: Node, nodes: list[Any], tensors: dict[str, Any], opset: int = 13) -> Any:
    """Return the layer of a node whose W, R and B other nodes compute."""
    model = node.model(baked=("B",), opset=opset)
    graph = model.graph
    kept = [each for each in graph.input if each.name not in ("W", "R", "B")]
    del graph.input[:]
    graph.input.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tensors.items())
    last = graph.node.pop()
    graph.node.extend([*nodes, last])
    return only(fr.onnx.layers(model))


def lstm_node() -> Node:
    return next(n for n in (random_node(seed, plain=True) for seed in range(99)) if n.op == "LSTM" and "B" in n.inputs)


def test_weights_are_followed_to_their_constants() -> None:
    """Slice, Concat, Transpose, Unsqueeze, Squeeze, Reshape, Cast, Identity, Split, Gather and Constant."""
    node = lstm_node()
    plain = only(fr.onnx.layers(node.model()))
    w, r = node.inputs["W"], node.inputs["R"]
    halves = np.array_split(w.transpose(2, 1, 0), 2, axis=1)
    tensors = {
        "top": halves[0],
        "rest": np.concatenate([halves[1], halves[1]], axis=1),
        "from": np.array([0]),
        "to": np.array([halves[1].shape[1]]),
        "one": np.array([1]),
        "flat": r.astype(np.float64).reshape(1, -1),
        "shape": np.array(r.shape),
        "zero": np.array([0]),
        "pair": np.stack([r * 0, r], axis=-1),
    }
    nodes = [
        helper.make_node("Slice", ["rest", "from", "to", "one"], ["bottom"]),
        helper.make_node("Concat", ["top", "bottom"], ["wt"], axis=1),
        helper.make_node("Transpose", ["wt"], ["w1"], perm=[2, 1, 0]),
        helper.make_node("Identity", ["w1"], ["W"]),
        helper.make_node("Squeeze", ["flat", "zero"], ["flat1"]),
        helper.make_node("Reshape", ["flat1", "shape"], ["r64"]),
        helper.make_node("Cast", ["r64"], ["r32"], to=TensorProto.FLOAT),
        helper.make_node("Split", ["pair"], ["nothing", "r4"], axis=-1),
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32(0.5))),
        helper.make_node("Gather", ["r4", "first"], ["r3"], axis=-1),
        helper.make_node("Add", ["r32", "r3"], ["sum"]),
        helper.make_node("Mul", ["sum", "half"], ["R"]),
    ]
    layer = folded(node, nodes, {**tensors, "first": np.array(0)})
    for name, value in plain.params.items():
        np.testing.assert_array_equal(layer.params[name], value, err_msg=name)


def test_quantised_weights_are_converted_back() -> None:
    node = lstm_node()
    w = node.inputs["W"]
    scale = np.float32(np.abs(w).max() / 127)
    whole = np.round(w / scale).astype(np.int8)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["W"]),
        helper.make_node("Identity", ["r"], ["R"]),
    ]
    layer = folded(node, nodes, {"q": whole, "scale": scale, "zero": np.int8(0), "r": node.inputs["R"]})
    plain = only(fr.onnx.layers(node.model()))
    np.testing.assert_allclose(layer.params["weight_ih_l0"], plain.params["weight_ih_l0"], atol=scale)
    assert not np.array_equal(layer.params["weight_ih_l0"], plain.params["weight_ih_l0"])


def test_dynamically_quantised_lstm(tmp_path: Path) -> None:
    """ONNX Runtime's own 8-bit LSTM agrees to the coarseness of its numbers, and the conversion is said."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    node = lstm_node()
    node.inputs.pop("sequence_lens", None)
    onnx.save(node.model(), tmp_path / "plain.onnx")
    quantization.quantize_dynamic(tmp_path / "plain.onnx", tmp_path / "small.onnx", op_types_to_quantize=["LSTM"])
    model = onnx.load(tmp_path / "small.onnx")
    assert [each.op_type for each in model.graph.node] == ["DynamicQuantizeLSTM"]
    with pytest.warns(UserWarning, match="converted to float32"):
        layer = only(fr.onnx.layers(tmp_path / "small.onnx"))
    y, state = layer(node.inputs["X"], node.state())
    plain = only(fr.onnx.layers(node.model()))
    for name, value in plain.params.items():
        assert np.abs(layer.params[name] - value).max() <= np.abs(value).max() / 100, name
    for ours, theirs in zip(as_onnx(layer, y, state), session(model).run(None, node.fed()), strict=True):
        assert np.abs(ours - theirs).max() <= 0.05  # it also rounds x and h to 8 bits


def nested(node: Node) -> Any:
    """Return a model with the node in both branches of an If, its weights outside."""
    inner = node.model()
    call = inner.graph.node[0]
    call.name = "cell"
    branch = helper.make_graph([call], "branch", [], [inner.graph.output[0]])
    choice = helper.make_node("If", ["condition"], ["out"], name="choice", then_branch=branch, else_branch=branch)
    condition = helper.make_tensor_value_info("condition", TensorProto.BOOL, [])
    graph = helper.make_graph(
        [choice], "outer", [condition, *inner.graph.input], [inner.graph.output[0]], inner.graph.initializer
    )
    return helper.make_model(graph, opset_imports=inner.opset_import)


def test_nodes_inside_branches() -> None:
    node = random_node(6, plain=True)
    layers = fr.onnx.layers(nested(node))
    assert set(layers) == {"choice/then_branch/cell", "choice/else_branch/cell"}
    for layer in layers.values():
        np.testing.assert_array_equal(
            layer(node.inputs["X"])[0], only(fr.onnx.layers(node.model()))(node.inputs["X"])[0]
        )


def test_names_of_nodes_without_one() -> None:
    node = random_node(8, plain=True)
    node.name = ""
    assert list(fr.onnx.layers(node.model())) == ["Y"]


def test_sources(tmp_path: Path) -> None:
    model = random_node(2, plain=True).model()
    onnx.save(model, tmp_path / "m.onnx")
    first = only(fr.onnx.layers(model))
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), model.SerializeToString()):
        np.testing.assert_array_equal(only(fr.onnx.layers(source)).params["weight_hh_l0"], first.params["weight_hh_l0"])
    assert not model.functions and len(model.graph.node) == 1  # a model that is given stays as it is


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda node: node.attributes.update(direction="sideways"), "attribute direction is 'sideways'"),
        (lambda node: node.attributes.update(layout=2), "attribute layout is 2"),
        (lambda node: node.attributes.update(volume=11), "attribute volume is unknown"),
        (lambda node: node.attributes.update(hidden_size=1000), "R has shape"),
        (lambda node: node.attributes.update(activations=["Sine"]), "attribute activations has "),
        (lambda node: node.inputs.update(W=node.inputs["W"][:, :-1]), "W has shape"),
        (lambda node: node.inputs.update(B=np.zeros((1, 3), np.float32)), "B has shape"),
    ],
)
def test_errors_name_node_and_attribute(change: Any, message: str) -> None:
    node = random_node(0, plain=True)
    change(node)
    with pytest.raises(ValueError, match=rf"onnx.layers: node 'the node' \(\w+\): .*{message}"):
        fr.onnx.layers(node.model())


def test_weights_that_are_inputs() -> None:
    node = random_node(0, plain=True)
    with pytest.raises(ValueError, match=r"node 'the node'.*[RW] is not constant"):
        fr.onnx.layers(node.model(baked=()))
    weights = {name: node.inputs[name] for name in ("W", "R", "B") if name in node.inputs}
    given = only(fr.onnx.layers(node.model(baked=()), constants=weights))
    np.testing.assert_array_equal(
        given.params["weight_hh_l0"], only(fr.onnx.layers(node.model())).params["weight_hh_l0"]
    )
    with pytest.raises(ValueError, match="constants has 'V'"):
        fr.onnx.layers(node.model(), constants={"V": np.zeros(1)})


def test_constant_initial_state_is_told() -> None:
    node = next(n for n in (random_node(seed, plain=True) for seed in range(99)) if "initial_h" in n.inputs)
    with pytest.warns(UserWarning, match="node 'the node'.*initial_h is a constant"):
        fr.onnx.layers(node.model(baked=("W", "R", "B", "initial_h")))


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"onnx.layers: 4 bytes: not a model"):
        fr.onnx.layers(b"\xff\xff\xff\xff")
    with pytest.raises(TypeError, match=r"onnx.layers: path is an int"):
        fr.onnx.layers(7)  # type: ignore[arg-type]
    with pytest.raises(OSError):
        fr.onnx.layers(tmp_path / "nothing.onnx")
    with pytest.raises(ValueError, match="no nodes"):
        fr.onnx.layers(b"")


def test_import_brings_in_no_onnx() -> None:
    run_python("import sys, fusedrnn; assert not {'onnx', 'h5py'} & sys.modules.keys(); fusedrnn.onnx.layers")
