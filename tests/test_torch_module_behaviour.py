"""What else a module of torch is: hooks, copies, other parametrizations, other tensors, and the words for errors."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils._pytree import tree_leaves

import fusedrnn.torch as ft

INPUTS, H = 4, 6
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
]
PAIRS = [(nn.RNN, ft.RNN), (nn.LSTM, ft.LSTM), (nn.GRU, ft.GRU)]
pairs = pytest.mark.parametrize(("theirs", "ours"), PAIRS, ids=["RNN", "LSTM", "GRU"])


def made(cls: Any, *args: Any, **kwargs: Any) -> Any:
    torch.manual_seed(2)
    return cls(*args, **kwargs)


def x_of(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def y_and_gradients(module: Any, x: Any) -> list[Any]:
    module.zero_grad()
    y, *_ = module(x)
    (y * torch.linspace(0, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    return [y, *(p.grad for p in module.parameters())]


def assert_alike(a: Any, b: Any, tolerance: float = 3e-6) -> None:
    for u, v in zip(a, b, strict=True):
        torch.testing.assert_close(u, v, atol=tolerance, rtol=tolerance)


@pairs
def test_checkpoints_and_repr(theirs: Any, ours: Any) -> None:
    a, b = made(theirs, INPUTS, H, 2, bidirectional=True), made(ours, INPUTS, H, 2, bidirectional=True)
    assert list(a.state_dict()) == list(b.state_dict()) and repr(a) == repr(b)
    other = theirs(INPUTS, H, 2, bidirectional=True)
    b.load_state_dict(other.state_dict(), strict=True)
    assert_alike([b(x_of(3, 2, INPUTS))[0]], [other(x_of(3, 2, INPUTS))[0]])
    assert isinstance(b, nn.RNNBase) and b.all_weights[0][0] is b.weight_ih_l0
    b.flatten_parameters()


def test_constructors_complain_as_torch() -> None:
    for _, ours in PAIRS:
        with pytest.raises(ValueError, match="dropout should be a number in range"):
            ours(INPUTS, H, dropout=2)
        with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
            ours(INPUTS, 0)
        with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
            ours(INPUTS, H, dropout=0.1)
    with pytest.raises(ValueError, match="Unknown nonlinearity"):
        ft.RNN(INPUTS, H, 1, "sigmoid")
    with pytest.raises(ValueError, match="proj_size argument is only supported for LSTM"):
        ft.GRU(INPUTS, H, proj_size=3)
    assert ft.RNN(INPUTS, H, 1, "relu", False, True).batch_first


@pairs
def test_errors_of_a_call_are_torchs(theirs: Any, ours: Any) -> None:
    module = ours(INPUTS, H)
    state: Any = torch.zeros(1, 2, H)
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0 in RNN"):
        module(torch.zeros(0, 2, INPUTS))
    with pytest.raises(ValueError, match="input dtype"):
        module(torch.zeros(3, 2, INPUTS, dtype=torch.float64))
    with pytest.raises(ValueError, match="Expected input to be 2D or 3D, got 4D"):
        module(torch.zeros(1, 3, 2, INPUTS))
    with pytest.raises(RuntimeError, match=r"input.size\(-1\) must be equal to input_size"):
        module(torch.zeros(3, 2, INPUTS + 1))
    wrong = state[:, :1]
    with pytest.raises(RuntimeError, match="Expected hidden"):
        module(torch.zeros(3, 2, INPUTS), (wrong, wrong) if ours is ft.LSTM else wrong)
    flat = state[0]
    with pytest.raises(RuntimeError, match="also be 3-D"):
        module(torch.zeros(3, 2, INPUTS), (flat, flat) if ours is ft.LSTM else flat)


@pairs
def test_changes_in_place_between_forward_and_backward(theirs: Any, ours: Any) -> None:
    """x and the weights are needed as they were; y of an LSTM too, as torch's is, but not that of the others."""
    for change in ("x", "weight"):
        module = ours(INPUTS, H)
        x = x_of(3, 2, INPUTS).requires_grad_() * 1
        y, _ = module(x)
        with torch.no_grad():
            (x if change == "x" else module.weight_hh_l0).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    module = made(ours, INPUTS, H)
    y, _ = module(x_of(3, 2, INPUTS))
    y = torch.relu_(y)
    if ours is ft.LSTM:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    else:
        y.sum().backward()
        reference = made(theirs, INPUTS, H)
        torch.relu(reference(x_of(3, 2, INPUTS))[0]).sum().backward()
        assert_alike([p.grad for p in module.parameters()], [p.grad for p in reference.parameters()])


