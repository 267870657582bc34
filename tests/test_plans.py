"""How calls are split over threads: every scheme is taken somewhere, and none changes a bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from tolerance import assert_same_bits

pytestmark = [pytest.mark.every_isa, pytest.mark.usefixtures("restore_threads")]

# name of the plan with so many threads: (batch, steps, hidden, layers, bidirectional)
TAKEN = {
    ("single", 1): (3, 40, 33, 2, False),
    ("by_sample", 2): (9, 40, 33, 2, False),
    ("by_direction", 2): (1, 60, 65, 2, True),
    ("by_unit", 2): (2, 33, 161, 1, False),
    ("by_unit", 3): (2, 20, 289, 2, False),
    ("by_layer", 2): (1, 140, 20, 2, False),
    ("by_layer", 3): (2, 100, 20, 6, False),
}


def results(layer: Any, x: Any, lengths: Any) -> list[Any]:
    """Return y, the final state and all gradients of one training step."""
    layer.zero_grad()
    (y, state), tape = layer.forward(x, lengths=lengths)
    dx, dstate = layer.backward(tape, np.cos(y))
    flat = [np.stack(s) if isinstance(s, tuple) else s for s in (state, dstate)]
    return [layer(x, lengths=lengths)[0], y, dx, *flat, *(g.copy() for g in layer.grads.values())]


@pytest.mark.parametrize("ragged", [False, True], ids=["dense", "ragged"])
@pytest.mark.parametrize("plan", TAKEN, ids=lambda plan: f"{plan[0]}_x{plan[1]}")
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_schemes(plan: tuple[str, int], cell: str, ragged: bool) -> None:
    """The scheme that the shape is there for, and the bits of one thread."""
    (scheme, threads), (batch, steps, hidden, layers, bidirectional) = plan, TAKEN[plan]
    if cell == "RNN" and scheme in ("by_unit", "by_layer", "by_direction"):
        hidden, steps = 3 * hidden, 2 * steps  # a quarter of the gates
    layer = getattr(fr, cell)(7, hidden, layers, bidirectional=bidirectional, seed=1)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((batch, steps, 7)).astype(np.float32)
    lengths = rng.integers(1, steps + 1, batch) if ragged else None
    fr.set_num_threads(1)
    expected = results(layer, x, lengths)
    fr.set_num_threads(threads)
    assert layer.plan(steps, batch) == f"{scheme} x{threads}"
    for _ in range(3):
        for value, same in zip(results(layer, x, lengths), expected, strict=True):
            assert_same_bits(value, same)


def test_more_threads_than_parts() -> None:
    """Fewer threads run the time loops than there are for the products after them."""
    layer = fr.LSTM(7, 97, seed=1)
    x = np.random.default_rng(2).standard_normal((1, 60, 7)).astype(np.float32)
    fr.set_num_threads(1)
    expected = results(layer, x, None)
    fr.set_num_threads(7)
    assert layer.plan(60, 1) in [f"by_unit x{n}" for n in range(2, 7)]
    for value, same in zip(results(layer, x, None), expected, strict=True):
        assert_same_bits(value, same)


@pytest.mark.parametrize(("threads", "layers"), [(2, 4), (3, 3)])
def test_layers_follow_each_other(threads: int, layers: int) -> None:
    """Reversed and time-major stacks, float64, initial states and zero lengths, by layer."""
    layer = fr.LSTM(5, 20, layers, dtype="float64", batch_first=False, seed=3).reversed_copy(seed=4)
    rng = np.random.default_rng(5)
    x, state = rng.standard_normal((50, 2, 5)), tuple(rng.standard_normal((2, layers, 2, 20)))
    lengths = np.array([0, 41])
    fr.set_num_threads(1)
    y, final = layer(x, state, lengths)
    fr.set_num_threads(threads)
    assert layer.plan(50, 2) == f"by_layer x{threads}"
    for _ in range(5):
        again, final_again = layer(x, state, lengths)
        assert_same_bits(again, y)
        assert_same_bits(np.stack(final_again), np.stack(final))


def test_sizes_of_a_plan() -> None:
    """Any size that could be an array's is planned for, and no other."""
    layer = fr.LSTM(3, 5)
    for time, batch in ((0, 0), (0, 4), (4, 0)):
        assert layer.plan(time, batch) == "single x1"
    with pytest.raises(ValueError, match="LSTM: time is -1; expected 0 or more"):
        layer.plan(-1, 2)
    with pytest.raises(ValueError, match="LSTM: batch is -1; expected 0 or more"):
        layer.plan(2, -1)
    with pytest.raises(ValueError, match="LSTM"):
        layer.plan(2**62, 2)
