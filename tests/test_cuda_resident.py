"""The resident path of the CUDA kernels (a block of threads holds W_hh for all steps), in the host twin.

The twin runs the phases of the kernel thread by thread. test_cuda_host.py runs the tests of the CPU kernels on both;
here are the sizes at which the layout of a block changes, and the choice of the path.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import reference
from fusedrnn import _core
from problems import Array, Case, as_float64, forward, gradients, train
from reference import CELLS
from test_gradients import check_slopes
from tolerance import ROUNDING, assert_forward, assert_gradient, assert_same_bits
from twin import Operands, needs_cuda_module, twin_stack

pytestmark = needs_cuda_module

# (batch, hidden): a slice of W_hh and one more, threads that own no unit, weights beyond the registers (LSTM: from 100
# on in float32, from 33 on in float64), batches that leave a block half empty.
SIZES = [(1, 1), (3, 7), (5, 16), (17, 17), (1, 32), (5, 33), (3, 64), (17, 65), (5, 100), (3, 128), (1, 129)]
H100 = {"multiprocessors": 132, "shared_bytes": 227 << 10}
CONSUMER = {"multiprocessors": 128, "shared_bytes": 99 << 10}  # compute capability 8.6, 8.9, 12.0


def plan_for(cell: str, dtype: str, hidden: int, batch: int = 16, directions: int = 1, **device: int) -> str:
    """Return the path for a device, an H100 by default."""
    from fusedrnn import _cuda

    return _cuda.plan_for(cell, dtype, hidden, batch, directions, **(H100 | device))


def is_resident(plan: str) -> bool:
    """Read the choice."""
    assert plan.startswith(("cuda: resident", "cuda: fused", "cuda: stepwise"))
    return plan.startswith("cuda: resident")


def check_case(case: Case) -> None:
    """Compare outputs with the reference, in inference and training, and gradients in float32 with those in float64."""
    double = gradients(case.cell, case.arguments(), case.cotangents())
    for name, actual in gradients(case.cell, case.arguments("float32"), case.cotangents("float32")).items():
        assert_gradient(actual, double[name], f"float32 d{name} of {case}")
    for dtype in ("float32", "float64"):
        arguments = case.arguments(dtype)
        truth = reference.run(case.cell, **as_float64(arguments))
        for outputs in (forward(case.cell, arguments), train(case.cell, arguments)[0]):
            for out, value in zip(outputs, truth, strict=True):
                assert_forward(out, value, case)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_against_the_reference(
    monkeypatch: pytest.MonkeyPatch, cell: str, sizes: tuple[int, int], reverse: bool
) -> None:
    """Outputs at every step, gradients along a direction of every tensor; float32 against float64."""
    monkeypatch.setattr(_core, "Stack", twin_stack)
    batch, hidden = sizes
    for ragged in (False, True):
        case = Case(cell, batch, 4, 3, hidden, ragged=ragged, reverse=reverse, batch_first=hidden % 2 == 0)
        check_slopes(case, gradients(cell, case.arguments(), case.cotangents()))
        check_case(case)


@pytest.mark.parametrize("directions", [1, 2], ids=["one_way", "two_way"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("hidden", [33, 100])
def test_against_the_stepwise_path(cell: str, dtype: str, hidden: int, ragged: bool, directions: int) -> None:
    """Layers, directions, chunks of steps and tapes: what the other path computes, but for the order of sums."""
    operands = Operands(cell, dtype, 2, directions, batch=5, inputs=6, hidden=hidden, ragged=ragged).damped()
    resident, stepwise = (operands.stack(twin_stack, chunk_bytes=operands.step_bytes * 4) for _ in range(2))
    stepwise.path = "stepwise"
    assert is_resident(resident.plan(9, 5)) and not is_resident(stepwise.plan(9, 5))
    states = 1 + len(CELLS[cell].states)
    results = zip(operands.gradients(resident), operands.gradients(stepwise), strict=True)
    for place, (out, expected) in enumerate(results):
        (assert_forward if place < states else assert_gradient)(out, expected.astype(np.float64), place)


@pytest.mark.parametrize("kind", ROUNDING)
@pytest.mark.parametrize("hidden", [7, 64, 128])
def test_half_precision(cell: str, kind: str, hidden: int) -> None:
    """16-bit arrays: as near to the same numbers in float64 as the stepwise path is, within a tenth."""
    pytest.importorskip("ml_dtypes")
    operands = Operands(cell, kind, directions=2, ragged=True, hidden=hidden).damped()
    exact = operands.astype("float64")
    resident, stepwise = operands.stack(twin_stack), operands.stack(twin_stack)
    stepwise.path = "stepwise"
    assert is_resident(resident.plan(9, 5))
    results = (operands.gradients(resident), operands.gradients(stepwise), exact.gradients(exact.stack(twin_stack)))
    for place, (out, other, true) in enumerate(zip(*results, strict=True)):

        def error(array: Array, true: Array = true) -> float:
            return float(np.linalg.norm((array.astype(np.float64) - true).ravel()) / np.linalg.norm(true.ravel()))

        assert error(out) <= 1.1 * error(other) + ROUNDING[kind] / 10, place


def test_samples_of_a_block_do_not_show(cell: str, dtype: str) -> None:
    """The twin gives a block one sample in one call and two in the next: the same bits, also for each sample alone."""
    operands = Operands(cell, dtype, ragged=True, batch=7, hidden=33)
    stack = operands.stack(twin_stack)
    expected = operands.gradients(stack)
    for _ in range(3):
        for out, first in zip(operands.gradients(stack), expected, strict=True):
            assert_same_bits(out, first)
    for b in range(operands.batch):
        states = [s[:, b : b + 1] for s in operands.start]
        one = stack.forward(
            operands.weights, operands.x[b : b + 1], states[0], states[1] if states[1:] else None,
            operands.lengths[b : b + 1], True, False,
        )  # fmt: skip
        assert_same_bits(one[0], expected[0][b : b + 1])


def test_nan_stays_in_its_sample_of_a_block(cell: str) -> None:
    """The samples of a block share threads and memory, but no number."""
    operands = Operands(cell, "float32", batch=4, hidden=20)
    clean = operands.gradients(operands.stack(twin_stack))
    operands.x[1] = np.nan
    for _ in range(2):
        y, *rest = operands.gradients(operands.stack(twin_stack))
        assert np.all(np.isnan(y[1]))
        dx = rest[len(CELLS[cell].states)]
        for out, expected in ((y, clean[0]), (dx, clean[1 + len(CELLS[cell].states)])):
            assert_same_bits(out[[0, 2, 3]], expected[[0, 2, 3]])


@pytest.mark.parametrize("hidden", [32, 33, 100])
def test_weights_at_any_address(cell: str, dtype: str, hidden: int) -> None:
    """Four weights are read at a time where their address allows it; an array may begin between two such places."""
    operands = Operands(cell, dtype, batch=3, hidden=hidden)
    stack = operands.stack(twin_stack)
    assert is_resident(stack.plan(9, 3))
    moved = []
    for weight in operands.weights:
        room = np.empty(weight.size + 1, weight.dtype)
        moved.append(room[1:].reshape(weight.shape))
        moved[-1][...] = weight
    expected = operands.gradients(stack)
    for out, value in zip(operands.replaced(weights=moved).gradients(stack), expected, strict=True):
        assert_same_bits(out, value)


def test_small_layers_are_resident(cell: str) -> None:
    """What is promised for an H100; where W_hh does not fit the stepwise path runs, also at sizes in between."""
    reach = {"lstm": 128, "gru": 160, "rnn_tanh": 256, "rnn_relu": 256}[cell]
    for kind in ("float32", "bfloat16", "float16"):
        chosen = [is_resident(plan_for(cell, kind, hidden)) for hidden in range(1, 600)]
        assert all(chosen[:reach]), chosen.index(False) + 1
        assert not any(chosen[511:])
    assert is_resident(plan_for(cell, "float64", 64))
    assert not is_resident(plan_for(cell, "float64", 512))


def test_the_device_decides() -> None:
    """Less shared memory a block means fewer sizes."""
    assert is_resident(plan_for("lstm", "float32", 64, **CONSUMER))
    assert is_resident(plan_for("lstm", "float32", 128))
    assert not is_resident(plan_for("lstm", "float32", 128, **CONSUMER))
    for hidden in range(1, 300):
        for device in (H100, CONSUMER):
            plan = plan_for("gru", "float32", hidden, **device)
            if is_resident(plan):
                kib = re.search(r"(\d+) KiB", plan)
                assert kib and int(kib[1]) <= device["shared_bytes"] >> 10


def test_the_batch_does_not_choose_the_path(cell: str) -> None:
    """It only decides how many blocks there are: a sample each, until they would have to wait for each other."""
    for hidden in (64, 128, 200):
        plans = [plan_for(cell, "float32", hidden, batch) for batch in (1, 16, 300, 5000)]
        assert len({is_resident(plan) for plan in plans}) == 1
    assert "x16 (1 x 256 threads" in plan_for("lstm", "float32", 64, 16)
    assert "x132 (1 x 512 threads" in plan_for("lstm", "float32", 128, 132)
    assert "x67 (2 x 512 threads" in plan_for("lstm", "float32", 128, 133)
    assert "x50 (2 x 512 threads" in plan_for("lstm", "float32", 128, 100, directions=2)
    assert "x264 (1 x 256 threads" in plan_for("lstm", "float32", 64, 264)  # two blocks run beside each other
    assert "x133 (2 x 256 threads" in plan_for("lstm", "float32", 64, 265)
    assert "x300 (1 x" in plan_for("lstm", "float64", 64, 300)  # registers


def test_the_path_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """FUSEDRNN_CUDA_PATH, read when a stack is made; another value is an error."""

    def plan() -> Any:
        return Operands("lstm", "float32").stack(twin_stack).plan(9, 5)

    monkeypatch.delenv("FUSEDRNN_CUDA_PATH", raising=False)
    assert is_resident(plan())
    monkeypatch.setenv("FUSEDRNN_CUDA_PATH", "stepwise")
    assert plan() == "cuda: stepwise"
    monkeypatch.setenv("FUSEDRNN_CUDA_PATH", "fused")
    assert plan() == "cuda: fused"
    monkeypatch.setenv("FUSEDRNN_CUDA_PATH", "fast")
    with pytest.raises(ValueError, match="FUSEDRNN_CUDA_PATH is 'fast'; expected 'auto', 'fused' or 'stepwise'"):
        plan()