@pairs
def test_a_graph_walked_twice(theirs: Any, ours: Any) -> None:
    module = ours(INPUTS, H, 2)
    y, _ = module(x_of(3, 2, INPUTS))
    y.sum().backward(retain_graph=True)
    first = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    y.sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(module.parameters(), first, strict=True))


def test_a_graph_walked_by_several_threads() -> None:
    module = made(ft.GRU, 64, 96, 2)
    y, _ = module(x_of(40, 16, 64))
    gradients: list[list[Any]] = [[] for _ in range(4)]

    def walk(into: list[Any]) -> None:
        for _ in range(3):
            into.append(torch.autograd.grad(y.sum(), list(module.parameters()), retain_graph=True))

    threads = [threading.Thread(target=walk, args=(into,)) for into in gradients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(each) == 3 for each in gradients)
    expected = gradients[0][0]
    assert all(torch.equal(a, b) for each in gradients for made in each for a, b in zip(made, expected, strict=True))


@pairs
def test_frozen_parts(theirs: Any, ours: Any) -> None:
    a, b = made(theirs, INPUTS, H, 2), made(ours, INPUTS, H, 2)
    for module in (a, b):
        module.weight_hh_l0.requires_grad_(False)
        module.bias_ih_l1.requires_grad_(False)
    grads = []
    for module in (a, b):
        x = x_of(3, 2, INPUTS).requires_grad_()
        module(x)[0].square().sum().backward()
        grads.append([x.grad, *(p.grad for p in module.parameters() if p.requires_grad)])
        assert module.weight_hh_l0.grad is None
    assert_alike(grads[1], grads[0])
    for module in (a, b):
        module.requires_grad_(False)
        x = x_of(3, 2, INPUTS).requires_grad_()
        module(x)[0].square().sum().backward()
        grads.append([x.grad])
    assert_alike(grads[3], grads[2])


@pairs
def test_hooks_run(theirs: Any, ours: Any) -> None:
    module, calls = ours(INPUTS, H), []
    module.register_forward_pre_hook(lambda *_: calls.append("pre"))
    module.register_forward_hook(lambda *_: calls.append("forward"))
    module.register_full_backward_hook(lambda *_: calls.append("backward"))
    module.weight_hh_l0.register_hook(lambda g: calls.append("weight"))
    module.weight_hh_l0.register_post_accumulate_grad_hook(lambda p: calls.append("accumulated"))
    module(x_of(3, 2, INPUTS).requires_grad_())[0].sum().backward()
    assert sorted(calls) == ["accumulated", "backward", "forward", "pre", "weight"]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_weights_that_an_optimizer_changes(optimizer: Any, fused: bool) -> None:
    """Fused optimizers change values without a new version: the kernels see it all the same."""
    a, b = made(nn.GRU, INPUTS, H), made(ft.GRU, INPUTS, H)
    for module in (a, b):
        steps = optimizer(module.parameters(), lr=0.05, fused=fused)
        for _ in range(4):
            y_and_gradients(module, x_of(3, 2, INPUTS))
            steps.step()
    assert_alike([b(x_of(3, 2, INPUTS))[0]], [a(x_of(3, 2, INPUTS))[0]], 2e-5)


