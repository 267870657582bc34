"""ONNX Runtime: one LSTM, GRU or RNN node a layer, CPU provider, session.run with NumPy arrays. Inference only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from cases import Array, Case, Problem
from peers import Runner, reorder_gates

# Position in torch's order (i f g o; r z n) of ONNX's gates (i o f c; z r h).
_GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
_threads = 1


def configure(threads: int) -> None:
    global _threads
    _threads = threads


def refuses(case: Case) -> str | None:
    if case.kind == "training":
        return "inference only"
    return None if case.dtype == "float32" else f"no {case.dtype}"


def _session(model: Any, options: Any) -> Any:
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def build(case: Case, problem: Problem, session_of: Callable[[Any, Any], Any] = _session) -> Runner:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads
    options.inter_op_num_threads = 1
    model = _model(case, problem)
    session = session_of(model, options)
    if case.kind == "streaming":
        return _streaming(case, problem, session)

    feeds = {"x": problem.x}
    if problem.lengths is not None:
        feeds["lengths"] = problem.lengths.astype(np.int32)

    def infer() -> Any:
        return session.run(None, feeds)

    return Runner(infer, lambda: {"y": infer()[0]})


def _streaming(case: Case, problem: Problem, session: Any) -> Runner:
    x_0 = problem.x[:1]
    zeros = np.zeros((1, case.B, case.H), np.float32)
    initial = {"h0": zeros} | ({"c0": zeros} if case.cell == "lstm" else {})
    state = initial

    def step(x_t: Array = x_0) -> Any:
        nonlocal state
        results = session.run(None, {"x": x_t, **state})
        state = dict(zip(initial, results, strict=True))
        return results

    def steps() -> dict[str, Array]:
        nonlocal state
        state = initial
        return {"h": np.stack([step(problem.x[i : i + 1])[0][0] for i in range(len(problem.x))])}

    return Runner(step, steps)


def _model(case: Case, problem: Problem) -> Any:
    """Chain one recurrent node a layer; Y (T, directions, B, H) becomes (T, B, directions*H) in between."""
    nodes: list[Any] = []
    streaming = case.kind == "streaming"
    constants = [] if streaming else [numpy_helper.from_array(np.array([0, 0, -1], np.int64), "merge")]
    attributes: dict[str, Any] = {"hidden_size": case.H}
    if case.bidirectional:
        attributes["direction"] = "bidirectional"
    if case.cell == "gru":
        attributes["linear_before_reset"] = 1
    lengths = "lengths" if case.valid < 1 else ""
    tensor = "x"
    for layer in range(case.layers):
        operands = _operands(case, problem, layer)
        constants += [numpy_helper.from_array(array, f"{name}{layer}") for name, array in operands.items()]
        inputs = [tensor, *(f"{name}{layer}" for name in operands), lengths]
        inputs += (["h0", "c0"] if case.cell == "lstm" else ["h0"]) if streaming else []
        outputs = ["", "h", "c"][: 3 if case.cell == "lstm" else 2] if streaming else [f"Y{layer}"]
        nodes.append(helper.make_node(case.cell.upper(), inputs, outputs, **attributes))
        if not streaming:
            tensor = "y" if layer == case.layers - 1 else f"y{layer}"
            nodes.append(helper.make_node("Transpose", [f"Y{layer}"], [f"Z{layer}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"Z{layer}", "merge"], [tensor]))

    def declare(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    states = ("h", "c") if case.cell == "lstm" else ("h",)
    feeds = [declare("x", case.T, case.B, case.I)]
    if lengths:
        feeds.append(declare("lengths", case.B, kind=TensorProto.INT32))
    if streaming:
        feeds += [declare(f"{name}0", 1, case.B, case.H) for name in states]
        results = [declare(name, 1, case.B, case.H) for name in states]
    else:
        results = [declare("y", case.T, case.B, case.directions * case.H)]
    graph = helper.make_graph(nodes, case.cell, feeds, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _operands(case: Case, problem: Problem, layer: int) -> dict[str, Array]:
    """Return W, R (directions, G*H, ...) and B (directions, 2*G*H), input bias first, of one layer."""
    order = _GATE_ORDER[case.cell]
    suffixes = [suffix for at, suffix in case.parameter_names() if at == layer]

    def stack(stem: str) -> Array:
        return np.stack([reorder_gates(problem.weights[f"{stem}_{suffix}"], order) for suffix in suffixes])

    bias = np.concatenate([stack("bias_ih"), stack("bias_hh")], axis=1)
    return {"W": stack("weight_ih"), "R": stack("weight_hh"), "B": bias}
