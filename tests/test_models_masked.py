"""``Masked``: steps that are left out, wherever they are, as if they had never been there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import differences
import fusedrnn as fr
from fusedrnn.models import Masked, SequenceToVector
from tolerance import DIFFERENCE

MISSING = np.array([[1, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], bool)


def values() -> Any:
    x = np.random.default_rng(1).normal(0, 1, (4, 6, 3))
    x[MISSING] = 0.5
    return x


def gru(**options: Any) -> fr.GRU:
    return fr.GRU(3, 5, dtype="float64", seed=2, **options)


@pytest.mark.parametrize("repeat", [False, True])
def test_steps_are_as_if_they_had_never_been_there(repeat: bool) -> None:
    x, layer = values(), gru(bidirectional=True)
    y = Masked(layer, 0.5, repeat=repeat)(x)
    for row, missing, sample in zip(y, MISSING, x, strict=True):
        kept = layer(sample[~missing])[0]
        np.testing.assert_array_equal(row[~missing], kept)
        before = (~missing).cumsum() - 1
        for step in np.flatnonzero(missing):
            expected = kept[before[step]] if repeat and before[step] >= 0 else np.zeros(10)
            np.testing.assert_array_equal(row[step], expected)


def test_lengths_leave_out_more() -> None:
    x, model = values(), Masked(SequenceToVector(gru(), 2, seed=3), 0.5)
    lengths = np.array([4, 0, 5, 6])
    shorter = x.copy()
    shorter[np.arange(6) >= lengths[:, None]] = 0.5
    np.testing.assert_array_equal(model(x, lengths=lengths), model(shorter))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Masked(gru(bidirectional=True), 0.5),
        lambda: Masked(gru(), 0.5, repeat=True),
        lambda: Masked(SequenceToVector(gru(), 2, seed=3), 0.5),
        lambda: fr.Sequential(Masked(gru(), 0.5, repeat=True), fr.Linear(5, 2, dtype="float64", seed=4)),
    ],
)
def test_gradients(make: Any) -> None:
    """Against differences; a step that is left out has none, though it would have one where it were not equal."""
    model, x = make(), values()
    y, tape = model.forward(x)
    weights = np.random.default_rng(5).normal(0, 1, y.shape)
    dx = model.backward(tape, weights)
    assert not dx[MISSING].any()

    def loss() -> float:
        return float((weights * model(x)).sum())

    moved = np.random.default_rng(6).normal(0, 1, x.shape)
    moved[MISSING] = 0
    assert abs(differences.slope(loss, x, moved) - (dx * moved).sum()) <= DIFFERENCE * max(1, abs((dx * moved).sum()))
    for name, grad in model.grads.items():
        along = np.random.default_rng(7).normal(0, 1, grad.shape)
        exact = (grad * along).sum()
        assert abs(differences.slope(loss, model.params[name], along) - exact) <= DIFFERENCE * max(1, abs(exact)), name


def test_tokens_have_no_gradient() -> None:
    model = Masked(fr.Sequential(fr.Embedding(7, 3, seed=1), fr.LSTM(3, 4, seed=2)), 0)
    ids = np.array([[0, 3, 0, 5], [6, 0, 0, 0]])
    y, tape = model.forward(ids)
    assert model.backward(tape, np.ones_like(y)) is None
    assert model.grads["layer.0.weight"][[3, 5, 6]].any() and not model.grads["layer.0.weight"][0].any()


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match=r"Masked: layer is Linear.*expected a layer that takes lengths"):
        Masked(fr.Linear(3, 4))
    with pytest.raises(ValueError, match=r"Masked: x has shape \(2, 3\); expected \(batch, time, features\)"):
        Masked(fr.LSTM(3, 4))(np.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"Masked: mask_value is 'no'"):
        Masked(fr.LSTM(3, 4), "no")  # type: ignore[arg-type]