@pairs
def test_weights_that_change_by_other_ways(theirs: Any, ours: Any) -> None:
    a, b = made(theirs, INPUTS, H), made(ours, INPUTS, H)
    x = x_of(3, 2, INPUTS)

    def changes(module: Any) -> Any:
        with torch.inference_mode():
            yield module(x)[0].clone()
        with torch.no_grad():
            module.weight_ih_l0.data.add_(0.1)
            yield module(x)[0]
            module.weight_hh_l0.data = module.weight_hh_l0.data * 0.5
            yield module(x)[0]
            module.bias_ih_l0.numpy()[...] = 0.3
            yield module(x)[0]
            vector = nn.utils.parameters_to_vector(module.parameters()) * 0.9
            nn.utils.vector_to_parameters(vector, module.parameters())
            yield module(x)[0]
            old = module.weight_ih_l0
            del module.weight_ih_l0
            module.weight_ih_l0 = nn.Parameter(old * 2)
            yield module(x)[0]
            module.to(torch.float64)
            yield module(x.double())[0].float()
            module.to(torch.float32)
            yield module(x)[0]

    for u, v in zip(list(changes(b)), list(changes(a)), strict=True):
        assert_alike([u], [v])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
        lambda m: parametrizations.spectral_norm(m, "weight_hh_l0"),
        lambda m: prune.l1_unstructured(m, "weight_hh_l0", amount=0.3),
        lambda m: nn.utils.spectral_norm(m, "weight_hh_l0"),
    ],
    ids=["weight_norm", "spectral_norm", "prune", "old_spectral_norm"],
)
@pairs
def test_reparametrized_weights(theirs: Any, ours: Any, wrap: Any) -> None:
    made_of = []
    for cls in (theirs, ours):
        module = made(cls, INPUTS, H)
        torch.manual_seed(4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wrap(module)
        made_of.append(y_and_gradients(module, x_of(3, 2, INPUTS)))
    assert_alike(made_of[1], made_of[0], 1e-5)


def test_weight_drop_by_hand_and_tying() -> None:
    """A weight that is deleted and set as a tensor, and one parameter under two names."""
    outputs = []
    for cls in (nn.LSTM, ft.LSTM):
        module = made(cls, H, H)
        raw = module.weight_hh_l0
        del module._parameters["weight_hh_l0"]
        module.register_parameter("weight_hh_raw", raw)
        torch.manual_seed(3)
        module.weight_hh_l0 = nn.functional.dropout(raw, 0.5)
        module.weight_ih_l0 = raw
        outputs.append(y_and_gradients(module, x_of(3, 2, H)))
    assert_alike(outputs[1], outputs[0])


@pairs
def test_functional_call_and_per_sample_gradients(theirs: Any, ours: Any) -> None:
    a, b = made(theirs, INPUTS, H), made(ours, INPUTS, H)
    other = {name: p.detach() * 0.5 for name, p in a.named_parameters()}
    x = x_of(3, 2, INPUTS)
    assert_alike([torch.func.functional_call(b, other, (x,))[0]], [torch.func.functional_call(a, other, (x,))[0]])
    made_of = []
    for module in (a, b):
        parameters = {name: p.detach() for name, p in module.named_parameters()}

        def loss(parameters: Any, sample: Any, module: Any = module) -> Any:
            return torch.func.functional_call(module, parameters, (sample,))[0].square().sum()

        made_of.append([torch.func.grad(loss)(parameters, x)[name] for name in parameters])
    assert_alike(made_of[1], made_of[0])


@pairs
def test_copies_and_pickles(theirs: Any, ours: Any) -> None:
    module = ours(INPUTS, H)
    expected = module(x_of(3, 2, INPUTS))[0]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), copy.copy(module)):
        assert torch.equal(other(x_of(3, 2, INPUTS))[0], expected)
    assert copy.deepcopy(module).weight_ih_l0 is not module.weight_ih_l0
    gone = weakref.ref(module)
    del module, other
    gc.collect()
    assert gone() is None


@pairs
def test_other_tensors_are_torchs(theirs: Any, ours: Any) -> None:
    """Half precision, autocast, meta, fake tensors, forward AD and double backward: torch's own, same weights."""
    a, b = made(theirs, INPUTS, H), made(ours, INPUTS, H)
    x = x_of(3, 2, INPUTS)
    with torch.autocast("cpu", torch.bfloat16):
        u, v = a(x)[0], b(x)[0]
    assert u.dtype == v.dtype
    assert_alike([v], [u], 0)
    assert b.to("meta")(x.to("meta"))[0].is_meta
    b = made(ours, INPUTS, H)
    half = [m.to(torch.bfloat16)(x.bfloat16())[0] for m in (copy.deepcopy(a), copy.deepcopy(b))]
    assert_alike([half[1]], [half[0]], 0)
    double = [copy.deepcopy(m).double() for m in (a, b)]
    tangents = []
    for module in double:
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x.double(), torch.ones_like(x.double()))
            tangents.append(torch.autograd.forward_ad.unpack_dual(module(dual)[0]).tangent)
    assert_alike([tangents[1]], [tangents[0]], 1e-12)
    second = []
    for module, dtype in ((b, torch.float32), (double[0], torch.float64)):  # oneDNN's LSTM has none in float32
        z = x.to(dtype).requires_grad_()
        grad = torch.autograd.grad(module(z)[0].square().sum(), z, create_graph=True)[0]
        second.append(torch.autograd.grad(grad.square().sum(), z)[0].float())
    assert_alike([second[0]], [second[1]], 1e-5)


