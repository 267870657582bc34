"""What ``fit`` judges about its arguments before the first step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

from ..arrays.checks import described, positive
from ..layers.base import Layer
from .callbacks import Callback
from .gradients import Gradients
from .monitors import Checkpoint, EarlyStopping, Monitor

_RECORDED = ("loss", "lr", "seconds", "val_loss")


def check_model(op: str, model: Any, x: Any) -> None:
    """Raise TypeError unless the model is a layer, ValueError unless it is batch-major and can take x if it is a list.

    Lists of inputs are what Keras takes, and would be read as sequences of unequal length.
    """
    if not isinstance(model, Layer):
        raise TypeError(f"{op}: model is {described(model)}; expected a Layer")
    if any(not getattr(layer, "batch_first", True) for layer in model.layers()):
        raise ValueError(f"{op}: the model has batch_first=False; expected a batch-major model")
    if isinstance(x, list):
        check_inputs(op, type(model), 1)


@lru_cache(maxsize=256)
def check_inputs(op: str, model: type[Layer], count: int) -> None:
    """Raise ValueError if a model of this class takes more inputs, or fewer."""
    parameters = list(inspect.signature(model.forward).parameters.values())[1:]
    kinds = [p.kind for p in parameters]
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p.name for p in positional if p.default is p.empty]
    most = None if inspect.Parameter.VAR_POSITIONAL in kinds else len(positional)
    if count < len(required) or (most is not None and count > most):
        got = "one input" if count == 1 else f"a tuple of {count}"
        expected = f"a tuple ({', '.join(required)})" if len(required) > 1 else f"one array, {required[0]}"
        raise ValueError(f"{op}: x is {got}, but {model.__name__} reads {', '.join(required)}; expected {expected}")


def check_recorded(metrics: Iterable[str], validated: bool) -> tuple[str, ...]:
    """Return the names of what will be recorded; ValueError if a metric has a name of ours."""
    metrics = list(metrics)
    if taken := set(metrics) & set(_RECORDED):
        raise ValueError(f"fit: a metric's name is {min(taken)!r}; expected none of {', '.join(_RECORDED)}")
    return (*_RECORDED[:3], *metrics, *((f"val_{name}" for name in ("loss", *metrics)) if validated else ()))


def check_monitors(callbacks: Iterable[Any], names: tuple[str, ...]) -> None:
    """Raise TypeError unless these are callbacks, ValueError if one watches what will not be recorded."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"fit: a callback is {described(callback)}; expected a fusedrnn.training.Callback")
    for callback in callbacks:
        if not type(callback).__module__.startswith(__package__):
            return  # one of a user's own may record something for those after it
        if isinstance(callback, Monitor):
            callback.check(names)


def watched(callbacks: Iterable[Callback]) -> tuple[str, bool] | None:
    """Return what the first callback that keeps the best weights compares epochs by; None for the default."""
    keeping = [each for each in callbacks if isinstance(each, (EarlyStopping, Checkpoint))]
    return keeping[0].watched() if keeping else None


def several(name: str, value: Any, op: str = "fit") -> tuple[Any, ...]:
    """Return an argument of several things, or of one, as a tuple."""
    if isinstance(value, type) or not (isinstance(value, (Callback, Iterable)) or callable(value)):
        raise TypeError(f"{op}: {name} is {described(value)}; expected one or an iterable of them")
    one = isinstance(value, (str, Callback)) or callable(value)
    return (value,) if one else tuple(value)


def clipping(value: Any, norm: Any) -> Callable[[Gradients], None]:
    """Return what clips gradients: by value, then by norm, each of which may be None."""
    value = None if value is None else positive("fit", "clip_value", value)
    norm = None if norm is None else positive("fit", "clip_norm", norm)
    return partial(_clip, value=value, norm=norm)


def _clip(gradients: Gradients, value: float | None, norm: float | None) -> None:
    if value is not None:
        gradients.clip_value(value)
    if norm is not None:
        gradients.clip_norm(norm)
