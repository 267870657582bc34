"""Recurrent parts of trained ONNX files: the layer that ``fusedrnn.onnx`` makes of them beside ONNX Runtime.

    python bench/imported.py silero_vad_16k_sequence.onnx nsnet2-20ms-baseline.onnx

Each recurrent node is measured by itself, and each stack of nodes, at B = 1 and T = 1, 32, 500, on one thread. ONNX
Runtime gets a graph of nothing but these nodes, with the file's own weights; outputs are compared first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import fusedrnn as fr
from fusedrnn.onnx.graph import Model
from fusedrnn.onnx.recurrent import is_recurrent
from harness import FULL, QUICK, interleave, paired_ratio, pin

TOLERANCE = 1e-5


def stacks(path: Path) -> dict[str, list[Any]]:
    """Return the nodes of a file alone, and all together if they read each other's size."""
    model = Model("imported", path)
    places = [place for place in model.places() if is_recurrent(place)]
    each = {place.node.name: [place] for place in places}
    sizes = {(place.node.op_type, model.constant(place.scope, place.node.input[1]).shape) for place in places}
    return each | ({" + ".join(each): places} if len(places) > 1 and len(sizes) == 1 else {})


def session(path: Path, places: list[Any]) -> Any:
    """Return ONNX Runtime's session of the nodes, one after another."""
    model = Model("imported", path)
    nodes, tensors, source = [], [numpy_helper.from_array(np.array([1]), "one")], "x"
    for index, place in enumerate(places):
        names = [f"{each}{index}" for each in ("W", "R", "B")]
        constants = [model.constant(place.scope, place.node.input[at]) for at in (1, 2, 3)]
        tensors += [numpy_helper.from_array(array, name) for name, array in zip(names, constants, strict=True)]
        attributes = {each.name: helper.get_attribute_value(each) for each in place.node.attribute}
        nodes.append(helper.make_node(place.node.op_type, [source, *names], [f"Y{index}"], **attributes))
        source = f"y{index}"
        nodes.append(helper.make_node("Squeeze", [f"Y{index}", "one"], [source]))
    size, hidden = constants[0].shape[2], constants[1].shape[2]
    graph = helper.make_graph(
        nodes,
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "B", size])],
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["T", "B", hidden])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"]), made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--quick", action="store_true", help="less time for each case")
    arguments = parser.parse_args()
    pin(1)
    fr.set_num_threads(1)
    print("| recurrent part | T | fusedrnn | ONNX Runtime | ratio (quartiles of rounds) |\n|---|---|---|---|---|")
    for path in arguments.models:
        for name, places in stacks(path).items():
            runtime, made = session(path, places)
            layer: Any = fr.onnx.load(made)
            for steps in (1, 32, 500):
                x = np.random.default_rng(0).normal(0, 0.5, (steps, 1, layer.input_size)).astype(np.float32)
                feeds = {"x": x}
                error = np.abs(layer(x)[0] - runtime.run(None, feeds)[0]).max()
                assert error <= TOLERANCE, f"{name}: outputs differ by {error:.1e}"
                calls = {
                    "ours": lambda layer=layer, x=x: layer(x),
                    "theirs": lambda runtime=runtime, feeds=feeds: runtime.run(None, feeds),
                }
                timings, _ = interleave(calls, QUICK if arguments.quick else FULL)
                ratio, low, high = paired_ratio(timings["theirs"], timings["ours"])
                times = " | ".join(f"{timings[each].median * 1e3:.4f} ms" for each in calls)
                print(
                    f"| {path.stem}: {name} | {steps} | {times} | {ratio:.2f} ({low:.2f} to {high:.2f}) |", flush=True
                )


if __name__ == "__main__":
    main()
