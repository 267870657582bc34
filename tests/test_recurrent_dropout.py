"""Dropout between the layers of a stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from problems import LAYERS, Array
from stacks import INPUTS, B, H, T
from tolerance import assert_gradient, assert_same_bits


def dropped(p: float, seed: int = 0) -> tuple[fr.RNN, Array]:
    """Return a stack whose output shows its dropout: layer 0 gives ones, layer 1 hands them on."""
    layer = fr.RNN(1, 40, 2, nonlinearity="relu", dropout=p, seed=seed)
    for value in layer.params.values():
        value[...] = 0
    layer.params["bias_ih_l0"][...] = 1
    layer.params["weight_ih_l1"][...] = np.eye(40)
    return layer, np.zeros((20, 10, 1), np.float32)


def test_dropout() -> None:
    """Between layers only, in training only: a value is dropped with probability p or scaled by 1/(1-p)."""
    layer, x = dropped(0.25)
    assert np.all(layer(x)[0] == 1)
    (y, _), tape = layer.forward(x)
    assert set(np.unique(y)) == {np.float32(0), np.float32(4 / 3)}
    assert abs(np.mean(y == 0) - 0.25) <= 5 * np.sqrt(0.25 * 0.75 / y.size)
    (again, _), _ = layer.forward(x)
    assert np.any(again != y)
    layer.backward(tape, np.ones_like(y))
    # The bias of layer 0 feels what passed the dropout, through the mask of this tape.
    assert_gradient(layer.grads["bias_ih_l0"], y.astype(np.float64).sum(axis=(0, 1)))


def test_dropout_follows_the_seed(cell: str) -> None:
    """The same seed gives the same masks, call by call; without dropout, training is inference."""
    x = np.random.default_rng(0).normal(size=(B, T, INPUTS))
    one, same, other, none = (
        LAYERS[cell](INPUTS, H, 2, dropout=p, seed=s) for p, s in ((0.5, 1), (0.5, 1), (0.5, 2), (0, 1))
    )
    other.load_state_dict(one.state_dict())
    for _ in range(2):
        (y, _), _ = one.forward(x)
        assert_same_bits(same.forward(x)[0][0], y)
        assert np.any(other.forward(x)[0][0] != y)
        assert np.any(one(x)[0] != y)
    assert_same_bits(none.forward(x)[0][0], none(x)[0])


def test_gradients_through_dropout(cell: str) -> None:
    """Backward uses the mask of its forward: central differences with the same seed agree."""

    def make() -> Any:
        return LAYERS[cell](INPUTS, H, 3, dropout=0.4, seed=4, dtype="float64", bidirectional=True)

    rng = np.random.default_rng(1)
    x, along, dy = rng.normal(size=(B, T, INPUTS)), rng.normal(size=(B, T, INPUTS)), rng.normal(size=(B, T, 2 * H))
    layer = make()
    _, tape = layer.forward(x)
    dx, _ = layer.backward(tape, dy)
    ahead, behind = (np.sum(make().forward(x + step * along)[0][0] * dy) for step in (1e-6, -1e-6))
    assert abs((ahead - behind) / 2e-6 - np.sum(dx * along)) <= 1e-7 + 1e-6 * abs(np.sum(dx * along))


def test_dropout_may_be_changed(cell: str) -> None:
    """A layer whose dropout was set later is one that was made with it; with 0 again, training is inference."""
    x = np.random.default_rng(0).normal(size=(B, T, INPUTS))
    one, other = LAYERS[cell](INPUTS, H, 2, dropout=0.5, seed=1), LAYERS[cell](INPUTS, H, 2, seed=1)
    other.dropout = 0.5
    assert other.config() == one.config()
    (y, _), tape = other.forward(x)
    assert_same_bits(y, one.forward(x)[0][0])
    other.dropout = 0
    assert_same_bits(other.forward(x)[0][0], other(x)[0])
    assert np.all(np.isfinite(other.backward(tape, np.ones_like(y))[0]))  # with the masks of its own forward


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), None, "x"])
def test_dropout_is_checked_when_it_is_changed(cell: str, value: Any) -> None:
    layer = LAYERS[cell](INPUTS, H, 2, dropout=0.5)
    with pytest.raises((ValueError, TypeError), match=rf"{layer.op}: dropout is {value!r}; expected a"):
        layer.dropout = value
    assert layer.dropout == 0.5
