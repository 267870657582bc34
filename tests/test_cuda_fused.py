"""The fused path of the CUDA kernels (one launch a step, product and cell), in the host twin.

test_cuda_host.py runs the tests of the CPU kernels on it; here are the sizes at which the work of a block of threads
changes, and the choice between this path and the stepwise one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusedrnn import _core
from problems import Case, gradients
from reference import CELLS
from test_cuda_resident import check_case, plan_for
from test_gradients import check_slopes
from tolerance import ROUNDING, assert_forward, assert_gradient, assert_same_bits
from twin import Array, Operands, needs_cuda_module, twin_stack

pytestmark = needs_cuda_module

# (batch, hidden): both numbers of rows and what lies between them; units that leave a block half empty; hidden sizes
# that are no multiple of four; more k than a block's slices take at once (from 129 on; LSTM backward from 65 on), and
# more than are on their way at a time (from 257 on with many rows, from 513 on with few, LSTM backward then too).
SIZES = [
    (1, 1),
    (3, 7),
    (4, 16),
    (5, 33),
    (16, 20),
    (2, 64),
    (7, 65),
    (4, 129),
    (15, 130),
    (3, 200),
    (6, 258),
    (2, 516),
]


def fused_stack(*args: Any, **kwargs: Any) -> Any:
    """Make the host twin of a stack that takes the fused path."""
    stack = twin_stack(*args, **kwargs)
    stack.path = "fused"
    return stack


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_against_the_reference(
    monkeypatch: pytest.MonkeyPatch, cell: str, sizes: tuple[int, int], reverse: bool
) -> None:
    """Outputs at every step, gradients along a direction of every tensor; float32 against float64."""
    monkeypatch.setattr(_core, "Stack", fused_stack)
    batch, hidden = sizes
    for ragged in (False, True):
        case = Case(cell, min(batch, 4), 4, 3, hidden, ragged=ragged, reverse=reverse, batch_first=hidden % 2 == 0)
        check_slopes(case, gradients(cell, case.arguments(), case.cotangents()))
        case = Case(cell, batch, 4, 3, hidden, ragged=ragged, reverse=reverse, batch_first=hidden % 2 == 0)
        check_case(case)


@pytest.mark.parametrize("directions", [1, 2], ids=["one_way", "two_way"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("steps", [1, 8, 21, 70])
def test_against_the_stepwise_path(cell: str, steps: int, ragged: bool, directions: int) -> None:
    """Layers, directions, chunks and recorded segments that begin at odd steps: the same but for the order of sums."""
    operands = Operands(cell, "float32", 2, directions, steps=steps, hidden=33, ragged=ragged).damped()
    fused, stepwise = (operands.stack(twin_stack, chunk_bytes=operands.step_bytes * 5) for _ in range(2))
    fused.path, stepwise.path = "fused", "stepwise"
    assert fused.plan(steps, operands.batch) == "cuda: fused"
    expected = operands.gradients(stepwise)
    for _ in range(3):  # as it is, recorded, replayed
        for place, (out, value) in enumerate(zip(operands.gradients(fused), expected, strict=True)):
            check = assert_forward if place <= len(CELLS[cell].states) else assert_gradient
            check(out, value.astype(np.float64), place)


@pytest.mark.parametrize("kind", ROUNDING)
@pytest.mark.parametrize("hidden", [7, 64, 130])
def test_half_precision(cell: str, kind: str, hidden: int) -> None:
    """16-bit arrays: as near to the same numbers in float64 as the stepwise path is, within a tenth."""
    pytest.importorskip("ml_dtypes")
    operands = Operands(cell, kind, directions=2, ragged=True, hidden=hidden).damped()
    exact = operands.astype("float64")
    fused, stepwise = operands.stack(fused_stack), operands.stack(twin_stack)
    stepwise.path = "stepwise"
    results = (operands.gradients(fused), operands.gradients(stepwise), exact.gradients(exact.stack(twin_stack)))
    for place, (out, other, true) in enumerate(zip(*results, strict=True)):

        def error(array: Array, true: Array = true) -> float:
            return float(np.linalg.norm((array.astype(np.float64) - true).ravel()) / np.linalg.norm(true.ravel()))

        assert error(out) <= 1.1 * error(other) + ROUNDING[kind] / 10, place


def test_bits_do_not_depend_on_the_batch(cell: str, dtype: str) -> None:
    """A sample alone, and in batches that take few rows and many."""
    most = 16 if dtype == "float32" else 4
    operands = Operands(cell, dtype, ragged=True, batch=most, hidden=70)
    stack = operands.stack(fused_stack)
    expected = operands.gradients(stack)[0]
    for size in (1, 3, most - 1):
        for b in range(0, most - size, size):
            some = slice(b, b + size)
            states = [s[:, some] for s in operands.start]
            y, *_ = stack.forward(
                operands.weights, operands.x[some], states[0], states[1] if states[1:] else None,
                operands.lengths[some], True, False,
            )  # fmt: skip
            assert_same_bits(y, expected[some])


@pytest.mark.parametrize("hidden", [32, 129])
def test_weights_at_any_address(cell: str, dtype: str, hidden: int) -> None:
    """Four weights are read at a time where their address allows it; an array may begin between two such places."""
    operands = Operands(cell, dtype, batch=3, hidden=hidden)
    expected = operands.gradients(operands.stack(fused_stack))
    moved = []
    for weight in operands.weights:
        room = np.empty(weight.size + 1, weight.dtype)
        moved.append(room[1:].reshape(weight.shape))
        moved[-1][...] = weight
    other = operands.replaced(weights=moved)
    for out, value in zip(other.gradients(other.stack(fused_stack)), expected, strict=True):
        assert_same_bits(out, value)


@pytest.mark.parametrize("hidden", [32, 35])
def test_weights_may_change_in_place(cell: str, dtype: str, hidden: int) -> None:
    """Copies of W_hh that a recorded loop reads are those of the call, as after each step of an optimizer."""
    operands = Operands(cell, dtype, layers=2, batch=3, hidden=hidden)
    stack = operands.stack(fused_stack)
    for _ in range(4):  # as it is, recorded, replayed
        expected = operands.replaced(weights=[w.copy() for w in operands.weights])
        for out, value in zip(operands.gradients(stack), expected.gradients(expected.stack(fused_stack)), strict=True):
            assert_same_bits(out, value)
        for weight in operands.weights:
            weight *= 0.75


def test_nan_stays_in_its_sample(cell: str) -> None:
    """Rows past the last one, lengths that have ended, and NaN beside them."""
    operands = Operands(cell, "float32", batch=6, hidden=20, ragged=True)
    clean = operands.gradients(operands.stack(fused_stack))
    bad = int(np.argmax(operands.lengths))
    operands.x[bad] = np.nan
    y, *rest = operands.gradients(operands.stack(fused_stack))
    assert np.all(np.isnan(y[bad][: operands.lengths[bad]]))
    others = np.arange(operands.batch) != bad
    dx = rest[len(CELLS[cell].states)]
    for out, expected in ((y, clean[0]), (dx, clean[1 + len(CELLS[cell].states)])):
        assert_same_bits(out[others], expected[others])


def test_the_batch_chooses_the_path(cell: str) -> None:
    """Beyond the sizes of the resident path: fused with few samples, else stepwise; so large ones in 16 bits."""
    for kind, most in (("float32", 16), ("bfloat16", 16), ("float16", 16), ("float64", 4)):
        plans = {plan_for(cell, kind, 1000, batch) for batch in range(1, most + 1)}
        assert plans == {"cuda: fused"}
        assert plan_for(cell, kind, 1000, most + 1) == "cuda: stepwise"
        assert plan_for(cell, kind, 1024, 1) == ("cuda: stepwise" if "16" in kind else "cuda: fused")