def test_saved_tensors_hooks_and_checkpointing() -> None:
    from torch.utils.checkpoint import checkpoint

    module, x = made(ft.GRU, INPUTS, H), x_of(3, 2, INPUTS)
    expected = y_and_gradients(module, x)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy(force=True).copy(), torch.from_numpy):
        assert_alike(y_and_gradients(module, x), expected, 0)

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Any) -> Any:
            return checkpoint(self.inner, x, use_reentrant=False)

    assert_alike(y_and_gradients(Checkpointed(), x), expected, 0)


def test_to_torch_shares_weights() -> None:
    for ours in (ft.RNN, ft.LSTM, ft.GRU, ft.RNNCell, ft.LSTMCell, ft.GRUCell):
        module = made(ours, INPUTS, H)
        back = module.to_torch()
        assert type(back) is ours.torch_class
        assert all(p is q for p, q in zip(module.parameters(), back.parameters(), strict=True))
        x = x_of(2, INPUTS) if issubclass(ours, nn.RNNCellBase) else x_of(3, 2, INPUTS)
        assert_alike([t.detach() for t in tree_leaves(module(x))], [t.detach() for t in tree_leaves(back(x))])


def test_scripting_and_quantization_name_the_way_out() -> None:
    model = nn.Sequential(ft.LSTM(INPUTS, H))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            RuntimeError, match=r"LSTM: torch.jit.script cannot compile it; expected torch.nn.LSTM: .*to_torch"
        ):
            torch.jit.script(model)
        for specification in (None, {nn.LSTM}, {ft.LSTM}):
            with pytest.raises(RuntimeError, match=r"LSTM: torch.ao.quantization .*to_torch"):
                torch.ao.quantization.quantize_dynamic(model, specification)
        torch.ao.quantization.quantize_dynamic(nn.Sequential(ft.LSTM(INPUTS, H), nn.Linear(H, 2)), {nn.Linear})
        assert torch.jit.script(nn.Sequential(model[0].to_torch())) is not None
        traced = torch.jit.trace(model[0], (x_of(3, 2, INPUTS),))
    assert_alike([traced(x_of(3, 2, INPUTS))[0]], [model[0](x_of(3, 2, INPUTS))[0]])


