"""Losses, optimizers, clipping, schedules and metrics, against their formulas."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import differences
import fusedrnn as fr
from fusedrnn.training import (
    accuracy,
    binary_cross_entropy,
    clip_grad_norm,
    cross_entropy,
    huber,
    mae,
    mean_absolute_error,
    mse,
    perplexity,
    schedules,
    sequence_mask,
)
from fusedrnn.training.losses import get_loss
from fusedrnn.training.optimizers import get_optimizer

Array = NDArray[Any]


# ------------------------------------------------------------------------------------------------------------ losses


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))


# Means over the elements, written from the definitions, for values of order 1.
FORMULAS: dict[str, tuple[Any, Any]] = {
    "mse": (mse, lambda p, t: np.mean((p - t) ** 2)),
    "mae": (mae, lambda p, t: np.mean(np.abs(p - t))),
    "huber": (huber, lambda p, t: np.mean(np.where(np.abs(p - t) <= 1, (p - t) ** 2 / 2, np.abs(p - t) - 0.5))),
    "huber, small delta": (
        functools.partial(huber, delta=0.3),
        lambda p, t: np.mean(np.where(np.abs(p - t) <= 0.3, (p - t) ** 2 / 2, 0.3 * (np.abs(p - t) - 0.15))),
    ),
    "binary cross-entropy": (
        binary_cross_entropy,
        lambda p, t: np.mean(t * softplus(-p) + (1 - t) * softplus(p)),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("shape", [(7,), (4, 3), (2, 5, 3)])
def test_regression_losses(name: str, shape: tuple[int, ...]) -> None:
    loss, formula = FORMULAS[name]
    rng = np.random.default_rng(1)
    pred, target = rng.standard_normal(shape), rng.uniform(size=shape)
    value, grad = loss(pred, target)
    assert isinstance(value, float) and abs(value - formula(pred, target)) <= 1e-15
    check_gradient(lambda: loss(pred, target)[0], pred, grad)


WEIGHT = np.random.default_rng(2).uniform(0.1, 2, 6)


@pytest.mark.parametrize("options", [{}, {"weight": WEIGHT}, {"ignore_index": 2}])
def test_cross_entropy(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    pred, target = rng.standard_normal((4, 5, 6)), rng.integers(0, 6, (4, 5))
    ignored = options.get("ignore_index", -100)
    target[1, 2:] = ignored
    value, grad = cross_entropy(pred, target, **options)
    probabilities = np.exp(pred) / np.exp(pred).sum(axis=-1, keepdims=True)
    valid = [index for index in np.ndindex(target.shape) if target[index] != ignored]
    factors = [float(WEIGHT[target[index]]) if "weight" in options else 1.0 for index in valid]
    losses = [-np.log(probabilities[index][target[index]]) for index in valid]
    assert abs(value - np.average(losses, weights=factors)) <= 1e-14
    check_gradient(lambda: cross_entropy(pred, target, **options)[0], pred, grad)


def check_gradient(value: Callable[[], float], array: Array, grad: Array) -> None:
    """Compare with central differences; values and gradients are of order 1, so 1e-8 is far above their error."""
    assert np.max(np.abs(differences.gradient(value, array) - grad)) <= 1e-8


@pytest.mark.parametrize("loss", [mse, mae, huber, binary_cross_entropy, cross_entropy])
def test_a_mask_leaves_only_the_valid_elements(loss: Any) -> None:
    rng = np.random.default_rng(1)
    pred = rng.standard_normal((3, 5, 4))
    classes = loss is cross_entropy
    target: Array = rng.integers(0, 4, (3, 5)) if classes else rng.uniform(size=(3, 5, 4))
    mask = sequence_mask([5, 0, 3], 5)
    value, grad = loss(pred, target, mask)
    short_value, short_grad = loss(pred[mask], target[mask])
    assert abs(value - short_value) <= 1e-15
    assert np.max(np.abs(grad[mask] - short_grad)) <= 1e-15 and not grad[~mask].any()
    pred[~mask] = np.nan
    target[~mask] = 99 if classes else np.nan
    with np.errstate(all="ignore"):
        again, again_grad = loss(pred, target, mask)
    assert again == value and again_grad.tobytes() == grad.tobytes()


@pytest.mark.parametrize("loss", [mse, mae, huber, binary_cross_entropy, cross_entropy])
def test_no_valid_element_is_a_loss_of_0(loss: Any) -> None:
    pred = np.ones((2, 3, 4), np.float32)
    target: Array = np.zeros((2, 3), int) if loss is cross_entropy else np.zeros((2, 3, 4))
    for value, grad in (loss(pred, target, np.zeros((2, 3), bool)), loss(pred[:0], target[:0])):
        assert value == 0 and not grad.any() and grad.dtype == np.float32


def test_losses_are_stable_at_extreme_logits() -> None:
    value, grad = cross_entropy(np.array([[1e4, -1e4, 0.0]]), [1])
    assert value == 2e4 and grad.tolist() == [[1, -1, 0]]
    value, grad = binary_cross_entropy(np.array([1e4, -1e4, -1e4]), [0.0, 0.0, 1.0])
    assert value == pytest.approx(2e4 / 3, rel=1e-15) and np.allclose(grad, [1 / 3, 0, -1 / 3], rtol=0, atol=1e-16)


def test_losses_keep_float32_and_sum_in_float64() -> None:
    pred = np.full(10**6, 0.1, np.float32)
    value, grad = mse(pred, np.zeros(10**6))
    assert abs(value - float(np.float32(0.1)) ** 2) <= 1e-9 and grad.dtype == np.float32


@pytest.mark.parametrize("loss", [mse, mae, huber, binary_cross_entropy])
def test_regression_losses_do_not_broadcast(loss: Any) -> None:
    with pytest.raises(ValueError, match=r"target has shape \(4,\); expected \(pred.shape\) = \(4, 1\)"):
        loss(np.zeros((4, 1)), np.zeros(4))
    with pytest.raises(ValueError, match=r"mask has shape \(3,\)"):
        loss(np.zeros((4, 1)), np.zeros((4, 1)), np.ones(3, bool))
    with pytest.raises(TypeError, match="mask has dtype int64"):
        loss(np.zeros((4, 1)), np.zeros((4, 1)), np.ones(4, int))
    with pytest.raises(TypeError, match="pred has dtype"):
        loss(np.zeros((4, 1), complex), np.zeros((4, 1)))


def test_cross_entropy_checks_its_targets() -> None:
    pred = np.zeros((2, 3))
    with pytest.raises(ValueError, match="cross_entropy: target has 3; expected 0 <= class < 3 or -100"):
        cross_entropy(pred, [0, 3])
    with pytest.raises(TypeError, match="cross_entropy: target has dtype float64"):
        cross_entropy(pred, [0.0, 1.0])
    with pytest.raises(ValueError, match="cross_entropy: target has shape"):
        cross_entropy(pred, [[0, 1]])
    with pytest.raises(ValueError, match="cross_entropy: weight has shape"):
        cross_entropy(pred, [0, 1], weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="binary_cross_entropy: target has values outside"):
        binary_cross_entropy(np.zeros(2), [0.0, 1.5])
    with pytest.raises(ValueError, match="huber: delta is 0"):
        huber(np.zeros(2), np.zeros(2), delta=0)


def test_losses_by_name() -> None:
    assert get_loss("mse", "fit") is mse and get_loss(huber, "fit") is huber
    with pytest.raises(ValueError, match="fit: loss is 'l2'; expected a callable or one of mse"):
        get_loss("l2", "fit")


# -------------------------------------------------------------------------------------------------------- optimizers


# The formulas as published: p parameter, g gradient, s what is kept from step to step, t the step from 1, o options.


def sgd(p: Any, g: Any, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    g = g + o.get("weight_decay", 0) * p
    momentum = o.get("momentum", 0)
    s["m"] = momentum * s.get("m", 0) + g
    return p - o["lr"] * (g + momentum * s["m"] if "nesterov" in o else s["m"])


def rmsprop(p: Any, g: Any, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    g = g + o.get("weight_decay", 0) * p
    alpha = o.get("alpha", 0.99)
    s["v"] = alpha * s.get("v", 0) + (1 - alpha) * g**2
    s["m"] = o.get("momentum", 0) * s.get("m", 0) + g / (np.sqrt(s["v"]) + o.get("eps", 1e-8))
    return p - o["lr"] * s["m"]


def adam(p: Any, g: Any, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    g = g + o.get("weight_decay", 0) * p
    beta1, beta2 = o.get("betas", (0.9, 0.999))
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g**2
    root = np.sqrt(s["v"] / (1 - beta2**t))
    return p - o.get("lr", 1e-3) * (s["m"] / (1 - beta1**t)) / (root + o.get("eps", 1e-8))


def adamw(p: Any, g: Any, s: dict[str, Any], t: int, o: dict[str, Any]) -> Any:
    decayed = p * (1 - o.get("lr", 1e-3) * o.get("weight_decay", 0.01))
    return adam(decayed, g, s, t, {**o, "weight_decay": 0})


OPTIMIZERS: list[tuple[Any, Any, dict[str, Any]]] = [
    (fr.SGD, sgd, {"lr": 0.1}),
    (fr.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    (fr.SGD, sgd, {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.2}),
    (fr.RMSprop, rmsprop, {"lr": 0.01}),
    (fr.RMSprop, rmsprop, {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1, "eps": 1e-3}),
    (fr.Adam, adam, {}),
    (fr.Adam, adam, {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3}),
    (fr.AdamW, adamw, {}),
    (fr.AdamW, adamw, {"lr": 0.02, "betas": (0.7, 0.9), "weight_decay": 0.5}),
]


def set_gradients(model: fr.Layer, rng: np.random.Generator) -> None:
    for grad in model.grads.values():
        grad[:] = rng.standard_normal(grad.shape)


@pytest.mark.parametrize(("ours", "formula", "options"), OPTIMIZERS)
def test_optimizers_follow_their_formulas(ours: Any, formula: Any, options: Any) -> None:
    model = fr.Sequential(fr.Linear(3, 4, dtype="float64", seed=1), fr.Linear(4, 2, dtype="float64", seed=2))
    arrays, truth = dict(model.params), model.state_dict()
    states: dict[str, dict[str, Any]] = {name: {} for name in truth}
    optimizer, rng = ours(model, **options), np.random.default_rng(3)
    for step in range(1, 11):
        set_gradients(model, rng)
        before = {name: grad.copy() for name, grad in model.grads.items()}
        optimizer.step()
        for name, array in arrays.items():
            truth[name] = formula(truth[name], before[name], states[name], step, options)
            assert model.params[name] is array, "rebound"
            assert np.max(np.abs(array - truth[name])) <= 1e-14, (step, name)
            assert np.array_equal(model.grads[name], before[name]), "the gradient has changed"
    assert optimizer.steps == 10


@pytest.mark.parametrize(("ours", "options"), [(ours, options) for ours, _, options in OPTIMIZERS])
def test_optimizers_resume(ours: Any, options: Any) -> None:
    def run(optimizer: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(3):
            set_gradients(optimizer.layer, rng)
            optimizer.step()

    model, resumed = fr.Linear(3, 4, seed=1), fr.Linear(3, 4, seed=2)
    optimizer = ours(model, **options)
    run(optimizer, 1)
    state = optimizer.state_dict()
    resumed.load_state_dict(model.state_dict())
    run(optimizer, 2)
    successor = ours(resumed, **options)
    successor.load_state_dict(state)
    run(successor, 2)
    for name, array in model.params.items():
        assert array.tobytes() == resumed.params[name].tobytes()
    with pytest.raises(ValueError, match=r"the state does not fit; .*weight"):
        ours(fr.Linear(2, 2), **options).load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.clear(), "it has no 'steps'"),
        (lambda state: state.update(steps=1.5), "steps is 1.5; expected an integer"),
        (lambda state: state.update(steps=-1), "steps is -1; expected an integer >= 0"),
        (lambda state: state.update(lr=-1), "lr is -1; expected a number >= 0"),
        (lambda state: state.update(lr=None), "lr is None; expected a number"),
        (lambda state: state.update(buffers=[1]), "the state does not fit"),
        (lambda state: state["buffers"].pop("square"), r"missing, unexpected or of wrong shape: \['square.bias'"),
        (lambda state: state["buffers"]["square"].update(bias=np.ones(4, complex)), "square.bias has dtype complex128"),
        (lambda state: state["buffers"]["square"].update(bias=["a"] * 4), "square.bias has dtype <U1"),
    ],
)
def test_a_state_of_an_optimizer_fits_or_changes_nothing(change: Any, match: str) -> None:
    layer = fr.Linear(3, 4, seed=1)
    optimizer, other = fr.Adam(layer), fr.Adam(layer, lr=0.5)
    for each in (optimizer, other, other):
        set_gradients(layer, np.random.default_rng(1))
        each.step()
    before, state = optimizer.state_dict(), other.state_dict()
    change(state)
    with pytest.raises(ValueError, match=f"Adam: .*{match}"):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert (after["steps"], after["lr"]) == (before["steps"], before["lr"])
    for buffer, arrays in before["buffers"].items():
        assert all(np.array_equal(after["buffers"][buffer][name], array) for name, array in arrays.items())


def test_a_step_finds_a_read_only_parameter_before_anything_changes() -> None:
    layer = fr.Linear(3, 4, seed=1)
    before, optimizer = layer.state_dict(), fr.Adam(layer)
    set_gradients(layer, np.random.default_rng(1))
    layer.params["bias"].flags.writeable = False
    with pytest.raises(ValueError, match="Adam: bias is read-only; expected an array that may be written to"):
        optimizer.step()
    assert optimizer.steps == 0 and not any(array.any() for array in optimizer.state_dict()["buffers"]["mean"].values())
    assert np.array_equal(layer.params["weight"], before["weight"])


def test_the_learning_rate_is_checked_when_it_is_changed() -> None:
    optimizer = fr.SGD(fr.Linear(2, 2))
    for rate in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"SGD: lr is .*; expected a number >= 0"):
            optimizer.lr = rate
    optimizer.lr = np.float32(0.5)
    assert type(optimizer.lr) is float and optimizer.lr == 0.5


def test_an_optimizer_is_copied_with_its_model() -> None:
    optimizer = fr.Adam(fr.Sequential(fr.GRU(3, 4, seed=1), fr.Linear(4, 2, seed=2)))
    before = optimizer.layer.state_dict()
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        set_gradients(other.layer, np.random.default_rng(1))
        other.step()
        assert all(np.any(other.layer.params[name] != value) for name, value in before.items() if value.any())
    assert optimizer.steps == 0
    assert all(np.array_equal(optimizer.layer.params[name], value) for name, value in before.items())


def test_a_parameter_in_another_order_is_updated() -> None:
    results = []
    for order in "CF":
        layer = fr.Linear(3, 4, seed=1)
        optimizer = fr.Adam(layer)
        layer.params["weight"] = np.array(layer.params["weight"], order=order)
        set_gradients(layer, np.random.default_rng(1))
        optimizer.step()
        results.append(layer.params["weight"].copy())
    assert np.array_equal(*results)


def test_a_shared_layer_is_updated_once() -> None:
    shared = fr.Linear(3, 3, seed=1)
    before = shared.state_dict()
    model = fr.Sequential(shared, shared)
    shared.grads["weight"][:] = 1
    fr.SGD(model, lr=0.5).step()
    assert np.array_equal(shared.params["weight"], before["weight"] - 0.5)
    assert clip_grad_norm(model, 1.5) == 3.0
    assert np.allclose(shared.grads["weight"], 0.5, rtol=1e-6, atol=0)


def test_parameters_of_two_dtypes_in_one_model() -> None:
    model = fr.Sequential(fr.Linear(1, 3, seed=1), fr.Linear(3, 1, seed=1, dtype="float64"))
    alone = fr.Linear(3, 1, seed=1, dtype="float64")
    for layer in (model, alone):
        for grad in layer.grads.values():
            grad.fill(0.3)
        optimizer = fr.Adam(layer, weight_decay=0.1)
        optimizer.step()
    assert np.array_equal(model.params["1.weight"], alone.params["weight"])


def test_gradients_that_are_not_finite_are_an_error_if_asked() -> None:
    model = fr.Sequential(fr.Linear(3, 4, seed=1), fr.Linear(4, 2, seed=2))
    before = model.state_dict()
    model.grads["1.weight"][0, 1] = np.nan
    with pytest.raises(FloatingPointError, match=r"Adam: the gradient of 1\.weight is not finite"):
        fr.Adam(model, check_finite=True).step()
    assert all(np.array_equal(model.params[name], value) for name, value in before.items())
    fr.Adam(model).step()
    assert np.isnan(model.params["1.weight"]).sum() == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: fr.SGD(layer, lr=-1),
        lambda layer: fr.SGD(layer, lr=math.nan),
        lambda layer: fr.SGD(layer, momentum=1.0),
        lambda layer: fr.SGD(layer, nesterov=True),
        lambda layer: fr.RMSprop(layer, alpha=-0.1),
        lambda layer: fr.Adam(layer, betas=(0.9, 1.0)),
        lambda layer: fr.Adam(layer, betas=(0.9, 0.9, 0.9)),  # type: ignore[arg-type]
        lambda layer: fr.Adam(layer, betas=0.9),  # type: ignore[arg-type]
        lambda layer: fr.Adam(layer, eps=-1e-8),
        lambda layer: fr.AdamW(layer, weight_decay=-1),
        lambda layer: get_optimizer("lbfgs", layer, "fit"),
        lambda layer: get_optimizer(fr.Adam(fr.Linear(2, 2)), layer, "fit"),
    ],
)
def test_optimizers_check_their_arguments(make: Callable[[fr.Layer], Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make(fr.Linear(2, 2))


# ------------------------------------------------------------------------------------ clipping, schedules, metrics


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm(max_norm: float) -> None:
    model = fr.Sequential(fr.Linear(3, 4, dtype="float64", seed=1), fr.Linear(4, 2, dtype="float64", seed=2))
    set_gradients(model, np.random.default_rng(1))
    before = {name: grad.copy() for name, grad in model.grads.items()}
    norm = np.sqrt(sum((grad**2).sum() for grad in before.values()))
    assert abs(clip_grad_norm(model, max_norm) - norm) <= 1e-14
    for name, grad in model.grads.items():
        assert np.max(np.abs(grad - before[name] * min(1.0, max_norm / (norm + 1e-6)))) <= 1e-15


def test_clip_grad_norm_of_exploding_gradients() -> None:
    layer = fr.Linear(2, 2, bias=False)
    layer.grads["weight"][:] = [[3e30, 0], [4e30, 0]]
    assert clip_grad_norm(layer, 1.0) == pytest.approx(5e30, rel=1e-6)
    assert np.allclose(layer.grads["weight"], [[0.6, 0], [0.8, 0]], rtol=1e-6, atol=0)
    layer.grads["weight"][0, 0] = np.inf
    assert clip_grad_norm(layer, 1.0) == math.inf and layer.grads["weight"][1, 0] == np.float32(0.8)
    with pytest.raises(ValueError, match="clip_grad_norm: max_norm is 0"):
        clip_grad_norm(layer, 0)
    with pytest.raises(TypeError, match="clip_grad_norm: max_norm is '1'; expected a number"):
        clip_grad_norm(layer, "1")  # type: ignore[arg-type]


def test_clip_grad_value() -> None:
    layer = fr.Linear(2, 2, bias=False)
    layer.grads["weight"][:] = [[3, -0.5], [-4, 0.25]]
    fr.clip_grad_value(layer, 1.0)
    assert layer.grads["weight"].tolist() == [[1, -0.5], [-1, 0.25]]
    with pytest.raises(ValueError, match="clip_grad_value: limit is -1"):
        fr.clip_grad_value(layer, -1)


def test_schedules() -> None:
    assert [schedules.constant(0.5)(step) for step in (0, 9)] == [0.5, 0.5]
    assert [schedules.step_decay(1.0, 2, 0.5)(step) for step in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert [schedules.exponential(1.0, 0.5)(step) for step in range(3)] == [1, 0.5, 0.25]
    cosine = schedules.cosine(1.0, 10, 0.2)
    assert cosine(0) == 1.0 and abs(cosine(5) - 0.6) <= 1e-15 and cosine(10) == cosine(99) == 0.2
    warm = schedules.warmup(schedules.exponential(1.0, 0.5), 3)
    assert [warm(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 0.5, 0.25]
    for schedule, arguments in (
        (schedules.cosine, (1, 0)),
        (schedules.step_decay, (1, 0)),
        (schedules.warmup, (warm, 0)),
    ):
        with pytest.raises(ValueError, match="expected a positive integer"):
            schedule(*arguments)


def test_metrics() -> None:
    pred = np.array([[[1.0, 2.0, 0.0], [5.0, 1.0, 0.0]], [[0.0, 0.0, 3.0], [9.0, 9.5, 0.0]]])
    target = np.array([[1, 2], [2, -100]])
    assert accuracy(pred, target) == pytest.approx(2 / 3, rel=1e-15)
    assert accuracy(pred, target, sequence_mask([1, 1], 2)) == 1.0
    assert accuracy(pred[:0], target[:0]) == 0.0
    assert perplexity(np.zeros((2, 5)), [0, 4]) == pytest.approx(5, rel=1e-14)
    assert perplexity(np.array([[0.0, 1e5]]), [0]) == math.inf
    assert mean_absolute_error([1.0, 2.0], [0.0, 4.0]) == 1.5


def test_warmup_needs_a_schedule() -> None:
    with pytest.raises(TypeError, match=r"warmup: schedule is .*; expected the schedule that follows"):
        fr.training.schedules.warmup(0.1, 3)  # type: ignore[arg-type]
