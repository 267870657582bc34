"""Numbers at the ends of their range, and a million steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import reference
from problems import LAYERS
from tolerance import TOLERANCE, assert_same_bits


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4, 1e6])
def test_the_bound_of_large_outputs_is_relative(scale: float) -> None:
    """A relu bounds nothing, so neither can an absolute bound: it is in units of the largest output."""
    rng = np.random.default_rng(int(scale))
    layer: Any = fr.RNN(64, 96, nonlinearity="relu", seed=1)
    x = (scale * rng.standard_normal((8, 30, 64))).astype(np.float32)
    y, _ = layer(x)
    weights = {name.removesuffix("_l0"): array.astype(np.float64) for name, array in layer.state_dict().items()}
    truth = reference.run("rnn_relu", x=x.astype(np.float64), **weights)
    truth = truth[0] if isinstance(truth, tuple) else truth
    largest = float(np.abs(truth).max())
    assert largest >= scale
    assert float(np.abs(y - truth).max()) <= TOLERANCE["float32"].forward * largest


def test_a_million_steps(cell: str) -> None:
    """H = 8, forward and backward: the bits of the halves, and gradients that are finite."""
    layer: Any = LAYERS[cell](4, 8, seed=1)
    x = np.random.default_rng(0).standard_normal((1, 1_000_000, 4), dtype=np.float32)
    (y, state), tape = layer.forward(x)
    first, middle = layer(x[:, :500_000])
    second, last = layer(x[:, 500_000:], middle)
    assert_same_bits(y[:, :500_000], first)
    assert_same_bits(y[:, 500_000:], second)
    for got, expected in zip(np.atleast_1d(last), np.atleast_1d(state), strict=True):
        assert_same_bits(got, expected)
    dx, _ = layer.backward(tape, np.ones_like(y))
    assert np.isfinite(dx).all() and all(np.isfinite(grad).all() for grad in layer.grads.values())
