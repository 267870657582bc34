"""A module's calls after its first one, which go a shorter way: nothing may have changed that they do not see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_sequence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fusedrnn.torch as ft
from fusedrnn.torch import layer

INPUTS, H = 4, 6
pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),  # of torch's own checks
    pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights:UserWarning"),  # where torch exports
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
]
PAIRS = [(nn.RNN, ft.RNN), (nn.LSTM, ft.LSTM), (nn.GRU, ft.GRU)]
pairs = pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=["RNN", "LSTM", "GRU"])


def x_of(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def called_before(theirs: Any, ours: Any, **kwargs: Any) -> list[Any]:
    """Both modules with the same weights, and with the short way open: with and without gradients."""
    both = []
    for cls in (theirs, ours):
        torch.manual_seed(2)
        module = cls(INPUTS, H, 2, **kwargs)
        module(x_of(3, 2, INPUTS))
        module(x_of(3, 2, INPUTS, dtype=torch.float32))
        both.append(module)
    return both


class Named(torch.Tensor):
    """A subclass that says what it is."""


def state_of(module: Any, *shape: int, **kwargs: Any) -> Any:
    h = torch.full(shape, 0.3, **kwargs)
    return (h, torch.full(shape, -0.4, **kwargs)) if module.mode == "LSTM" else h


def doubled(m: Any) -> Any:
    return m.double()(x_of(3, 2, INPUTS, dtype=torch.float64))


def renewed(m: Any) -> Any:
    m.weight_hh_l1.data = m.weight_hh_l1.data.flip(0)
    return m(x_of(3, 2, INPUTS))


def transposed(m: Any) -> Any:
    m.weight_hh_l0.data = m.weight_hh_l0.data.t().contiguous().t() * 2
    return m(x_of(3, 2, INPUTS))


def negated(m: Any) -> Any:
    m.weight_ih_l0 = nn.Parameter(torch._neg_view(m.weight_ih_l0.detach()))
    return m(x_of(3, 2, INPUTS))


def subclassed(m: Any) -> Any:
    return m(x_of(3, 2, INPUTS).as_subclass(Named))


def subclassed_weight(m: Any) -> Any:
    m.bias_ih_l0 = nn.Parameter(m.bias_ih_l0.detach().as_subclass(Named))
    return m(x_of(3, 2, INPUTS))


def normed(m: Any) -> Any:
    parametrizations.weight_norm(m, "weight_hh_l0")
    return m(x_of(3, 2, INPUTS))


def pruned(m: Any) -> Any:
    prune.l1_unstructured(m, "weight_ih_l1", amount=0.5)
    return m(x_of(3, 2, INPUTS))


def replaced_by_hand(m: Any) -> Any:
    tensor = m.weight_hh_l0.detach() * 2
    del m.weight_hh_l0
    m.weight_hh_l0 = tensor
    return m(x_of(3, 2, INPUTS))


def functional(m: Any) -> Any:
    return torch.func.functional_call(m, {"weight_hh_l0": m.weight_hh_l0 * 3}, (x_of(3, 2, INPUTS),))


def mapped(m: Any) -> Any:
    return torch.func.vmap(lambda x: m(x)[0])(x_of(5, 3, 2, INPUTS))


def pushed_forward(m: Any) -> Any:
    x = x_of(3, 2, INPUTS, dtype=torch.float64)  # oneDNN's LSTM, of float32, has no forward derivative
    m.double()(x)
    with forward_ad.dual_level():
        y, _ = m(forward_ad.make_dual(x, torch.ones_like(x)))
        return tuple(forward_ad.unpack_dual(y))


def pushed_weights(m: Any) -> Any:
    x = x_of(3, 2, INPUTS, dtype=torch.float64)
    m.double()(x)
    weight = m.weight_hh_l0.detach()
    return torch.func.jvp(
        lambda w: torch.func.functional_call(m, {"weight_hh_l0": w}, (x,))[0], (weight,), (torch.ones_like(weight),)
    )


def cast(m: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m(x_of(3, 2, INPUTS))


def traced(m: Any) -> Any:
    return torch.jit.trace(m, x_of(3, 2, INPUTS))(x_of(3, 2, INPUTS) * 2)


def exported(m: Any) -> Any:
    return torch.export.export(m, (x_of(3, 2, INPUTS),)).module()(x_of(3, 2, INPUTS) * 2)


def hooked(m: Any) -> Any:
    m.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    m.register_forward_hook(lambda _, __, out: (out[0] + 1, out[1]))
    return m(x_of(3, 2, INPUTS))


def turned(m: Any) -> Any:
    m.batch_first = True
    return m(x_of(3, 2, INPUTS))


def without_biases(m: Any) -> Any:
    m.bias = False
    m._flat_weights_names = [name for name in m._flat_weights_names if "bias" not in name]
    m._flat_weights = [getattr(m, name) for name in m._flat_weights_names]
    return m(x_of(3, 2, INPUTS))


def with_state(m: Any) -> Any:
    return m(x_of(3, 2, INPUTS), state_of(m, 2, 2, H, requires_grad=True))


def with_strided_state(m: Any) -> Any:
    h = x_of(2, H, 2).transpose(1, 2)
    return m(x_of(3, INPUTS, 2).transpose(1, 2), (h, h * 2) if m.mode == "LSTM" else h)


def unbatched(m: Any) -> Any:
    return m(x_of(3, INPUTS), state_of(m, 2, H))


def packed(m: Any) -> Any:
    y, state = m(pack_sequence([x_of(3, INPUTS), x_of(1, INPUTS)], enforce_sorted=False))
    return y.data, state


def with_no_sample(m: Any) -> Any:
    return m(x_of(3, 0, INPUTS))


def inferring(m: Any) -> Any:
    with torch.inference_mode():
        return m(x_of(3, 2, INPUTS))


def with_gradient_of_x(m: Any) -> Any:
    x = x_of(3, 2, INPUTS).requires_grad_()
    m.requires_grad_(False)
    m(x)[0].sum().backward()
    return x.grad


def expanded(m: Any) -> Any:
    x, h = x_of(1, 2, INPUTS).expand(3, 2, INPUTS), x_of(1, 1, H).expand(2, 2, H)
    return m(x, (h, h) if m.mode == "LSTM" else h)


def with_a_nan(m: Any) -> Any:
    x = x_of(3, 2, INPUTS)
    x[1, 1], x[2, 0] = float("nan"), float("inf")
    return torch.nan_to_num(m(x)[0])


def step_by_step(m: Any) -> Any:
    total, hx = torch.zeros(()), None
    for row in x_of(3, 2, INPUTS):
        y, hx = m(row[None], hx)
        total = total + y.square().sum()
    return torch.autograd.grad(total, list(m.parameters())) if total.requires_grad else total


def written_through_numpy(m: Any) -> Any:
    m.weight_hh_l0.detach().numpy()[:] *= 2
    return m(x_of(3, 2, INPUTS))


def of_a_final_state_alone(m: Any) -> Any:
    x = x_of(3, 2, INPUTS).requires_grad_()
    state = m(x)[1]
    last = state[1] if m.mode == "LSTM" else state
    return torch.autograd.grad(last.sum(), [x, m.weight_ih_l0, m.bias_hh_l1])


def twice_differentiated(m: Any) -> Any:
    x = x_of(3, 2, INPUTS, dtype=torch.float64).requires_grad_()  # oneDNN has no second derivative
    (once,) = torch.autograd.grad(m.double()(x)[0].square().sum(), x, create_graph=True)
    return torch.autograd.grad(once.square().sum(), x)


LATER: list[Callable[[Any], Any]] = [
    doubled, renewed, transposed, negated, subclassed, subclassed_weight, normed, pruned, replaced_by_hand,
    functional, mapped, pushed_forward, pushed_weights, cast, traced, exported, hooked, turned, without_biases,
    with_state, with_strided_state, unbatched, packed, with_no_sample, inferring, with_gradient_of_x, expanded,
    with_a_nan, step_by_step, written_through_numpy, of_a_final_state_alone, twice_differentiated,
]  # fmt: skip


def leaves_or_error(call: Callable[[], Any]) -> list[Any]:
    """What comes out; in its place what torch does not have: vmap of a plain RNN, or of any without gradients."""
    try:
        leaves: list[Any] = tree_leaves(call())
    except RuntimeError as error:
        return [torch.zeros(0), str(error)]
    return leaves


@pairs
@pytest.mark.parametrize("later", LATER, ids=lambda f: f.__name__)
@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
def test_later_calls_are_torchs(theirs: Any, ours: Any, later: Any, grad: bool) -> None:
    results = []
    for module in called_before(theirs, ours):
        with torch.set_grad_enabled(
            grad or later.__name__ in ("with_gradient_of_x", "of_a_final_state_alone", "twice_differentiated")
        ):
            results.append(
                leaves_or_error(lambda m=module: later(m)) if later is mapped else tree_leaves(later(module))
            )
    tolerance = 2e-2 if later is cast else 3e-6
    for a, b in zip(*results, strict=True):
        assert type(a) is type(b)
        if isinstance(a, str):
            assert a == b
            continue
        assert a.requires_grad == b.requires_grad
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pairs
def test_later_errors_are_torchs(theirs: Any, ours: Any) -> None:
    def mixed(m: Any) -> Any:
        m.bias_hh_l1.data = m.bias_hh_l1.data.double()
        return m(x_of(3, 2, INPUTS))

    def shrunk(m: Any) -> Any:
        m.double()(x_of(3, 2, INPUTS, dtype=torch.float64))
        m.weight_hh_l0.data = m.weight_hh_l0.data[:, : H - 1].contiguous()  # of float32 oneDNN takes any
        return m(x_of(3, 2, INPUTS, dtype=torch.float64))

    def moved(m: Any) -> Any:
        m.to("meta")
        return m(x_of(3, 2, INPUTS))

    wrong: list[Callable[[Any], Any]] = [
        lambda m: m(x_of(0, 2, INPUTS)),
        lambda m: m(x_of(3, 2, INPUTS + 1)),
        lambda m: m(x_of(3, 2, INPUTS), state_of(m, 2, 3, H)),
        lambda m: m(x_of(3, 2, INPUTS), state_of(m, 2, 2, H, dtype=torch.float64)),
        lambda m: m(x_of(3, 2, INPUTS), state_of(m, 2, H)),
        lambda m: m(x_of(3, 2, INPUTS, dtype=torch.float64)),
        lambda m: m(x_of(3, 2, INPUTS).long()),
        lambda m: m(x_of(3, 2, INPUTS).to_sparse()),
        lambda m: m(x_of(1, 3, 2, INPUTS)),
        lambda m: m(torch.nested.nested_tensor([x_of(3, INPUTS), x_of(2, INPUTS)])),
        lambda m: m([1.0]),
        mixed,
        shrunk,
        moved,
    ]
    for call in wrong:
        kinds = []
        for module in called_before(theirs, ours):
            try:
                call(module)
            except Exception as error:
                kinds.append((type(error), str(error)))
        assert len(kinds) == 2 and kinds[0] == kinds[1]


@pairs
def test_dropout_between_layers_is_torchs_later(theirs: Any, ours: Any) -> None:
    results = []
    for module in called_before(theirs, ours, dropout=0.5):
        torch.manual_seed(5)
        results.append([module(x_of(3, 2, INPUTS))[0] for _ in range(2)])
        module.eval()
        results[-1].append(module(x_of(3, 2, INPUTS))[0])
        module.train()
        results[-1].append(module(x_of(3, 2, INPUTS))[0])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=3e-6, rtol=3e-6)


@pairs
def test_the_short_way_is_taken_and_has_the_bits_of_the_long_one(
    theirs: Any, ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kwargs in ({}, {"batch_first": True, "bidirectional": True}, {"bias": False}):
        _, module = called_before(theirs, ours, **kwargs)
        x, hx = (
            x_of(3, 2, INPUTS),
            state_of(module, 4 if module.bidirectional else 2, 3 if module.batch_first else 2, H),
        )
        calls = [lambda x=x, m=module: m(x), lambda x=x, m=module, hx=hx: m(x, hx)]
        with monkeypatch.context() as patch:
            patch.setattr(layer, "direct", lambda *_: None)
            expected = [tree_leaves(call()) for call in calls]
        with monkeypatch.context() as patch:
            patch.setattr(type(module), "_call", None)
            for call, leaves in zip(calls, expected, strict=True):
                for a, b in zip(tree_leaves(call()), leaves, strict=True):
                    assert torch.equal(a, b) and a.grad_fn is not None


@pairs
def test_tracers_see_later_calls(theirs: Any, ours: Any) -> None:
    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    _, module = called_before(theirs, ours)
    names: list[str] = []
    expected = module(x_of(3, 2, INPUTS))[0]
    with Names(), torch.no_grad():
        module(x_of(3, 2, INPUTS))
    assert "fusedrnn.forward.default" in names
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x_of(3, 2, INPUTS))[0], expected)
