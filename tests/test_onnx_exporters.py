"""``fusedrnn.onnx.load`` on graphs as tf2onnx writes layers of Keras, of every opset, against ONNX Runtime."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from onnx_nodes import session  # noqa: E402

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
INPUTS, H = 3, 5
IR = {7: 3, 9: 4, 11: 6}  # the first that has the opset; 8 has all others but the last


class Graph:
    """A graph that grows, from x (N, T, I) to y."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.tensors: dict[str, Any] = {}
        self.rng = np.random.default_rng(opset)

    def add(self, op: str, *inputs: str, out: str, axes: list[int] | None = None, **attributes: Any) -> str:
        """Add a node; axes are an attribute before opset 13, an input from there on."""
        if axes is not None and self.opset < 13:
            attributes["axes"] = axes
        elif axes is not None:
            inputs = (*inputs, self.constant(np.array(axes), f"{out}_axes"))
        self.nodes.append(helper.make_node(op, inputs, [out], **attributes))
        return out

    def constant(self, value: Any, name: str) -> str:
        self.tensors[name] = np.asarray(value)
        return name

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(self.rng.normal(0, 0.4, shape).astype(np.float32), name)

    def model(self, rank: int) -> Any:
        tensors = [numpy_helper.from_array(value, name) for name, value in self.tensors.items()]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", "t", INPUTS))]
        if self.opset < 9:  # there a constant is an input with a value
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(self.nodes, "keras", inputs, [y], tensors)
        ir = IR.get(self.opset, 10 if self.opset > 20 else 8)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir)


def zeros(graph: Graph, how: str) -> str:
    """Zero states (1, N, H): as filled, tiled or expanded, or as old Keras has them: x * 0, summed and tiled."""
    if how == "x * 0":
        nothing = graph.add("Mul", "x", graph.constant(np.float32(0), "zero"), out="nothing")
        summed = graph.add("ReduceSum", nothing, out="summed", axes=[1, 2], keepdims=0)
        column = graph.add("Unsqueeze", summed, out="column", axes=[1])
        rows = graph.add("Tile", column, graph.constant(np.array([1, H]), "repeats"), out="rows")
    else:
        graph.add("Shape", "x", out="shape")
        graph.add("Gather", "shape", graph.constant(np.array([0]), "first"), out="count", axis=0)
        size = graph.constant(np.array([1 if how == "Tile" else H]), "size")
        graph.add("Concat", "count", size, out="of_state", axis=0)
        if how == "ConstantOfShape":
            rows = graph.add(how, "of_state", out="rows")
        elif how == "Expand * 0":
            graph.add("Expand", graph.constant(np.ones(1, np.float32), "one"), "of_state", out="ones")
            rows = graph.add("Mul", "ones", graph.constant(np.float32(0), "zero"), out="rows")
        else:
            value = np.zeros((1, H) if how == "Tile" else 1, np.float32)
            rows = graph.add(how, graph.constant(value, "value"), "of_state", out="rows")
    return graph.add("Unsqueeze", rows, out="start", axes=[0])


def of_keras(cell: str, opset: int, *, sequences: bool, both: bool = False, layers: int = 1, how: str = "") -> Any:
    """A model of Keras: layers, then a Dense with tanh."""
    graph, directions = Graph(opset), 1 + both
    x = graph.add("Transpose", "x", out="time_first", perm=[1, 0, 2])
    for index in range(layers):
        rows = GATES[cell] * H
        weights = [
            graph.weight(f"W{index}", directions, rows, directions * H if index else INPUTS),
            graph.weight(f"R{index}", directions, rows, H),
            graph.weight(f"B{index}", directions, 2 * rows),
        ]
        start = ["", *[zeros(graph, how)] * (1 + (cell == "LSTM"))][: 3 if how else 0] if how and not index else []
        options = {"hidden_size": H, "direction": "bidirectional" if both else "forward"}
        if cell == "GRU":
            options["linear_before_reset"] = 1
        node = helper.make_node(cell, [x, *weights, *start], [f"Y{index}", f"h{index}"], **options)
        graph.nodes.append(node)
        last = index + 1 == layers and not sequences
        name, axis = (f"h{index}", 0) if last else (f"Y{index}", 1)
        if both:
            parts = [f"{name}_a", f"{name}_b"]
            graph.nodes.append(
                helper.make_node("Split", [name], parts, axis=axis, **({"num_outputs": 2} if opset >= 18 else {}))
            )
            sides = [graph.add("Squeeze", part, out=f"{part}_", axes=[axis]) for part in parts]
            x = graph.add("Concat", *sides, out=f"{name}_joined", axis=1 if last else 2)
        else:
            x = graph.add("Squeeze", name, out=f"{name}_", axes=[axis])
    if sequences:
        x = graph.add("Transpose", x, out="batch_first", perm=[1, 0, 2])
    graph.add("MatMul", x, graph.weight("kernel", directions * H, 2), out="product")
    graph.add("Add", "product", graph.weight("bias", 2), out="sum")
    graph.add("Tanh", "sum", out="y")
    return graph.model(3 if sequences else 2)


