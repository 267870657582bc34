"""The same by torch's own operations: where gradients are to be differentiated, and on tensors that are not ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import _VF, Tensor

from .kernel import Config, Layout, States

if TYPE_CHECKING:
    from .function import Call


def differentiated_by_torch(
    call: Call, x: Tensor, states: States, weights: Any, grads: Any, needs: Any
) -> list[Tensor | None]:
    """Return the gradients of (x, *states, *weights) that are needed, which can be differentiated again."""
    inputs = [x, *states, *weights]
    wanted = [t for t, need in zip(inputs, needs, strict=True) if need and t is not None]
    with torch.enable_grad(), _without_onednn():
        outputs = run_torch(
            call.kernel.config, call.layout, x, states, weights, call.lengths, call.resets, call.batch_sizes
        )
        pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if o is not None and g is not None]
        made = iter(
            torch.autograd.grad(
                [o for o, _ in pairs], wanted, [g for _, g in pairs], create_graph=True, allow_unused=True
            )
        )
    return [next(made) if need else None for need in needs]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Inside, torch takes implementations that have a second derivative: oneDNN's LSTM has none."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def run_torch(
    config: Config,
    layout: Layout,
    x: Tensor,
    states: States,
    weights: Any,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return (y, h, c) as the fused call does; lengths are (B,), resets (T, B)."""
    if lengths is None and resets is None:
        batch = int(batch_sizes[0]) if batch_sizes is not None else x.shape[0 if layout.batch_first else 1]
        return _torch_call(config, x, _initial(config, x, batch, states.h, states.c), weights, layout, batch_sizes)
    return _by_segments(config, layout, x, states, weights, lengths, resets)


def _initial(config: Config, x: Tensor, batch: int, h: Tensor | None, c: Tensor | None) -> tuple[Tensor, ...]:
    shape = (config.num_layers * config.directions, batch, config.hidden_size)
    given = (h, c) if config.has_cell_state else (h,)
    return tuple(x.new_zeros(shape) if s is None else s for s in given)


def _torch_call(
    config: Config, x: Tensor, hx: tuple[Tensor, ...], weights: Any, layout: Layout, batch_sizes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    function = getattr(_VF, config.cell)
    state: Any = hx if config.has_cell_state else hx[0]
    common = (list(weights), config.bias, config.num_layers, 0.0, False, config.bidirectional)
    if batch_sizes is not None:
        result = function(x, batch_sizes, state, *common)
    else:
        result = function(x, state, *common, layout.batch_first)
    return result[0], result[1], result[2] if config.has_cell_state else None


class _Segments:
    """The pieces that lengths and resets cut a batch into, those of at least one step by falling length."""

    def __init__(self, time: int, batch: int, lengths: Tensor | None, resets: Tensor | None) -> None:
        ends = [time] * batch if lengths is None else lengths.tolist()
        self.at_once = [False] * batch  # whether a sample's first step is marked
        pieces: list[tuple[int, int, int]] = []  # sample, begin, length
        marks = None if resets is None else resets.t().tolist()
        for b, end in enumerate(ends):
            begins = [0]
            if marks is not None:
                begins += [t for t in range(1, end) if marks[b][t]]
                self.at_once[b] = bool(end and marks[b][0])
            pieces += [(b, t, (begins[i + 1] if i + 1 < len(begins) else end) - t) for i, t in enumerate(begins) if end]
        pieces.sort(key=lambda piece: -piece[2])
        self.pieces = pieces
        longest = pieces[0][2] if pieces else 0
        sizes = [sum(length > s for _, _, length in pieces) for s in range(longest)]
        self.batch_sizes = torch.tensor(sizes, dtype=torch.int64)
        self.places = [((t + s), b) for s, size in enumerate(sizes) for b, t, _ in pieces[:size]]  # (time, sample)
        first: dict[int, int] = {}  # by sample, of its pieces
        last: dict[int, int] = {}
        for i, (b, t, _) in enumerate(pieces):
            if b not in first or t < pieces[first[b]][1]:
                first[b] = i
            if b not in last or t > pieces[last[b]][1]:
                last[b] = i
        self.first, self.last = first, last


def _by_segments(
    config: Config,
    layout: Layout,
    x: Tensor,
    states: States,
    weights: Any,
    lengths: Tensor | None,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    if layout.batch_first:
        x = x.transpose(0, 1)
    time, batch = x.shape[:2]
    cut = _Segments(time, batch, lengths, resets)
    initial = _initial(config, x, batch, states.h, states.c)
    if not cut.pieces:
        y = x.new_zeros((time, batch, config.directions * config.hidden_size))
        return _result(layout, y, initial)
    restart = _initial(config, x, batch, states.h_restart, states.c_restart)
    index = torch.tensor([t * batch + b for t, b in cut.places], device=x.device)
    samples = torch.tensor([b for b, _, _ in cut.pieces], device=x.device)
    # By direction: which pieces are entered with the caller's state, and which hold the final one.
    entered, final = [], []
    for direction in range(config.directions):
        entry, leave = (cut.last, cut.first) if direction else (cut.first, cut.last)
        given = {i for b, i in entry.items() if direction or not cut.at_once[b]}
        entered.append([i in given for i in range(len(cut.pieces))])
        final.append([leave.get(b, 0) for b in range(batch)])
    layers = config.num_layers
    given_state = torch.tensor(entered * layers, device=x.device)[..., None]
    hx = tuple(
        torch.where(given_state, s.index_select(1, samples), r.index_select(1, samples))
        for s, r in zip(initial, restart, strict=True)
    )
    rows = x.reshape(time * batch, x.shape[2]).index_select(0, index)
    data, *finals = _torch_call(config, rows, hx, weights, layout, cut.batch_sizes)
    y = x.new_zeros((time * batch, data.shape[1])).index_copy(0, index, data).reshape(time, batch, -1)
    at = torch.tensor(final * layers, device=x.device)[..., None].expand(-1, -1, config.hidden_size)
    valid = torch.tensor([b in cut.first for b in range(batch)], device=x.device)[:, None]
    ends = [torch.where(valid, f.gather(1, at), s) for f, s in zip(finals, initial, strict=False) if f is not None]
    return _result(layout, y, tuple(ends))


def _result(layout: Layout, y: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor | None]:
    return y.transpose(0, 1) if layout.batch_first else y, state[0], state[1] if len(state) > 1 else None
