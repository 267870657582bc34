"""Which tensors and circumstances are ours; in all others torch's own implementation runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from .kernel import DTYPES

_PLAIN = (Tensor, Parameter)
_C: Any = torch._C


def is_traced() -> bool:
    """Return whether a call is being recorded, by torch.compile, torch.export or another tracer of operators."""
    return torch.compiler.is_compiling() or bool(_C._len_torch_dispatch_stack())


def is_ours(x: Any, traced: bool) -> bool:
    """Return whether a call with this input is ours: a plain tensor of a dtype that the kernels have, on the cpu."""
    if (
        not isinstance(x, Tensor)
        or x.dtype not in DTYPES
        or not x.is_cpu
        or x.layout is not torch.strided
        or x.is_nested
    ):
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    if torch.compiler.is_compiling():
        return not torch.onnx.is_in_onnx_export()  # ONNX has operators for torch's layers
    if _C._are_functorch_transforms_active() or forward_ad._current_level >= 0 or _C._get_tracing_state() is not None:
        return False
    return traced or type(x) in _PLAIN


def are_like(tensors: Any, x: Tensor, shapes: Any, plain: bool) -> bool:
    """Return whether weights or states are as x and of these shapes; plain tensors on the cpu, if they have to be."""
    if len(tensors) != len(shapes):
        return False
    dtype = x.dtype
    for t, shape in zip(tensors, shapes, strict=True):
        if plain:
            if type(t) not in _PLAIN or t.dtype is not dtype or t.shape != shape or not t.is_cpu:
                return False
            if t.layout is not torch.strided:
                return False
        elif not isinstance(t, Tensor) or t.dtype != dtype or t.shape != shape or t.device != x.device:
            return False
    return True
