"""Random numbers that are drawn in pieces, so that Ctrl-C is heard, are those of one draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import init
from tolerance import assert_same_bits

SHAPES = [(0,), (1,), (6,), (7,), (8,), (13, 5), (3, 7, 11)]
DRAWS: dict[str, Callable[[tuple[int, ...], Any, np.random.Generator], Any]] = {
    "uniform": lambda shape, dtype, rng: init.uniform(shape, 0.3, dtype, rng),
    "normal": init.normal,
    "torch_uniform": lambda shape, dtype, rng: init.torch_uniform(shape, 9, dtype, rng),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype("f8")], ids=str)
@pytest.mark.parametrize("name", DRAWS)
def test_pieces_are_one_draw(name: str, dtype: Any, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.random.default_rng(3)
    expected = DRAWS[name](shape, dtype, whole)
    after = whole.bit_generator.state
    if name == "uniform":
        assert_same_bits(expected, np.random.default_rng(3).uniform(-0.3, 0.3, shape).astype(dtype))
    if name == "normal":
        assert_same_bits(expected, np.random.default_rng(3).standard_normal(shape).astype(dtype))
    for at_once in (1, 2, 7, 1000):
        monkeypatch.setattr(init, "_AT_ONCE", at_once)
        rng = np.random.default_rng(3)
        assert_same_bits(DRAWS[name](shape, dtype, rng), expected)
        assert rng.bit_generator.state == after  # what is drawn next is the same as well


def test_weights_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed means one set of weights, and one sequence of masks after them, however long the pieces are."""
    x = np.ones((3, 4, 5), np.float32)

    def made() -> tuple[dict[str, Any], Any]:
        model = fr.Sequential(fr.LSTM(5, 9, 2, bidirectional=True, dropout=0.4, seed=1), fr.Linear(18, 7, seed=2))
        return model.params, model.forward(x)[0]

    params, y = made()
    for at_once in (1, 7, 64):
        monkeypatch.setattr(init, "_AT_ONCE", at_once)
        again, y_again = made()
        for name, value in params.items():
            assert_same_bits(again[name], value, name)
        assert_same_bits(y_again, y)


def test_the_pieces_of_a_long_draw() -> None:
    """As they are: more numbers than a piece has."""
    size = init._AT_ONCE + 5
    expected = np.random.default_rng(4).uniform(-1, 1, size).astype(np.float32)
    assert_same_bits(init.uniform((size,), 1.0, np.dtype("f4"), np.random.default_rng(4)), expected)
