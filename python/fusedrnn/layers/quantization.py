"""``quantize``: an inference copy whose recurrent weights are integers of 8 bits."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import TypeVar

import numpy as np

from ..arrays.checks import brief, described
from .base import Layer, named_layers
from .recurrent import Recurrent

_Model = TypeVar("_Model", bound=Layer)


def quantize(model: _Model, dtype: str = "int8", *, inputs: str = "int16", keep: str | Sequence[str] = ()) -> _Model:
    r"""Return a copy of a layer or model for inference, with the weights of its recurrent layers in 8 bits.

    .. math::

        W_{jk} \approx s_j q_{jk}, \qquad s_j = \max_k |W_{jk}| / 127, \qquad q_{jk} = \mathrm{round}(W_{jk} / s_j).

    W_ih and W_hh have a scale s for each row, that is for each gate of each unit. In a call, x and h are rounded as
    well, each row (a step of a sample) with a scale of its own, and the products are sums of integers, which are exact.
    Gates, c, biases, outputs and states stay float32, as do all other layers: linear ones, embeddings, attention.

    The copy is called, streams and saves as the original does. It does not learn: ``forward`` of its recurrent layers
    raises RuntimeError, and they are frozen.

    Parameters
    ----------
    model : Layer
        A recurrent layer of float32, or whatever has some inside. It stays as it is.
    dtype : {"int8"}
        What the weights become.
    inputs : {"int16", "int8"}
        What x of each recurrent layer becomes; h, and the input of all layers of a stack but the first, are always
        int8. int16 takes two products for x instead of one, and gives half the error where x is not bounded.
    keep : str or sequence of str
        Names of layers that stay float32, as shell patterns: "encoder", "0", ``"*.reverse"``. A name includes what is
        inside.

    Returns
    -------
    Layer
        Of the class of ``model``.

    Raises
    ------
    TypeError
        If ``model`` is not a Layer, or a recurrent layer is float64.
    ValueError
        If there is no recurrent layer, one has functions or connections of its own (``activations``, ``clip``,
        ``peephole`` ...) or weights that are not finite, a name in ``keep`` fits none, or an argument is unknown.
    RuntimeError
        If the model is not on the cpu.
    """
    if not isinstance(model, Layer):
        raise TypeError(f"quantize: model is {described(model)}; expected a Layer")
    if dtype != "int8":
        raise ValueError(f"quantize: dtype is {brief(dtype)}; expected 'int8'")
    if inputs not in ("int8", "int16"):
        raise ValueError(f"quantize: inputs is {brief(inputs)}; expected 'int16' or 'int8'")
    if model.device != "cpu":
        raise RuntimeError(f"quantize: model is on {model.device}; expected cpu: model.to('cpu')")
    kept = _kept(model, (keep,) if isinstance(keep, str) else tuple(keep))
    chosen = {
        id(layer): name
        for name, layer in chain([("", model)], named_layers(model))
        if isinstance(layer, Recurrent) and id(layer) not in kept
    }
    if not chosen:
        raise ValueError(f"quantize: {model.op} has no recurrent layer to quantize; expected one or more")
    for layer in model.layers():
        if isinstance(layer, Recurrent) and id(layer) in chosen:
            _check(layer, chosen[id(layer)])
    result = copy.deepcopy(model)
    for original, layer in zip(model.layers(), result.layers(), strict=True):
        if isinstance(layer, Recurrent) and id(original) in chosen:
            object.__setattr__(layer, "variant", layer.variant.in_inference)
            layer._set_quantized(inputs)
    return result


def refuse_quantized(op: str, model: Layer) -> None:
    """Raise ValueError for a model with integer weights inside, where only the values of float32 weights will do."""
    for layer in model.layers():
        if isinstance(layer, Recurrent) and layer.quantized:
            raise ValueError(f"{op}: {layer.op} has {layer.quantized} weights; expected the float32 layer")


def _kept(model: Layer, patterns: tuple[str, ...]) -> set[int]:
    named = dict(named_layers(model))
    kept: set[int] = set()
    for pattern in patterns:
        fitting = [layer for name, layer in named.items() if fnmatchcase(name, pattern)]
        if not fitting:
            names = ", ".join(named) or "none: it is one layer"
            raise ValueError(f"quantize: no layer is named {pattern!r}; expected one of {names}")
        kept |= {id(inside) for layer in fitting for inside in layer.layers()}
    return kept


def _check(layer: Recurrent, name: str) -> None:
    """Raise what ``quantize`` raises for a layer that cannot be quantized."""
    where = f"{layer.op} {name!r}" if name else layer.op
    leave = f"; keep={name!r} leaves it as it is" if name else ""
    if layer.quantized:
        raise ValueError(f"quantize: {where} is {layer.quantized} already; expected float32{leave}")
    if layer.dtype != np.float32:
        raise TypeError(f"quantize: {where} is {layer.dtype.name}; expected float32{leave}")
    variant = layer.variant.in_inference
    if not variant.plain or layer.proj_size:
        options = ", ".join([*variant.config(), *(["proj_size"] if layer.proj_size else [])])
        raise ValueError(f"quantize: {where} has {options}; expected a cell without options{leave}")
