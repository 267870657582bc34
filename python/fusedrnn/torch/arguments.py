"""Arguments that torch's modules do not have: lengths, resets and the state after a reset."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def lengths_of(op: str, lengths: Any, batch: int, time: int) -> Tensor | None:
    """Return lengths as a tensor of int64 (B,) on the cpu."""
    if lengths is None:
        return None
    try:
        given = lengths if isinstance(lengths, Tensor) else torch.as_tensor(np.asarray(lengths))
    except TypeError:
        raise TypeError(f"{op}: lengths is a {type(lengths).__name__}; expected integers (batch,)") from None
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"{op}: lengths has dtype {given.dtype}; expected an integer dtype")
    if given.shape != (batch,):
        raise ValueError(f"{op}: lengths has shape {tuple(given.shape)}; expected (batch,) = ({batch},)")
    given = given.to("cpu", torch.int64)
    if not torch.compiler.is_compiling() and batch and (int(given.min()) < 0 or int(given.max()) > time):
        wrong = int(given.min()) if int(given.min()) < 0 else int(given.max())
        raise ValueError(f"{op}: lengths has an element {wrong}; expected 0 <= length <= time = {time}")
    return given


def resets_of(op: str, resets: Any, time: int, batch: int, batch_first: bool, unbatched: bool) -> Tensor | None:
    """Return resets as a tensor of bool (T, B) on the cpu."""
    if resets is None:
        return None
    given = resets if isinstance(resets, Tensor) else torch.as_tensor(np.asarray(resets))
    if given.dtype != torch.bool:
        raise TypeError(f"{op}: resets has dtype {given.dtype}; expected torch.bool")
    axes, shape = "time, batch", torch.Size((time, batch))
    if unbatched:
        axes, shape = "time,", torch.Size((time,))
    elif batch_first:
        axes, shape = "batch, time", torch.Size((batch, time))
    if given.shape != shape:
        raise ValueError(f"{op}: resets has shape {tuple(given.shape)}; expected ({axes}) = {tuple(shape)}")
    given = given.to("cpu")
    if unbatched:
        return given.unsqueeze(1)
    return given.t() if batch_first else given


def restart_states(
    op: str, state: Any, pair: bool, shape: tuple[int, ...], x: Tensor, unbatched: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return (h, c) of the state after a reset, each with a batch axis; None stands for zeros."""
    if state is None:
        return None, None
    if pair and (not isinstance(state, (tuple, list)) or len(state) != 2):
        raise ValueError(f"{op}: reset_state is a {type(state).__name__}; expected a pair (h, c)")
    h, c = state if pair else (state, None)
    return _restart(op, "h", h, shape, x, unbatched), _restart(op, "c", c, shape, x, unbatched)


def _restart(op: str, part: str, t: Any, shape: tuple[int, ...], x: Tensor, unbatched: bool) -> Tensor | None:
    if t is None:
        return None
    name = f"{part} of reset_state"
    if not isinstance(t, Tensor):
        raise TypeError(f"{op}: {name} is a {type(t).__name__}; expected a tensor")
    if t.dtype != x.dtype or t.device != x.device:
        raise TypeError(f"{op}: {name} is {t.dtype} on {t.device}; expected {x.dtype} on {x.device}")
    expected = (shape[0], shape[2]) if unbatched else shape
    if t.shape != expected:
        axes = "num_layers*num_directions, hidden" if unbatched else "num_layers*num_directions, batch, hidden"
        raise ValueError(f"{op}: {name} has shape {tuple(t.shape)}; expected ({axes}) = {expected}")
    return t.unsqueeze(1) if unbatched else t
