"""torch's own database of modules, with its sample and error inputs, through fusedrnn.torch."""

from __future__ import annotations

import pickle
import re
import warnings
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.testing._internal.common_modules import module_db
from torch.utils._pytree import tree_leaves, tree_map

import fusedrnn.torch as ft

# The import above forbids every later change of torch's flags in this process; other tests make some.
torch.backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True

CLASSES = {cls.torch_class: cls for cls in (ft.RNN, ft.LSTM, ft.GRU, ft.RNNCell, ft.LSTMCell, ft.GRUCell)}
INFOS = [pytest.param(info, id=info.name) for info in module_db if info.module_cls in CLASSES]

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")


def samples(info: Any, dtype: Any, training: bool) -> list[Any]:
    return list(info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=training))


def pair(info: Any, constructor: Any, dtype: Any, training: bool) -> tuple[Any, Any]:
    """torch's module and ours from one seed."""
    made = []
    for cls in (info.module_cls, CLASSES[info.module_cls]):
        torch.manual_seed(3)
        made.append(cls(*constructor.args, **constructor.kwargs, dtype=dtype).train(training))
    return made[0], made[1]


def leaves(of: Any) -> list[Any]:
    return [leaf for leaf in tree_leaves(of) if isinstance(leaf, torch.Tensor)]


def with_gradient(of: Any) -> Any:
    return tree_map(lambda t: t.detach().clone().requires_grad_() if isinstance(t, torch.Tensor) else t, of)


def assert_alike(ours: list[Any], theirs: list[Any], dtype: Any) -> None:
    assert len(ours) == len(theirs)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_database_is_the_one_we_know() -> None:
    counts = {info.values[0].module_cls.__name__: len(samples(info.values[0], torch.float32, True)) for info in INFOS}
    assert min(counts.values()) >= 2 and sum(counts.values()) >= 87


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("info", INFOS)
def test_forward_and_gradients(info: Any, training: bool, dtype: Any) -> None:
    for sample in samples(info, dtype, training):
        theirs, ours = pair(info, sample.constructor_input, dtype, training)
        assert_alike(list(ours.parameters()), list(theirs.parameters()), dtype)
        results = []
        for module in (ours, theirs):
            args, kwargs = with_gradient((sample.forward_input.args, sample.forward_input.kwargs))
            out = leaves(module(*args, **kwargs))
            sum((o * torch.arange(1, 1 + o.numel(), dtype=dtype).reshape(o.shape)).sum() for o in out).backward()
            results.append([*out, *(t.grad for t in leaves((args, kwargs))), *(p.grad for p in module.parameters())])
        scale = max(1.0, *(float(t.detach().abs().max()) for t in results[1]))
        assert_alike([t / scale for t in results[0]], [t / scale for t in results[1]], dtype)


@pytest.mark.parametrize("info", INFOS)
def test_double_backward(info: Any) -> None:
    seen = set()
    for sample in samples(info, torch.float64, True):
        constructor = sample.constructor_input
        kind = str({k: v for k, v in constructor.kwargs.items() if k not in ("batch_first", "bias")})
        if kind in seen:
            continue
        seen.add(kind)
        constructor.kwargs.pop("hidden_size", None), constructor.kwargs.pop("input_size", None)
        torch.manual_seed(0)
        kwargs = dict(constructor.kwargs)
        if kwargs.get("proj_size"):
            continue  # torch's own runs
        module = CLASSES[info.module_cls](2, 3, **kwargs, dtype=torch.float64)
        is_cell = info.name.endswith("Cell")
        x = torch.randn((2, 2) if is_cell else (2, 2, 2), dtype=torch.float64, requires_grad=True)
        names = [name for name, _ in module.named_parameters()]

        def run(x: Any, *weights: Any, module: Any = module, names: Any = names) -> Any:
            return tuple(leaves(torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x,))))

        weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
        assert torch.autograd.gradgradcheck(run, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("info", INFOS)
def test_error_inputs(info: Any) -> None:
    if info.module_error_inputs_func is None:
        pytest.skip("torch lists none")
    count = 0
    errors = info.module_error_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=False, training=True)
    for error in errors:
        count += 1
        constructor, forward = error.module_error_input.constructor_input, error.module_error_input.forward_input
        with pytest.raises(error.error_type) as caught:
            module = CLASSES[info.module_cls](*constructor.args, **constructor.kwargs)
            module(*forward.args, **forward.kwargs)
        assert re.search(error.error_regex, str(caught.value)), (str(caught.value), error.error_regex)
    assert count >= 4


@pytest.mark.parametrize("info", INFOS)
def test_pickle_copies_and_strided_input(info: Any) -> None:
    for sample in samples(info, torch.float32, False):
        args, kwargs = sample.forward_input.args, sample.forward_input.kwargs
        _, ours = pair(info, sample.constructor_input, torch.float32, False)
        expected = leaves(ours(*args, **kwargs))
        for module in (pickle.loads(pickle.dumps(ours)), deepcopy(ours)):
            assert type(module) is type(ours)
            for a, b in zip(leaves(module(*args, **kwargs)), expected, strict=True):
                assert torch.equal(a, b)
        strided = tree_map(
            lambda t: t.repeat_interleave(2, -1)[..., ::2] if isinstance(t, torch.Tensor) else t, (args, kwargs)
        )
        for a, b in zip(leaves(ours(*strided[0], **strided[1])), expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("info", INFOS)
def test_factory_arguments(info: Any) -> None:
    constructor = samples(info, torch.float32, True)[0].constructor_input
    made = CLASSES[info.module_cls](*constructor.args, **constructor.kwargs, device="meta", dtype=torch.float64)
    assert all(p.device.type == "meta" and p.dtype == torch.float64 for p in made.parameters())
    with warnings.catch_warnings(), torch.device("meta"):
        assert next(CLASSES[info.module_cls](*constructor.args, **constructor.kwargs).parameters()).is_meta
