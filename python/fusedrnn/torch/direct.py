"""The short way of a call that is nothing out of the ordinary: each tensor is looked at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from .function import Call, Fused
from .kernel import NO_STATES, Kernels, Layout, dense_states, readable

if TYPE_CHECKING:
    from .layer import FusedBase

_C: Any = torch._C
_TIME_MAJOR, _BATCH_MAJOR = Layout(False), Layout(True)
_strided = torch.strided
_is_compiling, _is_autocast_enabled, _is_grad_enabled = (
    torch.compiler.is_compiling,
    torch.is_autocast_enabled,
    torch.is_grad_enabled,
)


def key_of(module: FusedBase, dtype: torch.dtype) -> Any:
    """Return what the kernels of a module are known by: all that it can be set to, for users do set it."""
    return (
        module.mode, module.input_size, module.hidden_size, module.num_layers, module.bidirectional, module.bias,
        module.proj_size, module.compute_dtype, dtype,
    )  # fmt: skip


def plain_weights(
    names: Any, parameters: Any, shapes: Any, dtype: torch.dtype
) -> tuple[list[Any], tuple[int, ...], bool] | None:
    """Return (weights, where they lie, whether one has a gradient); None unless each is plain, dense and as it should.

    They are looked up in each call: weight_norm and others put tensors of their own in their place.
    """
    if len(names) != len(shapes):
        return None
    weights, addresses, differentiable = [], [], False
    for name, shape in zip(names, shapes, strict=True):
        w = parameters.get(name)
        if type(w) is not Parameter or w.dtype is not dtype or w.shape != shape or not w.is_cpu:
            return None
        if w.layout is not _strided or not w.is_contiguous() or w.is_neg():
            return None
        if w.requires_grad:
            differentiable = True
        weights.append(w)
        addresses.append(w.data_ptr())
    return weights, tuple(addresses), differentiable


def direct(module: FusedBase, x: Any, hx: Any) -> Any:
    """Return what the module returns, or None where the long way has to look: that of every module's first call.

    All of the circumstances in ``conditions`` are asked for here too, and dropout between layers.
    """
    if (
        _is_compiling()
        or type(x) is not Tensor
        or x.dim() != 3
        or not x.is_cpu
        or x.layout is not _strided
        or x.is_nested
    ):
        return None
    if (
        _C._len_torch_dispatch_stack()
        or _is_autocast_enabled("cpu")
        or _C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or _C._get_tracing_state() is not None
        or (module.training and module.dropout and module.num_layers > 1)
    ):
        return None
    dtype = x.dtype
    kernels: Kernels | None = module.__dict__.get("_kernels")
    kernel = kernels.get(key_of(module, dtype)) if kernels else None
    if kernel is None:
        return None
    batch_first = module.batch_first
    time, batch, inputs = x.shape
    if batch_first:
        time, batch = batch, time
    if inputs != kernel.config.input_size or not time:
        return None
    plain = plain_weights(module._flat_weights_names, module._parameters, kernel.shapes, dtype)
    if plain is None:
        return None
    weights, addresses, differentiable = plain
    states = NO_STATES
    if hx is not None:
        found = module._states(hx, x, batch, False, True)
        if found is None:
            return None
        states = found
        differentiable = differentiable or any([s is not None and s.requires_grad for s in states])
    layout = _BATCH_MAJOR if batch_first else _TIME_MAJOR
    rows = kernel.core.rows(time, batch)
    if (differentiable or x.requires_grad) and _is_grad_enabled():
        y, h, c = Fused.apply(Call(kernel, layout, rows), x, *states, *weights)
    else:
        y, h, c, _ = kernel.forward(rows, layout, readable(x), dense_states(states), addresses)
    return y, (h if c is None else (h, c))
