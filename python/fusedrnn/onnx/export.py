"""Models of this package as ONNX files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx

from ..arrays.checks import described
from ..layers import Bidirectional, Embedding, Layer, Recurrent
from ..layers.protocol import Shape, is_time_major, known_size
from ..layers.quantization import refuse_quantized
from .builder import Builder
from .writers import OP, Batch, write


def export(model: Layer, path: str | os.PathLike[str] | None = None, *, lengths: bool = True) -> onnx.ModelProto:
    """Write a model for other runtimes, as it computes in inference, for any batch and any number of steps.

    The graph reads x and returns y as the model does, both float32 (or float64; few runtimes have recurrent operators
    for it), tokens as int64. A recurrent layer also returns its final state h, or h and c, and takes h0 and c0.

    Parameters
    ----------
    model : Layer
        RNN, LSTM, GRU, Bidirectional, Sequential, SequenceToSequence, SequenceToVector, of these and of Linear,
        Embedding, Activation and Dropout.
    path : path, optional
        Where to; None writes nothing.
    lengths : bool
        Whether the graph has an input lengths, int32 (B,). It need not be given: like h0 and c0 it has an empty default
        that stands for all steps.

    Returns
    -------
    onnx.ModelProto
        What was written.

    Raises
    ------
    TypeError
        If the model has a layer in it that ONNX has nothing for.
    ValueError
        For a variant of a layer that ONNX has nothing for; the message names its argument.
    """
    if not isinstance(model, Layer):
        raise TypeError(f"{OP}: model is {described(model)}; expected a Layer")
    refuse_quantized(OP, model)
    from .. import __version__

    build = Builder()
    reader = _reader(model)
    tokens, time_major = isinstance(reader, Embedding), any(map(is_time_major, model.layers()))
    reads = _known_shape(model, tokens, time_major)
    x = build.input("x", "int64" if tokens else model.dtype.name, _named(reads))
    batch = _batch(build, x, time_major=time_major) if lengths else Batch(build)
    if lengths and "lengths" not in reader.takes:
        x = _cleaned(batch, x, model.dtype, tokens=tokens, time_major=time_major)
    start, names = _start(build, model, x, time_major)
    y, state = write(batch, model, x, start)
    build.output(y, "y", model.dtype.name, _named(model.output_shape(reads)))
    for part, name, slabs, hidden in zip(state, *zip(*names, strict=True), strict=True) if names else ():
        build.output(part, name, model.dtype.name, [slabs, "batch", hidden])
    made = build.model(model.op, __version__)
    if path is not None:
        onnx.save(made, os.fspath(path), save_as_external_data=made.ByteSize() >= 2**31)
    return made


def _reader(layer: Layer) -> Layer:
    """Return the layer inside another that reads its input."""
    children = layer.children()
    if isinstance(layer, Recurrent) or not children:
        return layer
    inner: Layer = children.get("embedding") or next(iter(children.values()))
    return _reader(inner)


def _known_shape(model: Layer, tokens: bool, time_major: bool) -> Shape:
    axes = ("T", "B") if time_major else ("B", "T")
    if tokens:
        return axes
    size = known_size(model.input_shape())
    if size is None:
        raise TypeError(f"{OP}: {model.op} does not say how many features it reads; expected a layer that does")
    return (*axes, size)


def _named(shape: Shape) -> list[Any]:
    return [{"B": "batch", "T": "time"}.get(each, each) for each in shape]


def _batch(build: Builder, x: str, *, time_major: bool) -> Batch:
    """Return the lengths: those that are given, or all steps."""
    given = build.input("lengths", "int32", ["lengths"], np.zeros(0, np.int32))
    steps, size = _sizes(build, x, time_major)
    whole = build.add("Expand", build.add("Cast", steps, to=onnx.TensorProto.INT32), size)
    # As many as there are samples, from those that are given or, where none are, from the others.
    either = build.add("Concat", given, whole, axis=0)
    ends = build.add("Slice", either, build.integers(0), size)
    at = build.add("Range", build.tensor(np.array(0)), build.add("Squeeze", steps), build.tensor(np.array(1)))
    mask = build.add(
        "Less", build.add("Cast", at, to=onnx.TensorProto.INT32), build.add("Unsqueeze", ends, build.integers(1))
    )
    return Batch(build, ends, build.add("Unsqueeze", mask, build.integers(2)))


def _sizes(build: Builder, x: str, time_major: bool) -> tuple[str, str]:
    """Return the names of T and B, both (1,)."""
    shape = build.add("Shape", x)
    first, second = (build.add("Slice", shape, build.integers(i), build.integers(i + 1)) for i in (0, 1))
    return (first, second) if time_major else (second, first)


def _cleaned(batch: Batch, x: str, dtype: Any, *, tokens: bool, time_major: bool) -> str:
    if not time_major:
        return batch.cleaned(x, dtype, tokens=tokens)
    order = [1, 0] if tokens else [1, 0, 2]
    clean = batch.cleaned(batch.builder.add("Transpose", x, perm=order), dtype, tokens=tokens)
    return str(batch.builder.add("Transpose", clean, perm=order))


def _start(
    build: Builder, model: Layer, x: str, time_major: bool
) -> tuple[tuple[str, ...], list[tuple[str, int, int]]]:
    """Return the names of the initial states, and of the final ones with their sizes; none for a model of layers."""
    if isinstance(model, Bidirectional):
        parts = list(zip(model.children().values(), ("", "_reverse"), strict=True))
    elif isinstance(model, Recurrent):
        parts = [(model, "")]
    else:
        return (), []
    _, size = _sizes(build, x, time_major)
    start: list[str] = []
    names: list[tuple[str, int, int]] = []
    for layer, suffix in parts:
        assert isinstance(layer, Recurrent)
        slabs, hidden = layer.num_layers * layer.num_directions, layer.hidden_size
        for part in "hc"[: 1 + layer._has_cell_state]:
            default = np.zeros((slabs, 0, hidden), model.dtype)
            given = build.input(f"{part}0{suffix}", model.dtype.name, [slabs, f"{part}0{suffix}", hidden], default)
            shape = build.add("Concat", build.integers(slabs), size, build.integers(hidden), axis=0)
            zeros = build.add("Expand", build.tensor(np.zeros((1, 1, 1), model.dtype)), shape)
            either = build.add("Concat", given, zeros, axis=1)
            start.append(build.add("Slice", either, build.integers(0), size, build.integers(1)))
            names.append((f"{part}{suffix}", slabs, hidden))
    return tuple(start), names
