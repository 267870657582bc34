"""Gradients of every model, by central differences in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from differences import slope
from fusedrnn import models
from model_cases import CASES, LENGTHS, Array, ModelCase, X, arguments, encoder_decoder, keywords, residual
from tolerance import DIFFERENCE


def slopes(loss: Any, arrays: dict[str, Array], rng: np.random.Generator) -> dict[str, tuple[Array, float]]:
    """Return for each array a random direction and the derivative of the loss along it."""
    result = {}
    for name, array in arrays.items():
        along = rng.standard_normal(array.shape)
        result[name] = (along, slope(loss, array, along))
    return result


def check(model: Any, inputs: tuple[Array, ...], **lengths: Any) -> None:
    """Compare backward with the slopes of a random linear function of the outputs (and the model's own penalty)."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal(np.shape(model.forward(*inputs, **lengths)[0]))

    def loss() -> float:
        y, tape = model.forward(*inputs, **lengths)
        return float((weights * y).sum()) + (model.penalty(tape) if hasattr(model, "penalty") else 0.0)

    model.zero_grad()
    _, tape = model.forward(*inputs, **lengths)
    dinputs = model.backward(tape, weights)
    dinputs = dinputs if isinstance(dinputs, tuple) else (dinputs,)
    gradients = {name: grad.copy() for name, grad in model.grads.items()}
    arrays = dict(model.params)
    for index, (x, dx) in enumerate(zip(inputs, dinputs, strict=True)):
        if x.dtype.kind == "f":
            gradients[f"x{index}"], arrays[f"x{index}"] = dx, x
        else:
            assert dx is None
    assert any(np.any(gradient) for gradient in gradients.values())
    for name, (along, truth) in slopes(loss, arrays, rng).items():
        error = abs(float((gradients[name] * along).sum()) - truth)
        assert error <= DIFFERENCE * max(1.0, abs(truth)), f"d{name} is off by {error:.2e} of {truth:.2e}"


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    """Every parameter and input, on a ragged batch and on a full one."""
    case = CASES[name]
    check(*arguments(case, "float64"), **keywords(case))
    if any(case.timed):
        check(*arguments(case, "float64"))


@pytest.mark.parametrize("name", CASES)
def test_gradients_add_up_and_padding_has_none(name: str) -> None:
    """A second backward doubles the gradients; dy past the end is not read, dx there is 0."""
    case = CASES[name]
    model, inputs = arguments(case, "float64")
    y, tape = model.forward(*inputs, **keywords(case))
    dy = np.random.default_rng(2).standard_normal(y.shape)
    dinputs = model.backward(tape, dy)
    once = {key: grad.copy() for key, grad in model.grads.items()}
    if case.per_step and any(case.timed):
        dy[np.arange(y.shape[1]) >= LENGTHS[:, np.newaxis]] = np.nan
    _, tape = model.forward(*inputs, **keywords(case))
    model.backward(tape, dy)
    for key, grad in model.grads.items():
        assert np.max(np.abs(grad - 2 * once[key])) <= 1e-12 * max(1.0, np.max(np.abs(grad)))
    lengths = case.lengths if isinstance(case.lengths, tuple) else (case.lengths,)
    dinputs = dinputs if isinstance(dinputs, tuple) else (dinputs,)
    for dx, length, timed in zip(dinputs, lengths, case.timed, strict=True):
        if timed and dx is not None:
            assert not np.any(dx[np.arange(dx.shape[1]) >= length[:, np.newaxis]])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if any(case.timed)])
def test_padding_has_no_influence_on_gradients(name: str) -> None:
    """With NaN and wrong tokens past the end, the gradients have the same bits."""
    case = CASES[name]
    results = []
    for dirty in (False, True):
        model, inputs = arguments(case, "float64")
        lengths = case.lengths if isinstance(case.lengths, tuple) else (case.lengths,)
        for x, length in zip(inputs, lengths, strict=True):
            if dirty and length is not None:
                x[np.arange(x.shape[1]) >= length[:, np.newaxis]] = np.nan if x.dtype.kind == "f" else -100
        y, tape = model.forward(*inputs, **keywords(case))
        model.backward(tape, np.random.default_rng(2).standard_normal(y.shape))
        results.append(model.grads)
    for key, grad in results[0].items():
        assert np.array_equal(grad, results[1][key]), key


