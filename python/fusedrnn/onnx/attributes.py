"""The attributes of RNN, LSTM and GRU nodes as arguments of a layer's constructor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx

from ..interop import Option
from .graph import check_attributes

Activation: TypeAlias = str | tuple[str, float, float]

_COMMON = {
    "direction",
    "hidden_size",
    "activations",
    "activation_alpha",
    "activation_beta",
    "clip",
    "layout",
    "output_sequence",
}
KNOWN = {
    "RNN": _COMMON,
    "LSTM": _COMMON | {"input_forget"},
    "DynamicQuantizeLSTM": _COMMON | {"input_forget"},
    "GRU": _COMMON | {"linear_before_reset"},
}
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}

# ONNX's name in lower case: (ours, alpha and beta by default; None where there is none). The defaults are those of
# ONNX Runtime: where the standard has none, and for ThresholdedRelu, whose operator has 1, that is 0.
_ACTIVATIONS: dict[str, tuple[str, float | None, float | None]] = {
    "relu": ("relu", None, None),
    "tanh": ("tanh", None, None),
    "sigmoid": ("sigmoid", None, None),
    "affine": ("affine", 0.0, 0.0),
    "leakyrelu": ("leaky_relu", 0.01, None),
    "thresholdedrelu": ("thresholded_relu", 0.0, None),
    "scaledtanh": ("scaled_tanh", 0.0, 0.0),
    "hardsigmoid": ("hard_sigmoid", 0.2, 0.5),
    "elu": ("elu", 1.0, None),
    "softsign": ("softsign", None, None),
    "softplus": ("softplus", None, None),
}
_USUAL: dict[str, tuple[Activation, ...]] = {
    "RNN": ("tanh",),
    "LSTM": ("sigmoid", "tanh", "tanh"),
    "GRU": ("sigmoid", "tanh"),
}


def attributes_of(where: str, node: onnx.NodeProto, opset: int) -> dict[str, Any]:
    """Return the attributes of a recurrent node by name; ValueError for one that the operator does not have."""
    check_attributes(where, node, opset)
    values = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    unknown = sorted(values.keys() - KNOWN[node.op_type])
    if unknown:
        raise ValueError(f"{where}: attribute {unknown[0]} is unknown")
    direction = values.setdefault("direction", b"forward")
    direction = direction.decode(errors="replace") if isinstance(direction, bytes) else direction
    if direction not in DIRECTIONS:
        raise ValueError(f"{where}: attribute direction is {direction!r}; expected one of {', '.join(DIRECTIONS)}")
    if values.get("layout", 0) not in (0, 1):
        raise ValueError(f"{where}: attribute layout is {values['layout']!r}; expected 0 or 1")
    return {"layout": 0, **values, "direction": direction}


def options_of(where: str, cell: str, values: dict[str, Any]) -> dict[str, Option]:
    """Return the arguments that say what the node does differently from the plain cell."""
    options: dict[str, Option] = {}
    if cell == "GRU" and not values.get("linear_before_reset", 0):
        options["reset_after"] = Option(False, "attribute linear_before_reset is 0")
    if values.get("input_forget"):
        options["coupled"] = Option(True, "attribute input_forget is 1")
    clip = float(values.get("clip", 0))
    if clip > 0:
        options["clip"] = Option(clip, f"attribute clip is {clip:g}")
    chosen = _activations(where, cell, values)
    if cell == "RNN" and chosen == ("relu",):
        options["nonlinearity"] = Option("relu", "attribute activations is Relu")
    elif chosen != _USUAL[cell]:
        options["activations"] = Option(chosen, f"attribute activations is {', '.join(map(_shown, chosen))}")
    return options


def _activations(where: str, cell: str, values: dict[str, Any]) -> tuple[Activation, ...]:
    names = [each.decode(errors="replace") for each in values.get("activations", ())]
    positions, directions = len(_USUAL[cell]), DIRECTIONS[values["direction"]]
    if not names:
        return _USUAL[cell]
    if len(names) != positions * directions:
        raise ValueError(f"{where}: attribute activations has {len(names)} names; expected {positions * directions}")
    alphas, betas = list(values.get("activation_alpha", ())), list(values.get("activation_beta", ()))
    each = [_activation(where, name, alphas, betas) for name in names]
    first, *others = (tuple(each[start : start + positions]) for start in range(0, len(each), positions))
    if any(other != first for other in others):
        raise ValueError(f"{where}: attribute activations differs between the directions; expected the same in both")
    return first


def _activation(where: str, name: str, alphas: list[float], betas: list[float]) -> Activation:
    """Return one activation; it takes the next alpha and beta if it has any."""
    if name.lower() not in _ACTIVATIONS:
        raise ValueError(f"{where}: attribute activations has {name!r}; expected one of {', '.join(_ACTIVATIONS)}")
    ours, alpha, beta = _ACTIVATIONS[name.lower()]
    alpha = _next(alphas, alpha)
    beta = _next(betas, beta)
    return ours if alpha is None else (ours, alpha, 0.0 if beta is None else beta)


def _next(values: list[float], default: float | None) -> float | None:
    if default is None:
        return None
    return float(np.float32(values.pop(0) if values else default))  # attributes are float32, and so are defaults


def _shown(activation: Activation | Sequence[Any]) -> str:
    return activation if isinstance(activation, str) else f"{activation[0]}({activation[1]:g}, {activation[2]:g})"


_NAMES = {ours: theirs for theirs, (ours, _, _) in _ACTIVATIONS.items()}
_CAMEL = {
    "leakyrelu": "LeakyRelu",
    "thresholdedrelu": "ThresholdedRelu",
    "scaledtanh": "ScaledTanh",
    "hardsigmoid": "HardSigmoid",
}
# What says nothing of how a layer computes in inference, or is said elsewhere.
_ASIDE = {
    "input_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "dtype",
    "recurrent_dropout",
    "recurrent_dropout_on",
}
_SAID = {
    "hidden_size",
    "bidirectional",
    "reverse",
    "nonlinearity",
    "reset_after",
    "coupled",
    "clip",
    "activations",
    "peephole",
}


def node_attributes(cell: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of the node that computes as a layer of this configuration.

    Raises
    ------
    ValueError
        For an argument that ONNX has nothing for.
    """
    for name in config.keys() - _ASIDE - _SAID:
        if config[name]:
            raise ValueError(f"onnx.export: {cell} has {name}={config[name]!r}, which ONNX cannot say")
    direction = "bidirectional" if config["bidirectional"] else "reverse" if config.get("reverse") else "forward"
    attributes: dict[str, Any] = {"hidden_size": config["hidden_size"], "direction": direction}
    if cell == "GRU":
        attributes["linear_before_reset"] = int(config.get("reset_after", True))
    if config.get("coupled"):
        attributes["input_forget"] = 1
    if config.get("clip"):
        attributes["clip"] = float(config["clip"])
    chosen = config.get("activations") or (("relu",) if config.get("nonlinearity") == "relu" else ())
    if chosen:
        each = [(activation,) if isinstance(activation, str) else tuple(activation) for activation in chosen]
        each *= DIRECTIONS[direction]
        keys = [_NAMES[activation[0]] for activation in each]
        attributes["activations"] = [_CAMEL.get(key, key.capitalize()) for key in keys]
        for attribute, index in (("activation_alpha", 1), ("activation_beta", 2)):
            has = [_ACTIVATIONS[key][index] is not None for key in keys]
            values = [float(activation[index]) for activation, given in zip(each, has, strict=True) if given]
            attributes |= {attribute: values} if values else {}
    return attributes