class Speech(nn.Module):
    """A model with most kinds of layers in it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(INPUTS, H, 2, bidirectional=True)
        self.blocks = nn.ModuleList([nn.GRU(2 * H, H), nn.RNN(H, H)])
        self.cell = nn.GRUCell(H, H)
        self.projected = nn.LSTM(H, H, proj_size=3)
        self.own = type("MyLSTM", (nn.LSTM,), {})(3, H)
        self.head = nn.Linear(H, 2)

    def forward(self, x: Any) -> Any:
        x, _ = self.lstm(x)
        for block in self.blocks:
            x, _ = block(x)
        x = torch.stack([self.cell(step) for step in x])
        x, _ = self.own(self.projected(x)[0])
        return self.head(x)


def test_replace_and_restore() -> None:
    torch.manual_seed(0)
    model = Speech()
    model.lstm.register_forward_hook(lambda *_: seen.append(1))
    seen: list[int] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = x_of(3, 2, INPUTS)
    expected, keys = model(x), list(model.state_dict())
    identity, weight = model.lstm, model.lstm.weight_hh_l1
    report = ft.replace(model)
    assert report.replaced == {"lstm": "LSTM", "blocks.0": "GRU", "blocks.1": "RNN", "cell": "GRUCell"}
    assert set(report.kept) == {"projected", "own"} and "proj_size" in report.kept["projected"]
    text = str(report)
    assert text.startswith("replaced 4 of 6 recurrent modules") and "blocks.0: GRU" in text and "own: kept," in text
    assert model.lstm is identity and type(model.lstm) is ft.LSTM and model.lstm.weight_hh_l1 is weight
    assert list(model.state_dict()) == keys
    assert_alike([model(x)], [expected])
    model(x).sum().backward()
    optimizer.step()
    changed = model(x)
    assert ft.replace(model).kept["lstm"] == "it is fusedrnn's"
    back = ft.restore(model)
    assert set(back.replaced) == set(report.replaced) and str(back).startswith("restored 4")
    assert type(model.lstm) is nn.LSTM and "_kernels" not in vars(model.lstm)
    assert_alike([model(x)], [changed])
    assert len(seen) == 5
    for change in (ft.replace, ft.restore):
        with pytest.raises(TypeError, match=r"model is of type int; expected a torch\.nn.Module"):
            change(3)  # type: ignore[arg-type]
    assert ft.replace(model.head).replaced == {} and ft.replace(model.cell).replaced == {"": "GRUCell"}
    parametrized = nn.GRU(INPUTS, H)
    parametrizations.weight_norm(parametrized, "weight_hh_l0")
    before = parametrized(x)[0]
    assert ft.replace(parametrized).replaced == {"": "GRU"} and isinstance(parametrized, ft.GRU)
    assert_alike([parametrized(x)[0]], [before])
    ft.restore(parametrized)
    assert isinstance(parametrized, nn.GRU)


def test_replace_names_what_is_torchscript() -> None:
    model = nn.Sequential(nn.Linear(INPUTS, INPUTS), torch.jit.script(nn.LSTM(INPUTS, H)))
    report = ft.replace(model)
    assert not report.replaced and report.kept == {"1": "this LSTM is TorchScript: its code is fixed"}
    assert "1: kept, this LSTM is TorchScript" in str(report)


class Encoder(nn.Module):
    def __init__(self, layer: Any, cell: Any) -> None:
        super().__init__()
        self.first, self.layer, self.cell = nn.Linear(INPUTS, INPUTS), layer, cell

    def forward(self, x: Any, hx: Any) -> Any:
        y, h = self.layer(self.first(x), hx)
        return self.cell(y[-1]), h


def test_torch_fx_records_a_call_of_the_module() -> None:
    state = x_of(1, 2, H)
    theirs, ours = (made(Encoder, made(library.GRU, INPUTS, H), made(library.GRUCell, H, H)) for library in (nn, ft))
    ours.load_state_dict(theirs.state_dict())
    graphs = [torch.fx.symbolic_trace(encoder) for encoder in (theirs, ours)]
    assert [[(n.op, n.target) for n in graph.graph.nodes if n.op == "call_module"] for graph in graphs] == [
        [("call_module", "first"), ("call_module", "layer"), ("call_module", "cell")]
    ] * 2
    torch.testing.assert_close(graphs[1](x_of(5, 2, INPUTS), state), graphs[0](x_of(5, 2, INPUTS), state))

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = made(ft.LSTM, INPUTS, H)

        def forward(self, x: Any, lengths: Any) -> Any:
            return self.lstm(x, lengths=lengths)[0]

    cut, x, lengths = Cut(), x_of(5, 2, INPUTS), torch.tensor([2, 5])
    torch.testing.assert_close(torch.fx.symbolic_trace(cut)(x, lengths), cut(x, lengths), rtol=0, atol=0)


def test_cells_say_what_torchs_say() -> None:
    cell = ft.RNNCell(INPUTS, 128, nonlinearity="tan")
    with pytest.raises(RuntimeError, match="Unknown nonlinearity: tan"):
        cell(x_of(64, INPUTS))
    for theirs, ours in ((nn.LSTMCell, ft.LSTMCell), (nn.GRUCell, ft.GRUCell)):
        for args in ((x_of(9, INPUTS + 1),), (x_of(9, INPUTS), 3), (x_of(1, 9, INPUTS),), ([1.0],)):
            words = []
            for cls in (theirs, ours):
                with pytest.raises((RuntimeError, ValueError, TypeError, AttributeError)) as caught:
                    cls(INPUTS, H)(*args)
                words.append((caught.type, str(caught.value)))
            assert words[0] == words[1]


def test_patched() -> None:
    with ft.patched():
        assert type(nn.LSTM(INPUTS, H)) is ft.LSTM and nn.modules.rnn.GRUCell is ft.GRUCell
        module = nn.GRU(INPUTS, H)
        assert isinstance(module, nn.GRU) and module(x_of(3, 2, INPUTS))[0].shape == (3, 2, H)
    assert nn.LSTM is not ft.LSTM and type(nn.LSTM(INPUTS, H)).__module__.startswith("torch")
    with pytest.raises(KeyError), ft.patched():
        raise KeyError
    assert nn.RNN is not ft.RNN
