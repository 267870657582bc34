"""Models of ONNX with one recurrent node, random attributes included, and what ONNX Runtime makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Array = NDArray[Any]

# Arguments of the layers' constructors that importers ask for and that no layer has yet. A case that needs one must be
# refused by name; one that needs none must agree with the other runtime. Empty it as the layers learn them.
LACKING: set[str] = set()

GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
POSITIONS = {"RNN": 1, "LSTM": 3, "GRU": 2}
USUAL = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
# Name: which of alpha and beta it takes.
ACTIVATIONS = {
    "Relu": 0,
    "Tanh": 0,
    "Sigmoid": 0,
    "Affine": 2,
    "LeakyRelu": 1,
    "ThresholdedRelu": 1,
    "ScaledTanh": 2,
    "HardSigmoid": 2,
    "Elu": 1,
    "Softsign": 0,
    "Softplus": 0,
}


@dataclass
class Node:
    """A recurrent node with its inputs, and the constructor's arguments that a layer needs to be it."""

    op: str
    attributes: dict[str, Any]
    inputs: dict[str, Array]  # by the operator's names, X included
    needs: set[str] = field(default_factory=set)
    name: str = "the node"

    @property
    def directions(self) -> int:
        return int(self.inputs["R"].shape[0])

    def model(self, *, baked: tuple[str, ...] = ("W", "R", "B", "P"), opset: int = 14) -> Any:
        """Return the model; the ``baked`` inputs are constants of it."""
        order = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
        order += ["initial_c", "P"] if self.op == "LSTM" else []
        names = [name if name in self.inputs else "" for name in order]
        outputs = ["Y", "Y_h", "Y_c"] if self.op == "LSTM" else ["Y", "Y_h"]
        node = helper.make_node(self.op, names, outputs, name=self.name, **self.attributes)
        kind = helper.np_dtype_to_tensor_dtype(self.inputs["X"].dtype)
        graph = helper.make_graph(
            [node],
            "one node",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in self.inputs.items()
                if name not in baked
            ],
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.inputs.items() if name in baked],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)

    def fed(self) -> dict[str, Array]:
        """Return the inputs that are no constants of ``model()``."""
        return {name: value for name, value in self.inputs.items() if name not in ("W", "R", "B", "P")}

    def state(self) -> Any:
        """Return the initial state as a layer takes it."""
        h, c = self.inputs.get("initial_h"), self.inputs.get("initial_c")
        return (h, c) if self.op == "LSTM" else h


def as_onnx(layer: Any, y: Array, state: Any) -> list[Array]:
    """Return what a layer returned as the outputs of the node."""
    batch_first, directions = layer.batch_first, layer.num_directions
    split = y.reshape(*y.shape[:2], directions, -1)
    y = split if batch_first else split.transpose(0, 2, 1, 3)
    parts = state if isinstance(state, tuple) else (state,)
    return [y, *(part.transpose(1, 0, 2) if batch_first else part for part in parts)]


def session(model: Any) -> Any:
    """Return a session of ONNX Runtime for a model, or its path."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(model if isinstance(model, str) else model.SerializeToString(), options)


def random_node(seed: int, *, plain: bool = False) -> Node:
    """Return a node of random sizes, inputs and attributes that ONNX Runtime can run; ``plain``: as torch writes."""
    rng = np.random.default_rng(seed)
    op = str(rng.choice(["RNN", "LSTM", "GRU"]))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions = 2 if direction == "bidirectional" else 1
    steps, batch, size, hidden = (int(rng.integers(1, most)) for most in (9, 5, 8, 20))
    gates = GATES[op]
    inputs = {
        "X": rng.normal(0, 1, (steps, batch, size)),
        "W": rng.normal(0, 0.6, (directions, gates * hidden, size)),
        "R": rng.normal(0, 0.5, (directions, gates * hidden, hidden)),
        "B": rng.normal(0, 0.5, (directions, 2 * gates * hidden)),
        "initial_h": rng.normal(0, 0.5, (directions, batch, hidden)),
        "initial_c": rng.normal(0, 0.5, (directions, batch, hidden)),
        "P": rng.normal(0, 0.5, (directions, 3 * hidden)),
    }
    if op != "LSTM":
        del inputs["initial_c"], inputs["P"]
    for name in ("B", "initial_h", "initial_c", "P"):
        if rng.random() < (1 if name == "P" and plain else 0.4):
            inputs.pop(name, None)
    arrays = {name: value.astype(np.float32) for name, value in inputs.items()}
    if rng.random() < 0.5:
        arrays["sequence_lens"] = rng.integers(1, steps + 1, batch).astype(np.int32)
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    node = Node(op, attributes, arrays)
    if "P" in arrays:
        node.needs.add("peephole")
    _random_attributes(rng, node, plain)
    return node


def _random_attributes(rng: np.random.Generator, node: Node, plain: bool) -> None:
    if node.op == "GRU":
        node.attributes["linear_before_reset"] = 1 if plain else int(rng.integers(2))
        if not node.attributes["linear_before_reset"]:
            node.needs.add("reset_after")
    if plain:
        return
    if node.op == "LSTM" and rng.random() < 0.3:
        node.attributes["input_forget"] = 1
        node.needs.add("coupled")
    if rng.random() < 0.3:
        node.attributes["clip"] = float(np.float32(rng.uniform(0.3, 2)))
        node.needs.add("clip")
    if rng.random() < 0.4:
        chosen = [str(rng.choice(list(ACTIVATIONS))) for _ in range(POSITIONS[node.op])]
        if rng.random() < 0.3:
            chosen = ["Relu"] if node.op == "RNN" else USUAL[node.op]
        node.attributes["activations"] = chosen * node.directions
        alphas = [float(np.float32(rng.uniform(0.1, 1))) for each in chosen if ACTIVATIONS[each] > 0]
        betas = [float(np.float32(rng.uniform(0.1, 1))) for each in chosen if ACTIVATIONS[each] > 1]
        if rng.random() < 0.7:
            node.attributes |= {"activation_alpha": alphas * node.directions} if alphas else {}
            node.attributes |= {"activation_beta": betas * node.directions} if betas else {}
        if chosen not in (USUAL[node.op], ["Relu"] if node.op == "RNN" else None):
            node.needs.add("activations")


__all__ = ["LACKING", "Node", "TensorProto", "as_onnx", "random_node", "session"]
