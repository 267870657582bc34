"""The fused call as operators of torch: what torch.compile, torch.export and other tracers see of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .function import Call
from .kernel import Config, Kernel, Layout, States, addresses, dense, kernel_of, readable

_CONFIG = (
    "str cell, SymInt input_size, SymInt hidden_size, SymInt num_layers, bool bidirectional, bool bias, "
    "str compute_dtype, bool batch_first"
)
_GIVEN = (
    "Tensor x, Tensor? h0, Tensor? c0, Tensor? h_restart, Tensor? c_restart, Tensor? lengths, Tensor? resets, "
    "Tensor? batch_sizes, Tensor[] weights"
)
_library = torch.library.Library("fusedrnn", "DEF")
_library.define(f"forward({_GIVEN}, {_CONFIG}) -> (Tensor, Tensor, Tensor)")
_library.define(f"forward_kept({_GIVEN}, {_CONFIG}) -> (Tensor, Tensor, Tensor, Tensor)")
_library.define(
    f"backward(Tensor? dy, Tensor? dh, Tensor? dc, Tensor? y, Tensor saved, {_GIVEN}, {_CONFIG}, bool[] wanted)"
    " -> Tensor[]"
)


def _call(x: Tensor, lengths: Any, resets: Any, batch_sizes: Any, weights: Any, arguments: Any) -> Call:
    *config, batch_first = arguments
    kernel = kernel_of(Config._make(config), weights)
    layout = Layout(batch_first, batch_sizes is not None)
    return Call(kernel, layout, kernel.rows(x, layout, lengths, resets, batch_sizes))


def _ready(x: Tensor, states: Any, weights: Any) -> tuple[Tensor, States, list[Tensor]]:
    return readable(x), States(*map(dense, states)), [w.contiguous() for w in weights]


def _places(x: Tensor, batch_sizes: Any) -> Any:
    return x.shape[0] if batch_sizes is not None else x.shape[0] * x.shape[1]


def _c(x: Tensor, c: Tensor | None) -> Tensor:
    return x.new_empty(0) if c is None else c


def _forward(
    x: Tensor, h0: Any, c0: Any, hr: Any, cr: Any, lengths: Any, resets: Any, batch_sizes: Any, weights: Any, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    call = _call(x, lengths, resets, batch_sizes, weights, rest)
    x, states, ready = _ready(x, (h0, c0, hr, cr), weights)
    y, h, c, _ = call.kernel.forward(call.rows, call.layout, x, states, addresses(ready))
    return y, h, _c(x, c)


def _forward_kept(
    x: Tensor, h0: Any, c0: Any, hr: Any, cr: Any, lengths: Any, resets: Any, batch_sizes: Any, weights: Any, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    call = _call(x, lengths, resets, batch_sizes, weights, rest)
    saved = x.new_empty(call.kernel.saved_size(_places(x, batch_sizes)))
    x, states, ready = _ready(x, (h0, c0, hr, cr), weights)
    y, h, c, _ = call.kernel.forward(call.rows, call.layout, x, states, addresses(ready), training=True, saved=saved)
    return y, h, _c(x, c), saved


def _backward(
    dy: Any, dh: Any, dc: Any, y: Any, saved: Tensor,
    x: Tensor, h0: Any, c0: Any, hr: Any, cr: Any, lengths: Any, resets: Any, batch_sizes: Any, weights: Any, *rest: Any
) -> list[Tensor]:  # fmt: skip
    *arguments, wanted = rest
    call = _call(x, lengths, resets, batch_sizes, weights, arguments)
    x, states, ready = _ready(x, (h0, c0, hr, cr), weights)
    saved = saved.clone()  # backward consumes it, and a graph may be walked twice
    tape = call.kernel.core.tape(call.rows, addresses(ready), call.kernel.keeps_y, saved.data_ptr())
    dx, dstates, dweights = call.kernel.backward(
        tape, call.layout, x, y, states, ready, dy, dh, dc, wanted[0], wanted[1:]
    )
    return [x.new_empty(0) if d is None else d for d in (dx, *dstates, *dweights)]


def _shapes(
    x: Tensor, h0: Any, batch_sizes: Any, cell: str, hidden_size: Any, num_layers: Any, bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    directions = 2 if bidirectional else 1
    if h0 is not None:
        batch = h0.shape[1]
    elif batch_sizes is None:
        batch = x.shape[0 if batch_first else 1]
    else:
        batch = torch.library.get_ctx().new_dynamic_size()
    y = x.new_empty((*x.shape[:-1], directions * hidden_size))
    h = x.new_empty((num_layers * directions, batch, hidden_size))
    return y, h, torch.empty_like(h) if cell == "lstm" else x.new_empty(0)


def _fake_forward(
    x: Tensor, h0: Any, c0: Any, hr: Any, cr: Any, lengths: Any, resets: Any, batch_sizes: Any, weights: Any, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    cell, _, hidden_size, num_layers, bidirectional, _, _, batch_first = rest
    return _shapes(x, h0, batch_sizes, cell, hidden_size, num_layers, bidirectional, batch_first)


def _fake_forward_kept(
    x: Tensor, h0: Any, c0: Any, hr: Any, cr: Any, lengths: Any, resets: Any, batch_sizes: Any, weights: Any, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    outputs = _fake_forward(x, h0, c0, hr, cr, lengths, resets, batch_sizes, weights, *rest)
    kernel = Kernel(Config._make(rest[:-1]), x.dtype)
    return *outputs, x.new_empty(kernel.saved_size(_places(x, batch_sizes)))


def _fake_backward(
    dy: Any, dh: Any, dc: Any, y: Any, saved: Tensor,
    x: Tensor, h0: Any, c0: Any, hr: Any, cr: Any, lengths: Any, resets: Any, batch_sizes: Any, weights: Any, *rest: Any
) -> list[Tensor]:  # fmt: skip
    wanted = rest[-1]
    made = [x.new_empty(x.shape if wanted[0] else 0)]
    made += [x.new_empty(0 if s is None else s.shape) for s in (h0, c0, hr, cr)]
    return made + [w.new_empty(w.shape if want else 0) for w, want in zip(weights, wanted[1:], strict=True)]


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    x, h0, c0, hr, cr, lengths, resets, batch_sizes, weights, *rest = inputs
    y, _, _, saved = output
    ctx.rest = rest
    ctx.count = len(weights)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(
        y if rest[0] == "lstm" else None, saved, x, h0, c0, hr, cr, lengths, resets, batch_sizes, *weights
    )


def _differentiate(ctx: Any, dy: Any, dh: Any, dc: Any, _: Any) -> Any:
    y, saved, *tensors = ctx.saved_tensors
    given, weights = tensors[:8], tensors[8:]
    wants_x, *wants_states = ctx.needs_input_grad[:5]
    wants_weights = ctx.needs_input_grad[8]
    if isinstance(wants_weights, bool):
        wants_weights = [wants_weights] * ctx.count
    grads: list[Any] = torch.ops.fusedrnn.backward(
        dy, dh, dc if given[2] is not None or ctx.rest[0] == "lstm" else None, y, saved, *given, weights, *ctx.rest,
        [wants_x, *wants_weights],
    )  # fmt: skip
    dx, *dstates = (g if want else None for g, want in zip(grads[:5], (wants_x, *wants_states), strict=True))
    dweights = [g if want else None for g, want in zip(grads[5:], wants_weights, strict=True)]
    return dx, *dstates, None, None, None, dweights, *([None] * len(ctx.rest))


for _name, _run, _fake in (
    ("forward", _forward, _fake_forward),
    ("forward_kept", _forward_kept, _fake_forward_kept),
    ("backward", _backward, _fake_backward),
):
    _library.impl(_name, _run, "CPU")
    torch.library.register_fake(f"fusedrnn::{_name}", _fake, lib=_library)
torch.library.register_autograd("fusedrnn::forward_kept", _differentiate, setup_context=_save, lib=_library)


def traced_call(
    config: Config,
    layout: Layout,
    x: Tensor,
    states: States,
    weights: Any,
    lengths: Tensor | None,
    resets: Tensor | None,
    batch_sizes: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (y, h, c) through the operators."""
    tensors = [t for t in (x, *states, *weights) if t is not None]
    arguments = (x, *states, lengths, resets, batch_sizes, list(weights), *config, layout.batch_first)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        y, h, c, _ = torch.ops.fusedrnn.forward_kept(*arguments)
    else:
        y, h, c = torch.ops.fusedrnn.forward(*arguments)
    return y, h, c if config.has_cell_state else None
