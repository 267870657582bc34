"""fusedrnn.torch inside torch.compile and torch.export, and its operators under torch's own checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils._pytree import tree_leaves

import fusedrnn.torch as ft

INPUTS, H = 4, 6
NAMES = ["RNN", "LSTM", "GRU"]
pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(module: Any, parameters: Any, *args: Any, **kwargs: Any) -> list[Any]:
    for p in parameters:
        p.grad = None
    x = args[0].clone().requires_grad_()
    out = tree_leaves(module(x, *args[1:], **kwargs))
    sum((o * torch.linspace(0, 1, o.numel()).reshape(o.shape)).sum() for o in out).backward()
    return [*out, x.grad, *(p.grad for p in parameters)]


def assert_alike(a: list[Any], b: list[Any], tolerance: float = 2e-6) -> None:
    for u, v in zip(a, b, strict=True):
        torch.testing.assert_close(u, v, atol=tolerance, rtol=tolerance)


class Model(nn.Module):
    """Ours between layers that the compiler fuses."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = nn.Linear(INPUTS, INPUTS), nn.Linear(H * (1 + options.get("bidirectional", False)), 2)
        self.rnn = getattr(ft, name)(INPUTS, H, 2, batch_first=True, **options)

    def forward(self, x: Any, hx: Any = None, **kwargs: Any) -> Any:
        y, state = self.rnn(torch.tanh(self.before(x)), hx, **kwargs)
        return self.after(y), state


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", NAMES)
def test_compiled_is_eager(name: str, backend: str) -> None:
    """Inference and training as one graph; lengths and resets too."""
    if backend == "inductor" and name != "LSTM":
        pytest.skip("the operator is the same; the C++ compiler takes its time")
    model = Model(name, bidirectional=name == "GRU")
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    x = torch.randn(3, 5, INPUTS)
    parameters = list(model.parameters())
    with torch.no_grad():
        assert_alike(tree_leaves(compiled(x)), tree_leaves(model(x)))
    assert_alike(gradients(compiled, parameters, x), gradients(model, parameters, x))
    if backend == "inductor":
        return
    extra = {"lengths": torch.tensor([5, 0, 3]), "resets": torch.rand(3, 5) < 0.4}
    assert_alike(gradients(compiled, parameters, x, **extra), gradients(model, parameters, x, **extra))


@pytest.mark.parametrize("name", NAMES)
def test_states_and_frozen_weights(name: str) -> None:
    model = Model(name)
    model.rnn.weight_hh_l1.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    h = torch.randn(2, 3, H)
    hx = (h, torch.randn(2, 3, H)) if name == "LSTM" else h
    x = torch.randn(3, 5, INPUTS)
    assert_alike(gradients(compiled, parameters, x, hx), gradients(model, parameters, x, hx))


def test_dynamic_shapes_do_not_compile_again() -> None:
    model = Model("GRU")
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    parameters = list(model.parameters())
    counts = []
    for batch, time in ((3, 5), (2, 7), (4, 9), (5, 11)):
        x = torch.randn(batch, time, INPUTS)
        assert_alike(gradients(compiled, parameters, x), gradients(model, parameters, x))
        counts.append(counter.frame_count)
    assert counts == counts[:1] * 4


def test_dropout_draws_as_eager_does() -> None:
    model = Model("LSTM", dropout=0.5)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    x = torch.randn(3, 5, INPUTS)
    torch.manual_seed(1)
    expected = model(x)[0]
    torch.manual_seed(1)
    assert_alike([compiled(x)[0]], [expected])


def test_cells_and_fallbacks_compile() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.projected = ft.LSTMCell(INPUTS, H), ft.LSTM(H, H, proj_size=3)

        def forward(self, x: Any) -> Any:
            state = None
            rows = []
            for t in range(3):
                state = self.cell(x[t], state)
                rows.append(state[0])
            return self.projected(torch.stack(rows))[0]

    model = Steps()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 2, INPUTS)
    assert_alike(gradients(compiled, list(model.parameters()), x), gradients(model, list(model.parameters()), x))


def test_packed_sequences_compile() -> None:
    module = ft.GRU(INPUTS, H)
    packed = pack_sequence([torch.randn(n, INPUTS) for n in (2, 4, 3)], enforce_sorted=False)

    def run(data: Any) -> Any:
        y, h = module(PackedSequence(data, *packed[1:]))
        return y.data, h

    compiled = torch.compile(run, backend="aot_eager")
    parameters = list(module.parameters())
    assert_alike(gradients(compiled, parameters, packed.data), gradients(run, parameters, packed.data))


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_export_to_onnx_meets_torchs_operators(name: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    model = Model(name).eval()
    graph = torch.export.export(model, (torch.randn(3, 5, INPUTS),)).graph
    assert not [node for node in graph.nodes if "fusedrnn" in str(node.target)]
    assert [node for node in graph.nodes if f"aten.{name.lower()}" in str(node.target)]


@pytest.mark.parametrize("name", NAMES)
def test_export(name: str) -> None:
    """The layer is one node, and the program runs at another batch size."""
    model = Model(name).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(model, (torch.randn(3, 5, INPUTS),), dynamic_shapes={"x": {0: batch}})
    nodes = [node for node in program.graph.nodes if str(node.target).startswith("fusedrnn")]
    assert len(nodes) == 1
    x = torch.randn(7, 5, INPUTS)
    assert_alike([program.module()(x)[0]], [model(x)[0]])


OPCHECKS = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic", "test_autograd_registration")


@pytest.mark.parametrize("given", ["plain", "states", "lengths", "packed"])
@pytest.mark.parametrize("name", NAMES)
def test_operators(name: str, given: str) -> None:
    """torch.library.opcheck of all three."""
    module = getattr(ft, name)(INPUTS, H, 2, bidirectional=True)
    config = (*module._config(torch.empty(0)), False)
    slabs, batch = 4, 3
    x = torch.randn(5, batch, INPUTS)
    lengths = resets = sizes = None
    h = c = hr = cr = None
    if given != "plain":
        h = torch.randn(slabs, batch, H)
        c = torch.randn(slabs, batch, H) if name == "LSTM" else None
    if given == "lengths":
        lengths, resets, hr = torch.tensor([5, 0, 2]), torch.rand(5, batch) < 0.4, torch.randn(slabs, batch, H)
        cr = torch.randn(slabs, batch, H) if name == "LSTM" else None
    if given == "packed":
        x, sizes = torch.randn(6, INPUTS), torch.tensor([3, 2, 1])
    weights = [p.detach() for p in module.parameters()]
    states = (h, c, hr, cr)
    arguments = (x, *states, lengths, resets, sizes, weights, *config)
    torch.library.opcheck(torch.ops.fusedrnn.forward.default, arguments, test_utils=OPCHECKS)
    with_gradient = (
        x.clone().requires_grad_(),
        *(s if s is None else s.clone().requires_grad_() for s in states),
        lengths,
        resets,
        sizes,
        [w.clone().requires_grad_() for w in weights],
        *config,
    )
    if given != "lengths":  # what is left of the room for padded rows is not the same twice
        torch.library.opcheck(torch.ops.fusedrnn.forward_kept.default, with_gradient, test_utils=OPCHECKS)
    y, hn, cn, saved = torch.ops.fusedrnn.forward_kept(*arguments)
    torch.library.opcheck(
        torch.ops.fusedrnn.backward.default,
        (
            torch.randn_like(y), torch.randn_like(hn), torch.randn_like(cn) if name == "LSTM" else None,
            y if name == "LSTM" else None, saved, *arguments, [True] * (1 + len(weights)),
        ),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip
