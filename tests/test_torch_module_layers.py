"""fusedrnn.torch against torch.nn: every combination of options, packed sequences, lengths, resets and dropout."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence
from torch.utils._pytree import tree_leaves, tree_map

import fusedrnn.torch as ft
from fusedrnn.torch import cells
from fusedrnn.torch.kernel import Kernel

NAMES = ["RNN", "LSTM", "GRU"]
B, T, INPUTS, H = 4, 6, 5, 7


def pair(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """torch's module and ours from one seed."""
    made = []
    for module in (nn, ft):
        torch.manual_seed(1)
        made.append(getattr(module, name)(*args, **kwargs))
    return made[0], made[1]


def state(name: str, slabs: int, batch: int, dtype: Any = torch.float64) -> Any:
    h = torch.randn(slabs, batch, H, dtype=dtype)
    return (h, torch.randn_like(h)) if name == "LSTM" else h


def leaves(of: Any) -> list[Any]:
    return [t for t in tree_leaves(of) if isinstance(t, torch.Tensor) and t.is_floating_point()]


def results(module: Any, x: Any, hx: Any = None, seed: int = 5, **kwargs: Any) -> list[Any]:
    """Outputs, and gradients of the inputs and parameters for one loss."""
    x = x if isinstance(x, PackedSequence) else x.detach().clone().requires_grad_()
    if isinstance(x, PackedSequence):
        x = PackedSequence(x.data.detach().clone().requires_grad_(), *x[1:])
    hx = None if hx is None else tree_map(lambda t: t.detach().clone().requires_grad_(), hx)
    torch.manual_seed(seed)
    out = leaves(module(x, hx, **kwargs))
    loss = sum((o * torch.linspace(-1, 2, o.numel(), dtype=o.dtype).reshape(o.shape)).sum() for o in out)
    module.zero_grad()
    loss.backward()
    return [*out, *(t.grad for t in leaves((x, hx))), *(p.grad for p in module.parameters())]


def assert_alike(ours: list[Any], theirs: list[Any], tolerance: float = 1e-11) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


COMBINATIONS = list(product([False, True], repeat=6))


@pytest.mark.parametrize("name", NAMES)
def test_every_combination(name: str) -> None:
    """Bias, directions, batch_first, an initial state, packed (of unequal lengths), dropout; one and two layers."""
    torch.manual_seed(0)
    for bias, both, batch_first, given, packed, dropping in COMBINATIONS:
        for layers in (1, 2) if not dropping else (2,):
            options = {"bias": bias, "bidirectional": both, "batch_first": batch_first, "dropout": 0.4 * dropping}
            theirs, ours = pair(name, INPUTS, H, layers, **options, dtype=torch.float64)
            x: Any = torch.randn(B, T, INPUTS, dtype=torch.float64)
            x = x if batch_first else x.transpose(0, 1).contiguous()
            if packed:
                x = pack_padded_sequence(x, torch.tensor([3, 6, 1, 6]), batch_first, enforce_sorted=False)
            hx = state(name, layers * (1 + both), B) if given else None
            assert_alike(results(ours, x, hx), results(theirs, x, hx))
            with torch.no_grad():
                torch.manual_seed(5)
                inference = leaves(ours(x, hx))
                torch.manual_seed(5)
                assert_alike(inference, leaves(theirs(x, hx)))
            ours.eval(), theirs.eval()
            assert_alike(leaves(ours(x, hx)), leaves(theirs(x, hx)))


@pytest.mark.parametrize("name", NAMES)
def test_packed_is_what_came(name: str) -> None:
    """Names of the batch's order come back as they went in, sorted or not; bits are those of lengths beside padding."""
    _, ours = pair(name, INPUTS, H, 2, bidirectional=True)
    sequences = [torch.randn(n, INPUTS) for n in (2, 5, 5, 1)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    y, s = ours(packed)
    assert torch.equal(y.batch_sizes, packed.batch_sizes) and torch.equal(y.sorted_indices, packed.sorted_indices)
    padded, ends = pad_packed_sequence(y)
    by_lengths, s2 = ours(nn.utils.rnn.pad_sequence(sequences), lengths=[2, 5, 5, 1])
    assert ends.tolist() == [2, 5, 5, 1] and torch.equal(padded, by_lengths)
    for a, b in zip(leaves(s), leaves(s2), strict=True):
        assert torch.equal(a, b)
    ordered = pack_sequence(sorted(sequences, key=len, reverse=True))
    assert ours(ordered)[0].sorted_indices is None
    only = pack_sequence([torch.randn(3, INPUTS)])
    assert torch.equal(ours(only)[0].data, ours(only.data[:, None])[0][:, 0])


@pytest.mark.parametrize("name", NAMES)
def test_lengths(name: str) -> None:
    """As torch's packed sequence says it; a length of 0 leaves the state as it came."""
    for both, batch_first in product([False, True], repeat=2):
        theirs, ours = pair(name, INPUTS, H, 2, bidirectional=both, batch_first=batch_first, dtype=torch.float64)
        x = torch.randn(B, T, INPUTS, dtype=torch.float64)
        x = x if batch_first else x.transpose(0, 1)
        lengths = torch.tensor([3, 6, 1, 5], dtype=torch.int32)
        hx = state(name, 2 * (1 + both), B)

        def by_packing(x: Any, hx: Any, m: Any = theirs, n: Any = lengths, first: bool = batch_first) -> Any:
            y, s = m(pack_padded_sequence(x, n, first, enforce_sorted=False), hx)
            return pad_packed_sequence(y, first, total_length=T)[0], s

        by_packing_module = nn.Module()
        by_packing_module.forward = by_packing  # type: ignore[method-assign]
        by_packing_module.inner = theirs
        assert_alike(results(ours, x, hx, lengths=lengths), results(by_packing_module, x, hx))
        y, s = ours(x, hx, lengths=[0, 6, 0, 2])
        for after, before in zip(leaves(s), leaves(hx), strict=True):
            assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])
        assert not (y if batch_first else y.transpose(0, 1))[0].any()


