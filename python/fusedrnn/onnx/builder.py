"""A graph of ONNX in the making."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..arrays.checks import Array

OPSET = 17
IR_VERSION = 8
_TYPES = {"int32": onnx.TensorProto.INT32, "int64": onnx.TensorProto.INT64}
_TYPES |= {"float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE}


class Builder:
    """Nodes, constants, inputs and outputs; each name is given once."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []
        self._known: dict[tuple[Any, ...], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    def input(self, name: str, dtype: str, shape: Sequence[Any], default: Array | None = None) -> str:
        """Add an input of the graph; with a default it need not be given."""
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))
        if default is not None:
            self._tensors.append(numpy_helper.from_array(default, name))
        return name

    def output(self, source: str, name: str, dtype: str, shape: Sequence[Any]) -> None:
        """Make a value an output of the graph."""
        self._nodes.append(helper.make_node("Identity", [source], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)))

    def tensor(self, array: Array) -> str:
        """Add a constant; the same small one is added once."""
        array = np.ascontiguousarray(array) if array.ndim else array
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 8 else (self._count,)
        if key not in self._known:
            self._known[key] = self._fresh("constant")
            self._tensors.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def integers(self, *values: int) -> str:
        """Add a constant int64 (n,)."""
        return self.tensor(np.array(values, np.int64))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; return the name of its output, or names."""
        names = [self._fresh(op.lower()) for _ in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}_{len(self._nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def model(self, name: str, version: str) -> onnx.ModelProto:
        """Return the checked model."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._tensors)
        model = helper.make_model(
            graph,
            producer_name="fusedrnn",
            producer_version=version,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        if model.ByteSize() < 2**31:  # above it, protobuf cannot hold it for the checker
            onnx.checker.check_model(model, full_check=True)
        return model

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
