"""The fused call as a function that torch differentiates: outside a graph, where every microsecond counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _core
from .kernel import NO_STATES, Kernel, Layout, States, addresses, dense, dense_states, readable
from .reference import differentiated_by_torch


class Call(NamedTuple):
    """What a call has beside its tensors."""

    kernel: Kernel
    layout: Layout
    rows: _core.Rows
    lengths: Tensor | None = None
    resets: Tensor | None = None
    batch_sizes: Tensor | None = None


def _states(tensors: Any) -> States:
    h, c, h_restart, c_restart = tensors[:4]
    if h is None and c is None and h_restart is None and c_restart is None:
        return NO_STATES
    return States(h, c, h_restart, c_restart)


class Fused(torch.autograd.Function):
    """(call, x, h0, c0, h_restart, c_restart, *weights) -> (y, h, c); c is None for cells without one."""

    @staticmethod
    def forward(ctx: Any, call: Call, x: Tensor, *tensors: Any) -> Any:
        """Run the kernels and keep what backward needs."""
        states, weights = _states(tensors), tensors[4:]
        kernel = call.kernel
        # What came is saved, so that a change in place is noticed; a copy is made again by backward.
        ready = list(map(dense, weights))
        y, h, c, tape = kernel.forward(
            call.rows, call.layout, readable(x), dense_states(states), addresses(ready), True
        )
        ctx.call, ctx.tape = call, tape
        ctx.save_for_backward(x, None if kernel.keeps_y else y, *tensors)
        ctx.set_materialize_grads(False)
        return y, h, c

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Return the gradients of the inputs; through torch's own operations where they are to be differentiated."""
        x, y, *tensors = ctx.saved_tensors
        dy, dh, dc = grads
        states, weights = _states(tensors), tensors[4:]
        call: Call = ctx.call
        needs = ctx.needs_input_grad
        if dy is None and dh is None and dc is None:
            return (None,) * len(needs)
        if torch.is_grad_enabled():
            return (None, *differentiated_by_torch(call, x, states, weights, grads, needs[1:]))
        dx, dstates, dweights = call.kernel.backward(
            ctx.tape,
            call.layout,
            readable(x),
            y,
            dense_states(states),
            weights,
            dy,
            dh,
            dc,
            needs[1],
            needs[6:],
        )
        return (None, dx, *dstates, *dweights)
