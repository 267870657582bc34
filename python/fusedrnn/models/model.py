"""What the models share: children and heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import as_array, as_integer, as_lengths, described, integer
from ..arrays.lengths import without_padding
from ..arrays.namespace import on_gpu
from ..layers import Embedding, Layer, Linear
from ..layers.calling import frozen_bottom, run
from ..layers.protocol import Shape, features_of, is_time_major, known_size, output_of
from ..layers.registry import layer_from_spec, layer_spec
from ..layers.states import StateSizes


class Model(Layer):
    """Base of the models: named children of one dtype and device, batch-major.

    Parameters
    ----------
    **children : Layer or None
        Their parameters are named "child.name"; None is left out.
    """

    def __init__(self, **children: Layer | None) -> None:
        present = {name: child for name, child in children.items() if child is not None}
        for name, child in present.items():
            if not isinstance(child, Layer):
                raise TypeError(f"{self.op}: {name} is {described(child)}; expected a Layer")
            if child.output_names:
                raise TypeError(f"{self.op}: {name} is {child.op} with several outputs; expected one output")
            if any(map(is_time_major, child.layers())):
                raise ValueError(f"{self.op}: {name} has batch_first=False; expected a batch-major layer")
        typical = next((child for child in present.values() if child.params), next(iter(present.values())))
        for name, child in present.items():
            if child.params and child.dtype != typical.dtype:
                raise TypeError(f"{self.op}: {name} has dtype {child.dtype}; expected {typical.dtype}, as its siblings")
        super().__init__(dtype=typical.dtype, device=typical.device)
        for name, child in present.items():
            self._add_child(name, child)

    def output_shape(self, x: Shape) -> Any:
        """Return the shape of the last child's y."""
        name, last = list(self.child_inputs(x).items())[-1]
        return output_of(self._children[name], last)

    def _frozen_bottom(self, *chain: Layer | None) -> tuple[bool, ...]:
        """Return for each child of a chain whether it needs no backward, as it and all before it are frozen."""
        present = [child for child in chain if child is not None]
        bottom = {id(child) for child in present[: frozen_bottom(present)]}
        return tuple(child is not None and id(child) in bottom for child in chain)

    def _child(self, name: str) -> Layer | None:
        return self._children.get(name)

    def _spec(self, name: str) -> dict[str, Any] | None:
        """Return a child's specification for ``config``; None without the child."""
        child = self._child(name)
        return None if child is None else layer_spec(child)


def optional_layer(spec: Any) -> Layer | None:
    """Return the layer of a specification, or None."""
    return None if spec is None else layer_from_spec(spec)


def check_recurrent(op: str, name: str, layer: Any, expected: str = "a recurrent layer") -> StateSizes:
    """Return the sizes of a layer's state; TypeError unless it has one, so that it returns (y, state)."""
    sizes = layer.state_sizes() if isinstance(layer, Layer) else None
    if sizes is None:
        raise TypeError(f"{op}: {name} is {described(layer)}; expected {expected}")
    return sizes


def output_features(op: str, name: str, layer: Any) -> int:
    """Return the size of the last axis of a layer's y.

    Raises
    ------
    TypeError
        If the layer does not tell.
    """
    return _told(op, name, layer, features_of, "one output")


def final_features(op: str, name: str, layer: Any) -> int:
    """Return the size of what ``layer.final_output`` returns; errors as ``output_features``."""
    return _told(op, name, layer, lambda layer: layer.final_features(), "one output")


def input_features(op: str, name: str, layer: Any) -> int:
    """Return the features that a layer reads at a step; errors as ``output_features``."""
    return _told(op, name, layer, lambda layer: known_size(layer.input_shape()), "an input")


def _told(op: str, name: str, layer: Any, ask: Callable[[Layer], int | None], what: str) -> int:
    size = ask(layer) if isinstance(layer, Layer) else None
    if size is None:
        got = described(layer) if isinstance(layer, type) else repr(layer)
        raise TypeError(f"{op}: {name} is {got}; expected a layer with {what} of known size")
    return size


def make_head(op: str, head: Any, layer: Layer, features: int | None = None, seed: int | None = None) -> Layer:
    """Return ``head`` if it is a layer; for a number, a Linear with so many outputs on top of ``layer``.

    Raises
    ------
    TypeError
        If a part of the head is recurrent. A head sees each step by itself: in ``generate`` it would have no state,
        after pooling the batch would be its time, and it is not told the lengths.
    """
    if isinstance(head, Layer):
        for part in head.layers():
            if part.state_sizes() is not None:
                got = described(part) if part is head else f"{described(head)} with {described(part)} in it"
                raise TypeError(f"{op}: head is {got}; expected layers without a state: recurrent ones belong in front")
        return head
    if features is None:
        features = output_features(op, "layer", layer)
    return Linear(features, integer(op, "head", head), dtype=layer.dtype, device=layer.device, seed=seed)


def embed(embedding: Embedding | None, training: bool, x: Any, lengths: Any) -> tuple[Any, Any]:
    """Look tokens (B, T) up, whatever is past a sample's end; without an embedding, return x as it is."""
    if embedding is None:
        return x, None
    ids = as_integer(embedding.op, "ids", x, embedding.xp)
    return run(embedding, training, without_padding(embedding.op, ids, lengths) if ids.ndim == 2 else ids)


def unembed(embedding: Embedding | None, tape: Any, dx: Any) -> Any:
    """Return the gradient of what ``embed`` took: None for tokens."""
    return dx if embedding is None else embedding.backward(tape, dx)


def batch_lengths(op: str, x: Any, lengths: Any) -> NDArray[np.int64] | None:
    """Return the lengths of x (B, T, ...), checked and as an array of our own, which a tape may keep; None for None."""
    if lengths is None:
        return None
    batch, steps = (x.shape if on_gpu(x) else np.shape(x))[:2]
    return as_lengths(op, lengths, batch, steps)


def check_rank(op: str, name: str, x: Any, names: str) -> None:
    """Raise ValueError unless x has as many axes as ``names``."""
    shape, rank = x.shape if on_gpu(x) else as_array(op, name, x).shape, names.count(",") + 1
    if len(shape) != rank:
        raise ValueError(f"{op}: {name} has shape {shape}; expected ({names})")


def two_lengths(op: str, lengths: Any) -> tuple[Any, Any]:
    """Return (source_lengths, lengths), both None for None; ValueError unless there are two."""
    if lengths is None:
        return None, None
    pair = isinstance(lengths, (tuple, list)) and len(lengths) == 2
    if not pair or any(each is not None and np.ndim(each) == 0 for each in lengths):
        raise ValueError(f"{op}: lengths is {lengths!r}; expected a pair (source_lengths, lengths) or None")
    return lengths[0], lengths[1]
