"""Whole models of ONNX whose graph is a chain of layers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from ..interop import Pool, assemble, with_weights
from ..interop.bounds import reading
from ..layers import Activation, Embedding, Layer, Linear
from .call import Call, Known, Unknown
from .files import Source, what_of
from .graph import Model, NotConstant, Place, check_attributes, label
from .operators import OPERATORS
from .values import Affine, Cells, FromInput, Function, Lookup, Side, Stack, Static, Step, Value, Zero, joined

_OP = "onnx.load"
_LONGEST = 1000  # layers in a chain, of which each name of the graph has a list
_ZERO_KEEPING = {
    "Expand",
    "Slice",
    "Identity",
    "Cast",
    "Transpose",
    "Reshape",
    "Unsqueeze",
    "Squeeze",
    "Gather",
    "Split",
    "Tile",
}
_REDUCING = {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "Neg"}  # of zeros these make zeros, too


def load(path: Source) -> Layer:
    """Read a whole model: a chain of recurrent layers, embeddings, matrix products and elementwise functions.

    Stacked nodes, and the two directions of a layer, become one layer. The model reads what the graph reads: x (B, T,
    I), or (T, B, I) where the graph has the time first. Lengths that are an input of the graph are ``lengths=`` of the
    call, initial states are ``state=``.

    Parameters
    ----------
    path : path, bytes or onnx.ModelProto
        The model.

    Returns
    -------
    Layer
        A recurrent layer, a Sequential, or a SequenceToVector where the graph ends in a vector for each sequence.

    Raises
    ------
    ValueError
        If the file is not a model, or the graph not such a chain: the message names the first node that does not fit.
        ``fusedrnn.onnx.layers`` reads the recurrent layers of any graph.
    """
    with reading(_OP, what_of(_OP, path), "model of ONNX"):
        model = Model(_OP, path)
        env = _interpret(model)
        value = _main_output(model, env)
        return _assembled(value)


def _interpret(model: Model) -> dict[str, Known]:
    """Return what each name of the graph is, as far as the outputs need it."""
    graph, root = model.proto.graph, model.root
    ranks = _ranks(model.proto)
    env: dict[str, Known] = dict.fromkeys(root.tensors)
    for each in graph.input:
        if each.name not in root.tensors:
            rank = len(each.type.tensor_type.shape.dim) if each.type.tensor_type.HasField("shape") else 3
            env[each.name] = Value(each.name, tuple(range(rank)))
    needed = _needed(model)
    for node in graph.node:
        if not needed.intersection(node.output):
            continue
        place = Place(root, node)
        results = _results(model, place, env, ranks)
        parts = [part for each in results for part in (each.parts if isinstance(each, Stack) else (each,))]
        if any(isinstance(part, Value) and len(part.steps) > _LONGEST for part in parts):
            raise ValueError(f"{label(_OP, place)}: the chain has more than {_LONGEST} layers")
        env.update(zip(node.output, results, strict=False))
    return env


def _results(model: Model, place: Place, env: dict[str, Known], ranks: dict[str, int]) -> tuple[Known, ...]:
    node = place.node
    where = label(_OP, place)
    missing = [name for name in node.input if name and name not in env]
    if missing:
        raise ValueError(f"{where}: input {missing[0]!r} comes from nowhere before it")
    known = [env[name] for name in node.input if name]
    count = max(1, len(node.output))
    plain = not any(each.HasField("g") or each.graphs for each in node.attribute)
    if plain and all(each is None for each in known):
        return (None,) * count
    if node.op_type in ("Shape", "Size"):
        return (Static(),)
    if node.op_type == "Mul" and any(_zero(model, place, env, name) for name in node.input):
        return (Zero(),)  # as tf2onnx writes zeros_like
    if plain and all(each is None or isinstance(each, Static) for each in known):
        return (Zero() if _is_zero(model, place, env) else Static(),) * count
    operator = OPERATORS.get(node.op_type)
    try:
        if operator is None:
            raise Unknown("no layer does that")
        if node.domain not in ("", "ai.onnx") and node.op_type != "DynamicQuantizeLSTM":
            raise Unknown(f"its domain is {node.domain!r}")
        check_attributes(where, node, model.opset)
        if any(isinstance(each, FromInput) for each in known[:1]) and node.op_type in _ZERO_KEEPING:
            return (known[0],) * count
        result = operator(Call(model, place, env, ranks))
    except Unknown as error:
        text = (
            f"{where} is no part of a chain of layers: {error}; fusedrnn.onnx.layers reads the recurrent layers alone"
        )
        raise ValueError(text) from None
    except (IndexError, KeyError) as error:
        raise ValueError(f"{where}: its inputs and attributes do not fit: {error!r}") from None
    return result if isinstance(result, tuple) else (result,)


def _is_zero(model: Model, place: Place, env: dict[str, Known]) -> bool:
    """Return whether a node whose shape is not constant returns zeros."""
    node = place.node
    if node.op_type == "ConstantOfShape":
        values = [onnx.numpy_helper.to_array(each.t) for each in node.attribute if each.name == "value"]
        return not any(each.any() for each in values)
    if node.op_type == "Concat":
        return all(_zero(model, place, env, name) for name in node.input)
    return node.op_type in _ZERO_KEEPING | _REDUCING and _zero(model, place, env, node.input[0])


def _zero(model: Model, place: Place, env: dict[str, Known], name: str) -> bool:
    known = env[name]
    if known is not None:
        return isinstance(known, Zero)
    try:
        return not model.constant(place.scope, name).any()
    except NotConstant:
        return False


def _needed(model: Model) -> set[str]:
    """Return the names that the outputs depend on."""
    waiting = [each.name for each in model.proto.graph.output]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name and name not in needed:
            needed.add(name)
            node = model.root.nodes.get(name)
            if node is not None:
                waiting.extend(node.input)
    return needed


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the numbers of axes that ONNX infers; of shapes that are computed, this is all that is known."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except Exception:  # a graph that is not valid: whatever matters is judged node by node
        return {}
    named = [*inferred.value_info, *inferred.output]
    shapes = {
        each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in named
        if each.type.HasField("tensor_type") and each.type.tensor_type.HasField("shape")
    }
    ranks = {name: len(shape) for name, shape in shapes.items()}
    for node in inferred.node:  # the length of a computed shape is known even where ONNX infers no more
        if node.op_type == "Reshape" and node.output[0] not in ranks:
            length = shapes.get(node.input[1], [])
            if len(length) == 1 and length[0] > 0:
                ranks[node.output[0]] = length[0]
    return ranks


def _main_output(model: Model, env: dict[str, Known]) -> Value:
    """Return the output that the chain ends in; beside it there may be final states."""
    outputs = [(each.name, env.get(each.name)) for each in model.proto.graph.output]
    found = []
    for name, known in outputs:
        whole = joined(known.parts) if isinstance(known, Stack) else known
        if isinstance(whole, Value) and whole.steps and whole.state != "c":
            found.append((name, whole))
        elif not isinstance(known, Stack) or known.parts[0].state is None:
            raise ValueError(f"{_OP}: output {name!r} is not what a chain of layers returns; see fusedrnn.onnx.layers")
    sequences = [each for each in found if each[1].state is None] or found
    if not sequences:
        raise ValueError(f"{_OP}: the graph returns final states alone; see fusedrnn.onnx.layers")
    name, value = sequences[0]
    if len(sequences) > 1 and value.state is None:
        raise ValueError(f"{_OP}: the graph has outputs {name!r} and {sequences[1][0]!r}; expected one, beside states")
    return value


def _assembled(value: Value) -> Layer:
    steps = [_single(step) if isinstance(step, Side) else step for step in value.steps]
    cells = [step for step in steps if isinstance(step, Cells)]
    pooled = any(isinstance(step, Pool) for step in steps)
    batch_first = _batch_first(value, cells)
    if pooled and not batch_first:
        text = f"{_OP}: the graph reads {value.source!r} time first; the model reads it batch first, (B, T, ...)"
        warnings.warn(text, UserWarning, stacklevel=3)
        batch_first = True
    pieces = [
        step.spec if isinstance(step, Cells) else step if isinstance(step, Pool) else _layer(step) for step in steps
    ]
    if sum(isinstance(piece, Pool) for piece in pieces) > 1:
        raise ValueError(f"{_OP}: the graph goes from sequences to vectors more than once; see fusedrnn.onnx.layers")
    return assemble(pieces, batch_first=batch_first)


def _single(side: Side) -> Cells:
    return replace(side.cells, spec=side.cells.spec.only(side.direction))


def _batch_first(value: Value, cells: list[Cells]) -> bool:
    """Return whether the input has the batch first; ValueError if the graph changes its mind, or returns otherwise."""
    kinds = {(step.time, step.batch) for step in cells}
    if len(kinds) > 1:
        raise ValueError(f"{_OP}: {cells[0].spec.where.split(': ')[1]} and a later one take different axes as the time")
    if not kinds:
        return True
    time, batch = kinds.pop()
    places = [value.axes.index(each) for each in (batch, time) if each in value.axes]
    first: bool = not (isinstance(time, int) and isinstance(batch, int)) or batch < time
    if len(places) == 2 and (places[0] < places[1]) != first:
        raise ValueError(f"{_OP}: the graph returns time and batch in another order than it reads them")
    return first


def _layer(step: Step) -> Layer:
    if isinstance(step, Lookup):
        return _with_dtype(
            Embedding, {"num_embeddings": len(step.table), "embedding_dim": step.table.shape[1]}, weight=step.table
        )
    if isinstance(step, Affine):
        out_features, in_features = step.weight.shape
        config = {"in_features": in_features, "out_features": out_features, "bias": step.bias is not None}
        return _with_dtype(Linear, config, weight=step.weight, bias=step.bias)
    assert isinstance(step, Function)
    return Activation(step.name)


def _with_dtype(cls: type[Layer], config: dict[str, Any], *, weight: Any, bias: Any = None) -> Layer:
    dtype = "float64" if weight.dtype == np.float64 else "float32"
    state = {"weight": weight} | ({} if bias is None else {"bias": bias})
    return with_weights(cls, {**config, "dtype": dtype}, {name: array.astype(dtype) for name, array in state.items()})
