"""A model of ONNX as something to ask: which node makes a name, through nested graphs, and what is constant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ..arrays.checks import Array
from .files import File, Source

# What may compute a constant: their results have a size that ONNX infers from the operands, and take time in
# proportion to it; no random numbers, texts, images or graphs.
_FOLDED = set(
    "Abs Add And Cast CastLike Ceil Clip Concat Constant ConstantOfShape DequantizeLinear Div Equal Erf Exp Expand "  # noqa: SIM905
    "Flatten Floor Gather GatherElements GatherND Gemm Greater Identity Less Log MatMul Max Mean Min Mod Mul Neg Not "
    "Or Pad Pow QuantizeLinear Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape "
    "Round ScatterElements ScatterND Shape Sigmoid Sign Size Slice Split Sqrt Squeeze Sub Sum Tanh Tile Transpose "
    "Trilu Unsqueeze Where".split()
)
_NODE = 4096  # bytes that a node is charged, for its time
_SHORT = 1024  # elements of an operand that may be a shape
_OWN_DOMAINS = ("", "ai.onnx", "com.microsoft")


class NotConstant(Exception):
    """A value is known only when the model runs; the text says on what it depends."""


class Scope:
    """The names that one graph defines, and the scope around it."""

    def __init__(self, graph: onnx.GraphProto, outer: Scope | None, path: str) -> None:
        self.graph, self.outer, self.path = graph, outer, path
        self.nodes = {name: node for node in graph.node for name in node.output if name}
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {each.name for each in graph.input}
        self.known: dict[str, Array | NotConstant] = {}  # what was asked of Model.constant


class Place(NamedTuple):
    """A node and the scope that it is in."""

    scope: Scope
    node: onnx.NodeProto


class Model:
    """A model with all its nodes and constants.

    Parameters
    ----------
    op : str
        Name of the caller, for messages.
    source : path, bytes or onnx.ModelProto
        The model. Functions of its own are inlined.
    constants : mapping of str to array, optional
        Values of inputs of the graph.
    """

    def __init__(self, op: str, source: Source, constants: Mapping[str, Any] | None = None) -> None:
        self.op = op
        self._file = File(op, source)
        self.proto, self.budget = self._file.proto, self._file.budget
        for name, value in (constants or {}).items():
            tensor = numpy_helper.from_array(np.asarray(value), name)
            self.budget.add(tensor.ByteSize())
            self.proto.graph.initializer.append(tensor)
        self.root = Scope(self.proto.graph, None, "")
        missing = [name for name in constants or {} if name not in self.root.inputs]
        if missing:
            raise ValueError(f"{op}: constants has {missing[0]!r}; expected inputs of the graph: {_names(self.root)}")

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return max((each.version for each in self.proto.opset_import if each.domain in ("", "ai.onnx")), default=1)

    def places(self, scope: Scope | None = None) -> Iterator[Place]:
        """Yield every node, those inside If, Loop and Scan included, in the order of the file."""
        here = scope or self.root
        for node in here.graph.node:
            yield Place(here, node)
            for attribute in node.attribute:
                for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    path = f"{here.path}{node.name or node.op_type}/{attribute.name}/"
                    yield from self.places(Scope(body, here, path))

    def constant(self, scope: Scope, name: str) -> Array:
        """Return the value of a name that follows from constants alone, by ONNX's own reference for each operator.

        Raises
        ------
        NotConstant
            If it does not.
        """
        if name not in scope.known:
            try:
                scope.known[name] = self._evaluated(scope, name)
            except NotConstant as error:
                scope.known[name] = error
        value = scope.known[name]
        if isinstance(value, NotConstant):
            raise value
        self.budget.charge(name, value.nbytes)  # of each that asks, who may keep a copy
        return value

    def _evaluated(self, scope: Scope, name: str) -> Array:
        nodes, tensors = self._slice(scope, name)
        values = {each: self._array(tensor) for each, tensor in tensors.items()}
        for node in nodes:
            self.budget.charge(f"node {node.name!r} ({node.op_type})", _NODE + self._size(node, values))
            try:
                with np.errstate(all="ignore"):
                    values.update(zip(node.output, self._run(node, values), strict=False))
            except MemoryError:
                raise
            except Exception as error:  # of any operator, with whatever operands the file has
                text = f"node {node.name!r} ({node.op_type}) cannot be computed: {type(error).__name__}: {error}"
                raise NotConstant(text) from error
        return values[name]

    def _array(self, tensor: onnx.TensorProto) -> Array:
        try:
            self._file.fetch(tensor)
            array = np.asarray(numpy_helper.to_array(tensor))
        except MemoryError:
            raise
        except Exception as error:  # a tensor whose bytes are in another file, or do not fit its shape
            raise NotConstant(f"{tensor.name!r} cannot be read: {error}") from error
        if array.dtype.hasobject:
            raise NotConstant(f"{tensor.name!r} holds texts")
        return array

    def _size(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> int:
        """Return the bytes of the outputs of a node, which has not been run, at eight an element."""
        if node.op_type not in _FOLDED or node.domain not in _OWN_DOMAINS:
            raise NotConstant(f"node {node.name!r} ({node.op_type}) is none that is computed while a file is read")
        if node.op_type in ("Constant", "Identity"):
            return 0
        names = [each for each in dict.fromkeys(node.input) if each]
        short = [numpy_helper.from_array(values[each], each) for each in names if values[each].size <= _SHORT]
        given = [helper.make_tensor_value_info(each, *_typed(values[each])) for each in names]
        outputs = [onnx.ValueInfoProto(name=each) for each in node.output if each]
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.domain = ""
        graph = helper.make_graph([plain], "size", given, outputs, initializer=short)
        opset = max(self.opset, 21) if node.op_type == "DequantizeLinear" else self.opset
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output
            shapes = [[dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in inferred]
            known = all(
                each.type.tensor_type.HasField("shape")
                and all(dim.HasField("dim_value") for dim in each.type.tensor_type.shape.dim)
                for each in inferred
            )
        except Exception as error:
            raise NotConstant(f"node {node.name!r} ({node.op_type}) does not fit its operands: {error}") from error
        if not known:
            raise NotConstant(f"node {node.name!r} ({node.op_type}) has a size that is known only after it")
        return 8 * sum(map(math.prod, shapes))

    def _run(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array]:
        """Return the outputs of one node by ONNX's reference."""
        opsets = list(self.proto.opset_import)
        if node.op_type == "DequantizeLinear":  # the reference has only the newest, which is no other for old operands
            opsets = [onnx.helper.make_opsetid("", max(self.opset, 21))]
            plain = onnx.NodeProto()
            plain.CopyFrom(node)
            plain.domain = ""
            node = plain
        names = [each for each in dict.fromkeys(node.input) if each]
        inputs = [onnx.ValueInfoProto(name=each) for each in names]
        outputs = [onnx.ValueInfoProto(name=each) for each in node.output if each]
        graph = onnx.helper.make_graph([node], "constant", inputs, outputs)
        evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets))
        results: Any = evaluator.run(None, {each: values[each] for each in names})
        found = dict(zip([each.name for each in outputs], map(np.asarray, results), strict=True))
        return [found.get(each, np.empty(0)) for each in node.output]

    def _slice(self, scope: Scope, name: str) -> tuple[list[onnx.NodeProto], dict[str, onnx.TensorProto]]:
        """Return the nodes that a name follows from, each after those that it needs, and the tensors they read."""
        nodes: list[onnx.NodeProto] = []
        tensors: dict[str, onnx.TensorProto] = {}
        seen: set[str] = set()
        waiting: list[tuple[Scope, str, onnx.NodeProto | None]] = [(scope, name, None)]
        while waiting:
            here, wanted, finished = waiting.pop()
            if finished is not None:
                nodes.append(finished)
                continue
            if wanted in seen:
                continue
            seen.add(wanted)
            found = find(here, wanted)
            if isinstance(found, onnx.TensorProto):
                tensors[wanted] = found
            elif found is None:
                raise NotConstant(f"{name!r} depends on {wanted!r}, an input" if wanted != name else "it is an input")
            else:
                here, node = found
                if any(a.HasField("g") or a.graphs for a in node.attribute):
                    raise NotConstant(f"{name!r} depends on node {node.name!r} ({node.op_type})")
                seen.update(node.output)
                waiting.append((here, wanted, node))
                waiting.extend((here, each, None) for each in node.input if each)
        return nodes, tensors