def by_steps(module: Any, x: Any, hx: Any, resets: Any, reset_state: Any) -> Any:
    """A loop over steps, time-major, as libraries for reinforcement learning write it."""
    rows = []
    for t in range(len(x)):
        keep = (~resets[t])[None, :, None]
        hx = tree_map(lambda s, r, keep=keep: torch.where(keep, s, r), hx, reset_state)
        y, hx = module(x[t : t + 1], hx)
        rows.append(y)
    return torch.cat(rows), hx


class ByLoop(nn.Module):
    def __init__(self, module: nn.Module, reset_state: Any) -> None:
        super().__init__()
        self.module, self.reset_state = module, reset_state

    def forward(self, x: Any, hx: Any, resets: Any) -> Any:
        return by_steps(self.module, x, hx, resets, self.reset_state)


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "given_state"])
@pytest.mark.parametrize("name", NAMES)
def test_resets(name: str, given: bool) -> None:
    """A reset is a fresh state before the step, in both layouts, with gradients."""
    theirs, ours = pair(name, INPUTS, H, dtype=torch.float64)
    _, batch_major = pair(name, INPUTS, H, batch_first=True, dtype=torch.float64)
    x, hx = torch.randn(T, B, INPUTS, dtype=torch.float64), state(name, 1, B)
    resets = torch.rand(T, B) < 0.3
    resets[0, 0] = True
    again = state(name, 1, B) if given else tree_map(torch.zeros_like, hx)
    expected = results(ByLoop(theirs, again), x, hx, resets=resets)
    extra = {"reset_state": again} if given else {}
    assert_alike(results(ours, x, hx, resets=resets, **extra), expected)
    y, s = batch_major(x.transpose(0, 1), hx, resets=resets.t(), **extra)
    assert_alike([y.transpose(0, 1), *leaves(s)], expected[: 1 + len(leaves(hx))])
    alone, _ = ours(x[:, 1], resets=resets[:, 1])
    assert_alike([alone], [ours(x[:, 1:2], resets=resets[:, 1:2])[0][:, 0]])


@pytest.mark.parametrize("name", NAMES)
def test_resets_both_ways_and_torchs_own_operations(name: str) -> None:
    """In two directions, with lengths and dropout: the fused call against torch's operations over the same pieces."""
    _, ours = pair(name, INPUTS, H, 2, bidirectional=True, dtype=torch.float64)
    x, hx, again = torch.randn(T, B, INPUTS, dtype=torch.float64), state(name, 4, B), state(name, 4, B)
    kwargs: Any = {"resets": torch.rand(T, B) < 0.3, "lengths": [6, 0, 4, 1], "reset_state": again}
    kwargs["resets"][0, 2] = True
    fused = results(ours, x, hx, **kwargs)
    with torch.autograd.forward_ad.dual_level():  # not ours
        plain = results(ours, x, hx, **kwargs)
    assert_alike(fused, plain)
    changed = x.clone()
    begin = next((t for t in range(1, 6) if kwargs["resets"][t, 0]), None)
    kwargs["resets"][3, 0], begin = True, 3
    changed[:begin, 0] += 1
    before, after = ours(x, hx, **kwargs)[0], ours(changed, hx, **kwargs)[0]
    assert torch.equal(before[begin:, 0], after[begin:, 0]) and not torch.equal(before[:begin, 0], after[:begin, 0])


@pytest.mark.parametrize("name", NAMES)
def test_bits_do_not_depend_on_the_batch(name: str) -> None:
    _, ours = pair(name, INPUTS, H, 2)
    x = torch.randn(T, B, INPUTS)
    y, _ = ours(x)
    for b in range(B):
        assert torch.equal(ours(x[:, b])[0], y[:, b])


