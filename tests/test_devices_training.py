"""Losses, metrics, optimizers and ``fit`` on cuda do what they do on the cpu (on a stand-in for a GPU's arrays)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import standin
from fusedrnn import models, training
from standin import assert_alike, to_device, to_numpy

LOSSES = [training.mse, training.mae, training.huber, training.binary_cross_entropy]
RNG = np.random.default_rng(3)
PRED, TARGET = RNG.standard_normal((4, 5, 3)), RNG.random((4, 5, 3))
CLASSES = RNG.integers(0, 3, (4, 5))
MASK = RNG.random((4, 5)) < 0.6


@pytest.fixture(autouse=True)
def xp(monkeypatch: pytest.MonkeyPatch) -> standin.Namespace:
    return standin.install(monkeypatch)


@pytest.mark.parametrize("mask", [None, MASK, np.zeros_like(MASK)], ids=["all", "some", "none"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss: Any, mask: Any) -> None:
    pred, target = PRED.copy(), TARGET.copy()
    if mask is not None:
        pred[~mask], target[~mask] = np.nan, np.nan
    value, grad = loss(pred, target, mask)
    for given in (mask, to_device(mask)):  # a mask may be on either device
        device_value, device_grad = loss(to_device(pred), to_device(target), given)
        assert abs(device_value - value) <= 1e-12 and isinstance(device_value, float)
        assert_alike(device_grad, grad)


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("weight", [None, np.array([0.5, 2.0, 1.0])])
def test_cross_entropy(mask: Any, weight: Any) -> None:
    target = np.where(RNG.random(CLASSES.shape) < 0.2, training.losses.IGNORE_INDEX, CLASSES)
    value, grad = training.cross_entropy(PRED, target, mask, weight=weight)
    device_value, device_grad = training.cross_entropy(to_device(PRED), to_device(target), mask, weight=weight)
    assert abs(device_value - value) <= 1e-12
    assert_alike(device_grad, grad)
    with pytest.raises(ValueError, match="cross_entropy: target has 3; expected 0 <= class < 3"):
        training.cross_entropy(to_device(PRED), to_device(np.full_like(target, 3)))


def test_a_loss_without_valid_elements_is_0() -> None:
    pred, target, nothing = to_device(PRED), to_device(CLASSES), np.zeros_like(MASK)
    value, grad = training.cross_entropy(pred, target, nothing)
    assert value == 0 and not to_numpy(grad).any()
    assert training.accuracy(pred, target, nothing) == 0


@pytest.mark.parametrize("mask", [None, MASK])
def test_metrics(mask: Any) -> None:
    cpu, gpu = (training.RunningMetrics(("accuracy", "perplexity")) for _ in range(2))
    target = np.where(RNG.random(CLASSES.shape) < 0.2, training.losses.IGNORE_INDEX, CLASSES)
    cpu.update(PRED, target, mask)
    gpu.update(to_device(PRED), to_device(target), mask)
    for name, value in cpu.values().items():
        assert abs(gpu.values()[name] - value) <= 1e-12, name
    assert training.mean_absolute_error(to_device(PRED), to_device(TARGET), mask) > 0
    assert np.array_equal(training.class_weights(to_device(CLASSES)), training.class_weights(CLASSES))


OPTIMIZERS: dict[str, Callable[[Any], training.Optimizer]] = {
    "sgd": fr.SGD,
    "momentum": lambda model: fr.SGD(model, momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": lambda model: fr.RMSprop(model, momentum=0.5),
    "adam": lambda model: fr.Adam(model, weight_decay=0.1, check_finite=True),
    "adamw": fr.AdamW,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_and_clipping(name: str) -> None:
    cpu, gpu = (fr.LSTM(3, 4, dtype="float64", seed=1).to(device) for device in ("cpu", "cuda"))
    optimizers = OPTIMIZERS[name](cpu), OPTIMIZERS[name](gpu)
    for step in range(3):
        for key, grad in cpu.grads.items():
            grad[...] = np.random.default_rng(step).standard_normal(grad.shape)
            gpu.grads[key][...] = to_device(grad)
        norms = [fr.clip_grad_norm(layer, 2.0) for layer in (cpu, gpu)]
        assert abs(norms[0] - norms[1]) <= 1e-12 and norms[0] > 2
        for layer, optimizer in zip((cpu, gpu), optimizers, strict=True):
            training.clip_grad_value(layer, 0.1)
            optimizer.step()
        assert_alike(tuple(gpu.grads.values()), tuple(cpu.grads.values()), 1e-12, "grads")
        assert_alike(tuple(gpu.params.values()), tuple(cpu.params.values()), 1e-12, "params")
    state = optimizers[1].state_dict()
    resumed = OPTIMIZERS[name](cpu)
    resumed.load_state_dict(state)
    assert resumed.steps == 3
    for buffers in state["buffers"].values():
        assert all(type(array) is np.ndarray for array in buffers.values())
    optimizers[1].load_state_dict(optimizers[0].state_dict())


def test_sparse_gradients() -> None:
    cpu, gpu = (fr.Embedding(7, 3, 2, sparse=True, dtype="float64", seed=1).to(device) for device in ("cpu", "cuda"))
    optimizers = fr.Adam(cpu, check_finite=True), fr.Adam(gpu, check_finite=True)
    for step in range(3):
        ids = np.random.default_rng(step).integers(0, 7, (2, 2))
        for layer, move, optimizer in ((cpu, np.asarray, optimizers[0]), (gpu, to_device, optimizers[1])):
            layer.zero_grad()
            y, tape = layer.forward(move(ids))
            layer.backward(tape, y)
            training.clip_grad_value(layer, 0.5)
            fr.clip_grad_norm(layer, 0.7)
            optimizer.step()
        assert_alike(tuple(gpu.grads.values()), tuple(cpu.grads.values()), 1e-12, "grads")
        assert_alike(tuple(gpu.params.values()), tuple(cpu.params.values()), 1e-12, "params")
    assert np.array_equal(gpu.to("cpu").gradient_rows()["weight"], cpu.gradient_rows()["weight"])


def test_an_optimizer_belongs_to_the_device_it_was_made_on() -> None:
    layer = fr.Linear(3, 2)
    optimizer = fr.Adam(layer)
    layer.to("cuda")
    with pytest.raises(RuntimeError, match="Adam: the layer has moved from cpu to cuda: make the optimizer after that"):
        optimizer.step()
    moved = fr.Adam(layer, check_finite=True)
    moved.load_state_dict(optimizer.state_dict())
    layer.grads["weight"][...] = float("nan")
    with pytest.raises(FloatingPointError, match="the gradient of weight is not finite"):
        moved.step()


def ragged(steps: Any, features: int) -> list[Any]:
    return [np.random.default_rng(n + features).standard_normal((n, features)) for n in steps]


def tagger() -> Any:
    layers = fr.GRU(3, 5, 2, dropout=0.2, dtype="float64", seed=1), fr.Dropout(0.1)
    return models.SequenceToSequence(fr.Sequential(*layers), fr.Linear(5, 4, dtype="float64", seed=2))


STEPS = [3, 7, 1, 5, 5, 2, 6]
X = ragged(STEPS, 3)
VALUES = ragged(STEPS, 4)
LABELS = [np.random.default_rng(n).integers(0, 4, n) for n in STEPS]
FITS: dict[str, dict[str, Any]] = {
    "mse": {"y": VALUES, "metrics": ("mae",), "clip_value": 0.2, "optimizer": "rmsprop"},
    "classes": {
        "y": LABELS,
        "loss": "cross_entropy",
        "class_weight": "balanced",
        "metrics": ("accuracy", "perplexity"),
        "bucket_by_length": True,
    },
    "callbacks": {"y": VALUES, "callbacks": [fr.EarlyStopping(1), fr.SpectralNormLimit(0.5)], "loss": "huber"},
}


@pytest.mark.parametrize("name", FITS)
def test_fit_moves_each_batch(name: str) -> None:
    """NumPy samples train a model on cuda as one on the cpu."""
    options = {**FITS[name], "epochs": 3, "batch_size": 3, "clip_norm": 0.5, "seed": 4, "progress": False}
    y = options.pop("y")
    cpu, gpu = tagger(), tagger().to("cuda")
    expected = fr.fit(cpu, X, y, validation_data=(X[:3], y[:3]), **options)
    history = fr.fit(gpu, X, y, validation_data=(X[:3], y[:3]), **options)
    assert history.keys() == expected.keys()
    for key in expected.keys() - {"seconds"}:
        assert np.max(np.abs(np.subtract(history[key], expected[key]))) <= 1e-10, key
    assert_alike(tuple(gpu.params.values()), tuple(cpu.params.values()), 1e-10)


def test_fit_takes_samples_that_are_there_already() -> None:
    x, y, lengths = RNG.standard_normal((7, 6, 3)), RNG.standard_normal((7, 6, 4)), np.minimum(STEPS, 6)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 3, "seed": 4, "progress": False}
    cpu, gpu = tagger(), tagger().to("cuda")
    expected = fr.fit(cpu, x, y, lengths=lengths, **options)
    history = fr.fit(gpu, to_device(x), to_device(y), lengths=to_device(lengths), **options)
    assert np.max(np.abs(np.subtract(history["loss"], expected["loss"]))) <= 1e-12
    fr.fit(gpu, lambda epoch: [(x, to_device(y), lengths)], **options)
    with pytest.raises(RuntimeError, match=r"GRU: x is a standin_arrays.Array on cuda; the layer is on cpu"):
        fr.fit(tagger(), to_device(x), y, **options)
    with pytest.raises(RuntimeError, match="fit: x is a list of arrays on cuda; expected one array, or NumPy's"):
        fr.fit(gpu, [to_device(each) for each in x], y, **options)


def test_models_of_several_inputs_and_with_a_penalty() -> None:
    options: dict[str, Any] = {"epochs": 2, "batch_size": 3, "seed": 4, "progress": False}
    vectors, values = RNG.standard_normal((7, 3)), ragged(STEPS, 2)
    histories = []
    for device in ("cpu", "cuda"):
        layer = fr.LSTM(2, 5, dtype="float64", seed=1)
        model = models.VectorToSequence(layer, 2, vector_size=3, seed=2).to(device)
        sparse = models.StackedAutoencoder((3, 2), code_activation="sigmoid", sparsity=0.3, sparsity_target=0.2,
                                           dtype="float64", device=device, noise=0.1, seed=1)  # fmt: skip
        history = fr.fit(model, (vectors, model.decoder_inputs(values)), values, **options)
        pretrained = sparse.pretrain(vectors, **options)
        histories.append(history["loss"] + pretrained[0]["loss"] + fr.fit(sparse, vectors, vectors, **options)["loss"])
    assert np.max(np.abs(np.subtract(*histories))) <= 1e-12
