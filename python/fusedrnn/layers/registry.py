"""The names by which files know the classes of layers, and layers as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..arrays.checks import brief

if TYPE_CHECKING:
    from .base import Layer

_registry: dict[str, type[Layer]] = {}
_LayerClass = TypeVar("_LayerClass", bound="type[Layer]")


def register_layer(cls: _LayerClass) -> _LayerClass:
    """Class decorator: let files name this class, so that ``fusedrnn.load`` can make one.

    Raises
    ------
    ValueError
        If another class has that name. (The same class defined anew, as in a notebook, replaces the old one.)
    """
    known = _registry.setdefault(cls.__name__, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"register_layer: {cls.__name__} is already the name of {known.__module__}.{known.__name__}")
    _registry[cls.__name__] = cls
    return cls


def layer_spec(layer: Layer) -> dict[str, Any]:
    """Return {"class": name, "config": arguments} of a layer as JSON values."""
    if _registry.get(layer.op) is not type(layer):
        raise TypeError(f"{layer.op}: the class is not registered; decorate it with fusedrnn.layers.register_layer")
    return {"class": layer.op, "config": layer.config()}


def constructor_call(value: Any) -> str:
    """Return the text of an argument, a layer's specification as the call that makes it."""
    if isinstance(value, list):
        return f"[{', '.join(map(constructor_call, value))}]"
    if not isinstance(value, dict):
        return repr(value)
    if value.keys() != {"class", "config"}:
        return f"{{{', '.join(f'{name!r}: {constructor_call(each)}' for name, each in value.items())}}}"
    arguments = ", ".join(f"{name}={constructor_call(argument)}" for name, argument in value["config"].items())
    return f"{value['class']}({arguments})"


def layer_from_spec(spec: Any) -> Layer:
    """Make a layer from what ``layer_spec`` returned. Only registered classes are looked up.

    Raises
    ------
    ValueError
        If the class is unknown or the specification malformed; else whatever the constructor raises.
    """
    name, config = (spec.get("class"), spec.get("config")) if isinstance(spec, Mapping) else (None, None)
    if not isinstance(name, str) or not isinstance(config, Mapping):
        raise ValueError(f"layer_from_spec: got {brief(spec)}; expected {{'class': name, 'config': arguments}}")
    cls = _registry.get(name)
    if cls is None:
        raise ValueError(f"layer_from_spec: unknown layer class {brief(name)}")
    if "device" in config:
        raise ValueError(f"layer_from_spec: {name} has a device in its config; expected none, which the caller chooses")
    return cls.from_config(config)
