"""One line for a whole model: torch.nn's recurrent layers become ours, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .cells import GRUCell, LSTMCell, RNNCell
from .conversion import Convertible, with_base
from .modules import GRU, LSTM, RNN

OURS: dict[type[nn.Module], type[Convertible]] = {
    cls.torch_class: cls for cls in (RNN, LSTM, GRU, RNNCell, LSTMCell, GRUCell)
}


_NAMES = {cls.__name__ for cls in OURS}


@dataclass(frozen=True)
class Report:
    """What ``replace`` or ``restore`` did; print it.

    Attributes
    ----------
    replaced : dict
        By the module's name in the model, "" for the model itself: the class that it had.
    kept : dict
        By name, why a recurrent module was left as it is.
    """

    action: str
    replaced: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.action} {len(self.replaced)} of {len(self.replaced) + len(self.kept)} recurrent modules"]
        lines += [f"  {name or '(the model)'}: {cls}" for name, cls in self.replaced.items()]
        lines += [f"  {name or '(the model)'}: kept, {why}" for name, why in self.kept.items()]
        return "\n".join(lines)


def replace(model: nn.Module, *, compute_dtype: str | None = None) -> Report:
    """Make every nn.RNN, LSTM, GRU and cell in a model one of ours, in place.

    Modules keep their identity, parameters, hooks and names: an optimizer made before goes on, a checkpoint fits.

    Parameters
    ----------
    model : nn.Module
        The model, or a recurrent module itself.
    compute_dtype : {"bfloat16"}, optional
        What the replaced layers (not the cells) multiply.

    Returns
    -------
    Report
        Printable: what was replaced, what was not and why.
    """
    if compute_dtype not in (None, "bfloat16"):
        raise ValueError(f"replace: compute_dtype is {compute_dtype!r}; expected None or 'bfloat16'")
    _check_module("replace", model)
    report = Report("replaced")
    for name, module in model.named_modules():
        if isinstance(module, Convertible):
            report.kept[name] = "it is fusedrnn's"
            continue
        scripted = getattr(module, "original_name", None)
        if scripted in _NAMES:
            report.kept[name] = f"this {scripted} is TorchScript: its code is fixed"
        if not isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            continue
        cls = _torch_class_of(module)
        if cls is None:
            report.kept[name] = f"{type(module).__name__} is a class of its own, which may do more than torch.nn's"
        elif getattr(module, "proj_size", 0):
            report.kept[name] = "the kernels have no proj_size"
        else:
            report.replaced[name] = cls.__name__
            object.__setattr__(module, "__class__", with_base(type(module), OURS[cls]))
            if compute_dtype and isinstance(module, nn.RNNBase):
                module.compute_dtype = compute_dtype
    return report


def restore(model: nn.Module) -> Report:
    """Make every module of ours in a model torch.nn's again, in place; the weights are those of now.

    Returns
    -------
    Report
        Printable.
    """
    _check_module("restore", model)
    report = Report("restored")
    for name, module in model.named_modules():
        if isinstance(module, Convertible):
            cls = _our_class_of(module)
            if cls is None:
                report.kept[name] = f"{type(module).__name__} is a class of its own"
                continue
            report.replaced[name] = cls.__name__
            object.__setattr__(module, "__class__", with_base(type(module), cls.torch_class))
            for ours in ("_kernels", "compute_dtype"):
                module.__dict__.pop(ours, None)
    return report


def _check_module(op: str, model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{op}: model is of type {type(model).__name__}; expected a torch.nn.Module")


@contextmanager
def patched() -> Iterator[None]:
    """Inside, ``torch.nn.LSTM`` and the others are ours: for libraries that make their layers themselves.

    It changes torch.nn for the whole process while it lasts. A name that was imported before stays torch's.
    """
    owners: list[Any] = [nn, nn.modules, nn.modules.rnn]
    try:
        for owner in owners:
            for cls, ours in OURS.items():
                setattr(owner, cls.__name__, ours)
        yield
    finally:
        for owner in owners:
            for cls in OURS:
                setattr(owner, cls.__name__, cls)


def _torch_class_of(module: nn.Module) -> type[nn.Module] | None:
    """Return the class of torch.nn that a module is of, parametrized or not; None for a class of its own."""
    return next((cls for cls in OURS if _is(module, cls)), None)


def _our_class_of(module: nn.Module) -> type[Convertible] | None:
    return next((cls for cls in OURS.values() if _is(module, cls)), None)


def _is(module: nn.Module, cls: type[nn.Module]) -> bool:
    made = type(module)
    parametrized = made.__bases__ == (cls,) and made.__name__.startswith("Parametrized")
    return made is cls or parametrized
