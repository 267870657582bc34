"""Back to torch's own module, and clear words where only that will do."""

from __future__ import annotations

import sys
from typing import Any

from torch import nn


class Convertible(nn.Module):
    """A module of ours that stands for one of torch.nn's."""

    torch_class: Any

    def to_torch(self) -> nn.Module:
        """Return the module of torch.nn with the same parameters: shared, not copied."""
        return twin(self, with_base(type(self), self.torch_class))

    def __prepare_scriptable__(self) -> Any:
        """Refuse torch.jit.script, which looks for this method."""
        raise self._refusal("torch.jit.script cannot compile it")

    def __setattr__(self, name: str, value: Any) -> None:
        # How torch.ao.quantization tells a module that its turn has come: by exact class, so it would pass over ours.
        if name == "qconfig":
            specification = sys._getframe(1).f_locals.get("qconfig_dict")
            if value is not None or (isinstance(specification, dict) and self.torch_class in specification):
                raise self._refusal("torch.ao.quantization knows torch.nn's classes alone")
        super().__setattr__(name, value)

    def _recorded(self, input: Any, **given: Any) -> Any:
        """Return a call of this module in a graph of torch.fx: its tracers enter all modules but torch.nn's."""
        given = {name: value for name, value in given.items() if value is not None}
        return input.tracer.create_proxy("call_module", input.tracer.path_of_module(self), (input,), given)

    def _refusal(self, why: str) -> RuntimeError:
        name = type(self).__name__
        return RuntimeError(
            f"{name}: {why}; expected torch.nn.{self.torch_class.__name__}: put module.to_torch() in its place, or "
            "call fusedrnn.torch.restore(model)"
        )


def with_base(made: type[nn.Module], base: type[nn.Module]) -> type[nn.Module]:
    """Return ``base``, or for a class that parametrizations made of another a like one of ``base``."""
    if not hasattr(made, "parametrizations") and "Parametrized" not in made.__name__:
        return base
    members = {name: value for name, value in vars(made).items() if name not in ("__dict__", "__weakref__")}
    return type(f"Parametrized{base.__name__}", (base,), members)


def twin(module: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """Return a module of another class that shares the parameters, buffers and hooks of this one."""
    made: nn.Module = object.__new__(cls)
    made.__dict__.update(
        {
            name: value.copy() if isinstance(value, (dict, list, set)) else value
            for name, value in vars(module).items()
            if name != "_kernels"
        }
    )
    return made
