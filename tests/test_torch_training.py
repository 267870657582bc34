"""Losses, optimizers and clipping do what torch's do."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.training import binary_cross_entropy, clip_grad_norm, cross_entropy, huber, mae, mse, schedules

torch = pytest.importorskip("torch")

Array = NDArray[Any]
F = torch.nn.functional


def against_torch(
    loss: Any, expected: Any, pred: Array, target: Array, tolerance: float = 1e-14, **kwargs: Any
) -> None:
    """Compare value and gradient with torch's, in float64."""
    leaf = torch.from_numpy(pred.copy()).requires_grad_()
    truth = expected(leaf, torch.from_numpy(target))
    truth.backward()
    value, grad = loss(pred, target, **kwargs)
    assert abs(value - truth.item()) <= tolerance * max(1.0, abs(truth.item()))
    assert leaf.grad is not None
    assert np.max(np.abs(grad - leaf.grad.numpy())) <= tolerance
    assert isinstance(value, float) and grad.dtype == pred.dtype


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (mse, F.mse_loss),
        (mae, F.l1_loss),
        (huber, F.huber_loss),
        (functools.partial(huber, delta=0.3), functools.partial(F.huber_loss, delta=0.3)),
    ],
)
def test_regression_losses_equal_torchs(loss: Any, expected: Any) -> None:
    rng = np.random.default_rng(1)
    for shape in ((7,), (4, 3), (2, 5, 3)):
        against_torch(loss, expected, rng.standard_normal(shape), rng.standard_normal(shape))


def test_binary_cross_entropy_equals_torchs() -> None:
    rng = np.random.default_rng(1)
    against_torch(
        binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        3 * rng.standard_normal((4, 3)),
        rng.uniform(size=(4, 3)),
    )


def test_cross_entropy_equals_torchs() -> None:
    rng = np.random.default_rng(1)
    pred, target = 3 * rng.standard_normal((4, 5, 6)), rng.integers(0, 6, (4, 5))
    target[1, 2:] = -100
    weight = rng.uniform(0.1, 2, 6)

    def expected(logits: Any, classes: Any, **kwargs: Any) -> Any:
        return F.cross_entropy(logits.reshape(-1, 6), classes.reshape(-1), **kwargs)

    against_torch(cross_entropy, expected, pred, target)
    weighted = functools.partial(expected, weight=torch.from_numpy(weight))
    against_torch(cross_entropy, weighted, pred, target, weight=weight)
    ignoring = functools.partial(expected, ignore_index=2)
    target[target == -100] = 2
    against_torch(cross_entropy, ignoring, pred, target, ignore_index=2)


OPTIMIZERS: list[tuple[Any, Any, dict[str, Any]]] = [
    (fr.SGD, torch.optim.SGD, {"lr": 0.1}),
    (fr.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (fr.SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.2}),
    (fr.RMSprop, torch.optim.RMSprop, {"lr": 0.01}),
    (fr.RMSprop, torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1, "eps": 1e-3}),
    (fr.Adam, torch.optim.Adam, {}),
    (fr.Adam, torch.optim.Adam, {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}),
    (fr.AdamW, torch.optim.AdamW, {}),
    (fr.AdamW, torch.optim.AdamW, {"lr": 0.02, "betas": (0.7, 0.9), "weight_decay": 0.5}),
]


def set_gradients(model: fr.Layer, rng: np.random.Generator) -> None:
    for grad in model.grads.values():
        grad[:] = rng.standard_normal(grad.shape)


@pytest.mark.parametrize(("ours", "theirs", "options"), OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-14), ("float32", 1e-6)])
def test_optimizers_equal_torchs(ours: Any, theirs: Any, options: Any, dtype: str, tolerance: float) -> None:
    model = fr.Sequential(fr.Linear(3, 4, dtype=dtype, seed=1), fr.Linear(4, 2, dtype=dtype, seed=2))
    arrays = dict(model.params)
    params = {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in arrays.items()}
    optimizer, oracle = ours(model, **options), theirs(params.values(), **options)
    rng = np.random.default_rng(3)
    for step in range(20):
        set_gradients(model, rng)
        before = {name: grad.copy() for name, grad in model.grads.items()}
        for name, param in params.items():
            param.grad = torch.from_numpy(before[name].copy())
        if step == 10:
            optimizer.lr = oracle.param_groups[0]["lr"] = 0.005
        optimizer.step()
        oracle.step()
        for name, param in params.items():
            assert model.params[name] is arrays[name], "rebound"
            assert np.max(np.abs(arrays[name] - param.detach().numpy())) <= tolerance, (step, name)
            assert np.array_equal(model.grads[name], before[name]), "the gradient has changed"
    assert optimizer.steps == 20


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm_equals_torchs(max_norm: float) -> None:
    model = fr.Sequential(fr.Linear(3, 4, dtype="float64", seed=1), fr.Linear(4, 2, dtype="float64", seed=2))
    set_gradients(model, np.random.default_rng(1))
    params = [torch.zeros(grad.shape, dtype=torch.float64) for grad in model.grads.values()]
    for param, grad in zip(params, model.grads.values(), strict=True):
        param.grad = torch.from_numpy(grad.copy())
    norm = clip_grad_norm(model, max_norm)
    assert abs(norm - torch.nn.utils.clip_grad_norm_(params, max_norm).item()) <= 1e-14
    for param, grad in zip(params, model.grads.values(), strict=True):
        assert param.grad is not None
        assert np.max(np.abs(grad - param.grad.numpy())) <= 1e-15


@pytest.mark.parametrize("options", [{}, {"rise": 0.5, "start": 10.0, "end": 100.0}])
def test_one_cycle_equals_torchs(options: dict[str, Any]) -> None:
    rate = schedules.one_cycle(0.3, 20, **options)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    names = {"rise": "pct_start", "start": "div_factor", "end": "final_div_factor"}
    given = {names[name]: value for name, value in options.items()}
    oracle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=20, cycle_momentum=False, **given)
    for step in range(20):
        assert abs(rate(step) - optimizer.param_groups[0]["lr"]) <= 1e-15
        optimizer.step()
        if step < 19:
            oracle.step()
    assert rate(100) == rate(19)
    for wrong, match in (((1,), "steps is 1"), ((9, 1.0), "rise is 1.0"), ((9, 0.3, 0.0), "start and end are 0.0")):
        arguments = dict(zip(("steps", "rise", "start"), wrong, strict=False))
        with pytest.raises(ValueError, match=f"one_cycle: {match}"):
            schedules.one_cycle(0.3, **arguments)  # type: ignore[arg-type]