def test_residual_stacks_are_0_past_the_end() -> None:
    x = X(np.random.default_rng(0))[0]
    model = residual("float64")
    (y, _), tape = model.forward(x, lengths=LENGTHS)
    past = np.arange(7) >= LENGTHS[:, np.newaxis]
    assert not np.any(y[past]) and not np.any(model(x, lengths=LENGTHS)[0][past])
    assert not np.any(model.backward(tape, np.ones_like(y))[0][past])


def test_gradients_of_shared_embeddings() -> None:
    """One table for source and target gets both gradients."""
    table = fr.Embedding(6, 4, dtype="float64", seed=9)
    layers = (fr.GRU(4, 5, dtype="float64", seed=1), fr.GRU(4, 5, dtype="float64", seed=2))
    model = models.EncoderDecoder(*layers, 6, source_embedding=table, target_embedding=table, seed=3)
    assert model.num_parameters < sum(array.size for array in model.params.values())
    rng = np.random.default_rng(0)
    source, inputs = rng.integers(0, 6, (3, 4)), rng.integers(0, 6, (3, 5))
    weights = rng.standard_normal((3, 5, 6))
    _, tape = model.forward(source, inputs)
    model.backward(tape, weights)
    ((along, truth),) = slopes(
        lambda: float((weights * model(source, inputs)).sum()), {"table": table.params["weight"]}, rng
    ).values()
    assert abs(float((table.grads["weight"] * along).sum()) - truth) <= DIFFERENCE * max(1.0, abs(truth))


def test_noise_and_dropout_have_gradients() -> None:
    """With the masks and the noise of one seed, the denoising autoencoder has the gradient of what it computed."""
    model = models.StackedAutoencoder((3, 5, 2), activation="tanh", noise=0.3, dropout=0.4, dtype="float64", seed=1)

    class Frozen:
        """The model, with the same random numbers at every call."""

        params, grads = model.params, model.grads
        zero_grad, backward = model.zero_grad, model.backward

        @staticmethod
        def forward(x: Array) -> Any:
            model.reseed(5)
            return model.forward(x)

    check(Frozen, X(np.random.default_rng(0)))


def test_own_outputs_replace_some_of_the_true_ones() -> None:
    """Scheduled sampling of 1 reads the taught decoder's own outputs; no gradient goes through them."""
    case: ModelCase = CASES["encoder-decoder plain"]
    _, (source, inputs) = arguments(case, "float64")
    model, plain = encoder_decoder("float64", None, scheduled_sampling=1.0), encoder_decoder("float64", None)
    y, tape = model.forward(source, inputs, lengths=case.lengths)
    own = plain(source, inputs, lengths=case.lengths).argmax(axis=2)
    mixed = np.concatenate((inputs[:, :1], own[:, :-1]), axis=1)
    expected, expected_tape = plain.forward(source, mixed, lengths=case.lengths)
    assert np.array_equal(y, expected) and not np.array_equal(y, plain(source, inputs, lengths=case.lengths))
    dy = np.random.default_rng(0).standard_normal(y.shape)
    model.backward(tape, dy)
    plain.backward(expected_tape, dy)
    assert all(np.array_equal(grad, plain.grads[name]) for name, grad in model.grads.items())
    assert np.array_equal(model(source, inputs), plain(source, inputs))

    model.decoder.scheduled_sampling = 0.5
    outputs = []
    for seed in (1, 1, 2):
        model.reseed(seed)
        outputs.append(model.forward(source, inputs)[0])
    assert np.array_equal(outputs[0], outputs[1]) and not np.array_equal(outputs[0], outputs[2])