@pytest.mark.parametrize("name", NAMES)
def test_no_sample(name: str) -> None:
    """B = 0, forward and backward."""
    theirs, ours = pair(name, INPUTS, H, bidirectional=True, dtype=torch.float64)
    x = torch.zeros(T, 0, INPUTS, dtype=torch.float64)
    assert_alike(results(ours, x), results(theirs, x))


@pytest.mark.parametrize("name", NAMES)
def test_threads_follow_torch(name: str) -> None:
    """Another number of threads gives the same bits."""
    _, ours = pair(name, 64, 96)
    x = torch.randn(20, 16, 64)
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append(results(ours, x))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*made, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_make_a_sequence(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop over the cell is torch's, with gradients: by the kernels, which take batches that pay."""
    calls = []
    forward = Kernel.forward
    monkeypatch.setattr(Kernel, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))
    big = getattr(ft, kind)(INPUTS, 128)
    big(torch.zeros(64, INPUTS)), big(torch.zeros(1, INPUTS))
    assert len(calls) == 1
    monkeypatch.setattr(cells, "pays", lambda *_: True)
    theirs, ours = pair(kind, INPUTS, H, dtype=torch.float64)

    class Loop(nn.Module):
        def __init__(self, cell: Any) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Any, hx: Any) -> Any:
            rows = []
            for step in x:
                hx = self.cell(step, hx)
                rows.append(hx[0] if kind == "LSTMCell" else hx)
            return torch.stack(rows), hx

    x = torch.randn(T, B, INPUTS, dtype=torch.float64)
    hx = tree_map(lambda t: t[0], state(kind[:-4], 1, B))
    assert_alike(results(Loop(ours), x, hx), results(Loop(theirs), x, hx))
    assert_alike(leaves(ours(x[0, 0])), leaves(theirs(x[0, 0])))


def test_bfloat16_products() -> None:
    """compute_dtype rounds the products alone: near the float32 layer, with gradients of the same size."""
    from fusedrnn import config

    if config()["bfloat16"] == "none":
        pytest.skip("no bfloat16 on this instruction set")
    plain = ft.LSTM(INPUTS, H)
    rounded = ft.LSTM(INPUTS, H, compute_dtype="bfloat16")
    rounded.load_state_dict(plain.state_dict())
    x = torch.randn(T, B, INPUTS)
    a, b = ([t.detach() for t in results(module, x)] for module in (rounded, plain))
    assert not torch.equal(a[0], b[0])
    for u, v in zip(a, b, strict=True):
        assert float((u - v).abs().max()) <= 0.05 * float(v.abs().max())
    assert "compute_dtype=bfloat16" in repr(rounded)
    with pytest.raises(ValueError, match="GRU: compute_dtype is 'float16'; expected None or 'bfloat16'"):
        ft.GRU(INPUTS, H, compute_dtype="float16")


def test_errors_of_our_arguments() -> None:
    lstm, x = ft.LSTM(INPUTS, H), torch.zeros(T, B, INPUTS)
    marks = torch.zeros(T, B, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"LSTM: lengths has shape \(3,\); expected \(batch,\) = \(4,\)"):
        lstm(x, lengths=[1, 2, 3])
    with pytest.raises(ValueError, match=r"LSTM: lengths has an element 7; expected 0 <= length <= time = 6"):
        lstm(x, lengths=[1, 2, 3, 7])
    with pytest.raises(TypeError, match=r"LSTM: lengths has dtype torch.float32; expected an integer dtype"):
        lstm(x, lengths=torch.ones(B))
    with pytest.raises(ValueError, match=r"LSTM: resets has shape \(4, 6\); expected \(time, batch\) = \(6, 4\)"):
        lstm(x, resets=marks.t())
    with pytest.raises(TypeError, match=r"LSTM: resets has dtype torch.float32; expected torch.bool"):
        lstm(x, resets=marks.float())
    with pytest.raises(ValueError, match=r"LSTM: reset_state is given without resets; expected both"):
        lstm(x, reset_state=state("LSTM", 1, B, torch.float32))
    with pytest.raises(ValueError, match=r"LSTM: h of reset_state has shape"):
        lstm(x, resets=marks, reset_state=state("LSTM", 1, 2, torch.float32))
    with pytest.raises(ValueError, match=r"PackedSequence; expected a tensor"):
        lstm(pack_sequence([torch.zeros(2, INPUTS)]), lengths=[2])
    with pytest.raises(ValueError, match=r"LSTM: lengths is given for an input without a batch"):
        lstm(x[:, 0], lengths=[2])
    with pytest.raises(ValueError, match=r"proj_size = 3; expected 0"):
        ft.LSTM(INPUTS, H, proj_size=3)(x, lengths=[1, 2, 3, 4])
    with pytest.raises(RuntimeError, match="Expected hidden"):
        lstm(x, state("LSTM", 1, 2, torch.float32), lengths=[1, 2, 3, 4])