def find(scope: Scope, name: str) -> Place | onnx.TensorProto | None:
    """Return what makes a name, here or further out: a node or a tensor; None for an input of a graph."""
    here: Scope | None = scope
    while here is not None:
        if name in here.tensors:
            tensor: onnx.TensorProto = here.tensors[name]
            return tensor
        if name in here.nodes:
            return Place(here, here.nodes[name])
        if name in here.inputs:
            return None
        here = here.outer
    return None


def node_name(place: Place) -> str:
    """Return the name of a node; of one without a name, that of its first output."""
    return place.node.name or next((name for name in place.node.output if name), place.node.op_type)


def label(op: str, place: Place) -> str:
    """Return how a message names a node."""
    return f"{op}: node {node_name(place)!r} ({place.node.op_type})"


def check_attributes(where: str, node: onnx.NodeProto, opset: int) -> None:
    """Raise ValueError for an attribute of another type than its operator has."""
    try:
        known: Any = onnx.defs.get_schema(node.op_type, opset, "").attributes
    except onnx.defs.SchemaError:  # not one of ONNX's own
        return
    for each in node.attribute:
        if each.name in known and each.type != known[each.name].type.value:
            got, expected = onnx.AttributeProto.AttributeType.Name(each.type), known[each.name].type.name
            raise ValueError(f"{where}: attribute {each.name} has type {got}; expected {expected}")


def _typed(array: Array) -> tuple[int, tuple[int, ...]]:
    return helper.np_dtype_to_tensor_dtype(array.dtype), array.shape


def _names(scope: Scope) -> str:
    return ", ".join(sorted(scope.inputs - scope.tensors.keys())) or "none"