def assert_same(model: Any) -> None:
    x = np.random.default_rng(0).normal(size=(4, 7, INPUTS)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours: Any = fr.onnx.load(model)
    expected = session(model).run(None, {"x": x})[0]
    assert np.abs(ours(x) - expected).max() <= 1e-5


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 22])
@pytest.mark.parametrize("cell", GATES)
def test_layers_of_keras(cell: str, opset: int) -> None:
    for sequences in (True, False):
        for both in (True, False):
            assert_same(of_keras(cell, opset, sequences=sequences, both=both, layers=2))


@pytest.mark.parametrize("opset", [9, 13, 21])
@pytest.mark.parametrize("how", ["ConstantOfShape", "Expand", "Expand * 0", "x * 0"])
def test_zero_states(how: str, opset: int) -> None:
    for cell in GATES:
        assert_same(of_keras(cell, opset, sequences=cell == "GRU", how=how))


def test_states_that_are_not_zero_are_no_zeros() -> None:
    model = of_keras("GRU", 17, sequences=True, how="x * 0")
    next(each for each in model.graph.initializer if each.name == "zero").CopyFrom(
        numpy_helper.from_array(np.float32(0.5), "zero")
    )
    with pytest.raises(ValueError, match=r"onnx.load: node 'nothing' \(Mul\) is no part of a chain"):
        fr.onnx.load(model)


def recurrent_node(model: Any) -> Any:
    return next(each for each in model.graph.node if each.op_type in GATES)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("hidden_size", 5.0, "attribute hidden_size has type FLOAT; expected INT"),
        ("clip", "a", "attribute clip has type STRING; expected FLOAT"),
        ("clip", 1, "attribute clip has type INT; expected FLOAT"),
        ("activations", [1.0, 2.0, 3.0], "attribute activations has type FLOATS; expected STRINGS"),
        ("activations", "Tanh", "attribute activations has type STRING; expected STRINGS"),
        ("direction", 3, "attribute direction has type INT; expected STRING"),
        ("layout", "1", "attribute layout has type STRING; expected INT"),
    ],
)
def test_attributes_of_another_type_are_named(attribute: str, value: Any, message: str) -> None:
    model = of_keras("LSTM", 17, sequences=True)
    node = recurrent_node(model)
    for index, each in reversed(list(enumerate(node.attribute))):
        if each.name == attribute:
            del node.attribute[index]
    node.attribute.append(helper.make_attribute(attribute, value))
    for read in (fr.onnx.load, fr.onnx.layers):
        with pytest.raises(ValueError, match=rf"node 'Y0' \(LSTM\): {message}"):
            read(model)


def test_attributes_of_other_operators_too() -> None:
    model = of_keras("LSTM", 17, sequences=True)
    model.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("perm", [1.0, 0.0, 2.0]))
    with pytest.raises(ValueError, match=r"\(Transpose\): attribute perm has type FLOATS; expected INTS"):
        fr.onnx.load(model)


def test_operators_of_other_domains_are_not_taken_for_those_of_onnx() -> None:
    for at, op in ((0, "Transpose"), (1, "LSTM"), (-1, "Tanh")):
        model = of_keras("LSTM", 17, sequences=True)
        model.graph.node[at].domain = "my.ops"
        with pytest.raises(ValueError, match=rf"\({op}\) is no part of a chain of layers: its domain is 'my.ops'"):
            fr.onnx.load(model)
    assert list(fr.onnx.layers(of_keras("LSTM", 17, sequences=True))) == ["Y0"]


def test_weights_in_another_file(tmp_path: Path) -> None:
    model = of_keras("LSTM", 17, sequences=True, both=True)
    path = tmp_path / "m.onnx"
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(onnx.load_from_string(model.SerializeToString()), path, **options)
    x = np.zeros((2, 4, INPUTS), np.float32)
    ours: Any = (fr.onnx.load(path), fr.onnx.load(model))
    np.testing.assert_array_equal(ours[0](x), ours[1](x))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises((ValueError, OSError), match=r"weights.bin"):
        fr.onnx.load(path)


def test_weights_of_16_bits() -> None:
    model = of_keras("GRU", 17, sequences=True)
    for tensor in list(model.graph.initializer):
        if tensor.name in ("W0", "R0", "B0"):
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{tensor.name}_half"))
            name = tensor.name.removesuffix("_half")
            model.graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    assert_same(model)
