"""Forward kernels against the reference: every cell, dtype, layout, direction, lengths and state, at awkward sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import reference
from problems import Case, as_float64, differentiable, forward
from tolerance import assert_forward, assert_same_bits

# Around the vector widths of all instruction sets (2 to 16 lanes), two vectors, past a cache line of gates, and every
# number of vectors for the last units.
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 23, 26, 28, 29, 33, 127, 129)
BATCHES = (0, 1, 2, 7, 17, 33)
STEPS = (0, 1, 2, 9, 9)


def check(case: Case, dtype: str) -> None:
    """Compare y and the final states with the reference."""
    outputs = forward(case.cell, case.arguments(dtype))
    truth = reference.run(case.cell, **case.arguments())
    assert len(outputs) == len(truth)
    for name, out, true in zip(("y", *reference.CELLS[case.cell].states), outputs, truth, strict=True):
        assert out.dtype == dtype
        assert_forward(out, true, f"{name} of {case}")


@pytest.mark.every_isa
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("state", [False, True], ids=["zero_state", "given_state"])
def test_grid(cell: str, dtype: str, batch_first: bool, reverse: bool, ragged: bool, state: bool) -> None:
    """Every combination of options meets every hidden size; the other sizes are drawn, the same ones every run."""
    options = Case(cell, reverse=reverse, batch_first=batch_first, ragged=ragged, state=state)
    rng = options.rng(dtype)
    for hidden, inputs in zip(SIZES, rng.permutation(SIZES), strict=True):
        batch, steps = rng.choice(BATCHES), rng.choice(STEPS)
        case = replace(options, hidden=hidden, inputs=int(inputs), batch=int(batch), steps=int(steps))
        check(replace(case, bias=bool(rng.integers(4))), dtype)


@pytest.mark.every_isa
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("inputs", "hidden"), [(3, 1025), (1025, 3), (1025, 21)])
def test_1025(cell: str, dtype: str, batch: int, inputs: int, hidden: int) -> None:
    """Sums over more than a thousand products, one past a power of two."""
    check(Case(cell, batch=batch, steps=2, inputs=inputs, hidden=hidden), dtype)


@pytest.mark.every_isa
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_many_rows(cell: str, dtype: str, reverse: bool) -> None:
    """More rows of input than a kernel would project at once, ragged."""
    check(Case(cell, batch=33, steps=40, inputs=5, hidden=33, ragged=True, reverse=reverse), dtype)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_a_thousand_steps(cell: str, dtype: str, reverse: bool) -> None:
    """The promised accuracy holds to the end of a long sequence."""
    check(Case(cell, batch=2, steps=1000, inputs=5, hidden=33, reverse=reverse), dtype)


@pytest.mark.every_isa
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_integers_are_exact(dtype: str, batch_first: bool, reverse: bool) -> None:
    """With a relu and small integers nothing is rounded, so no indexing error can hide under a tolerance."""
    case = Case(
        "rnn_relu", batch=7, steps=3, inputs=19, hidden=21, ragged=True, reverse=reverse, batch_first=batch_first
    )
    rng, arguments = case.rng(), case.arguments(dtype)
    for name in differentiable(arguments):
        arguments[name] = rng.integers(-3, 4, arguments[name].shape).astype(dtype)
    outputs, truth = forward("rnn_relu", arguments), reference.run("rnn_relu", **as_float64(arguments))
    for out, true in zip(outputs, truth, strict=True):
        assert_same_bits(out + 0, true.astype(dtype) + 0)


@pytest.mark.every_isa
@pytest.mark.parametrize(("batch", "steps"), list(product((0, 1, 2), (0, 1))))
def test_empty(cell: str, dtype: str, batch: int, steps: int) -> None:
    """No steps leave the state as it was, in memory of its own; no samples give empty results."""
    case = Case(cell, batch=batch, steps=steps, hidden=9)
    arguments = case.arguments(dtype)
    y, *final = forward(cell, arguments)
    assert y.shape == (batch, steps, 9)
    for name, state in zip(reference.CELLS[cell].states, final, strict=True):
        assert state.shape == (batch, 9)
        assert not np.shares_memory(state, arguments[f"{name}0"])
        if steps == 0:
            assert_same_bits(state, arguments[f"{name}0"])


@pytest.mark.every_isa
def test_tail_is_zero(cell: str, dtype: str) -> None:
    """All lengths below T: y past them is exactly 0, and a length of 0 gives back the initial state."""
    for reverse in (False, True):
        arguments = Case(cell, batch=5, steps=7, hidden=17, reverse=reverse).arguments(dtype)
        lengths = np.array([3, 0, 5, 1, 4])
        y, *final = forward(cell, {**arguments, "lengths": lengths})
        for b, length in enumerate(lengths):
            assert not np.any(y[b, length:])
            assert np.all(np.any(y[b, :length], axis=-1))
        for name, state in zip(reference.CELLS[cell].states, final, strict=True):
            assert_same_bits(state[1], arguments[f"{name}0"][1])


def curve(dtype: str) -> np.ndarray:
    """Return points from subnormal to huge, of both signs, dense where the gate functions bend."""
    tiny = np.finfo(dtype).tiny
    positive = np.concatenate(
        [
            [0, tiny / 8, tiny, 1e-20],
            np.geomspace(1e-10, 1e-2, 50),
            np.linspace(0.01, 30, 4001),
            [88, 89, 709, 711, 1e30],
        ]
    )
    return np.concatenate([-positive[::-1], positive]).astype(dtype)


@pytest.mark.every_isa
def test_tanh(dtype: str) -> None:
    """A cell of one unit with weight 1 and no past is the tanh itself: bounded, and right to a few roundings."""
    points = curve(dtype)
    one = np.ones((1, 1), dtype)
    y, _ = forward("rnn_tanh", {"x": points[:, None, None], "weight_ih": one, "weight_hh": one})
    truth = np.tanh(points.astype(np.float64))
    assert np.max(np.abs(y)) <= 1
    assert np.max(np.abs(y[:, 0, 0] - truth)) <= 4 * np.finfo(dtype).eps
    assert y[-1, 0, 0] == 1
    assert y[0, 0, 0] == -1


@pytest.mark.every_isa
def test_sigmoid(dtype: str) -> None:
    """The update gate alone: z = sigma(x), n = 0 and h0 = 1 make the GRU's output the sigmoid itself."""
    points = curve(dtype)
    weight_ih = np.array([[0], [1], [0]], dtype)
    h0 = np.ones((len(points), 1), dtype)
    y, _ = forward("gru", {"x": points[:, None, None], "weight_ih": weight_ih, "weight_hh": 0 * weight_ih, "h0": h0})
    with np.errstate(over="ignore"):
        truth = 1 / (1 + np.exp(-points.astype(np.float64)))
    assert np.min(y) >= 0
    assert np.max(y) <= 1
    assert np.max(np.abs(y[:, 0, 0] - truth)) <= 4 * np.finfo(dtype).eps


@pytest.mark.every_isa
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize("scale", [1e3, 1e30], ids=["saturated", "huge"])
def test_saturated_gates(cell: str, dtype: str, scale: float) -> None:
    """Gates far in saturation are exactly 0 or 1 and overflow nothing."""
    case = Case(cell, batch=5, inputs=9, hidden=17)
    arguments = case.arguments(dtype)
    one_hot = np.arange(9) == case.rng().integers(9, size=(5, case.steps, 1))  # sums of huge terms round too much
    arguments["x"] = (np.sign(arguments["x"]) * one_hot * scale).astype(dtype)
    outputs = forward(cell, arguments)
    for out, true in zip(outputs, reference.run(cell, **as_float64(arguments)), strict=True):
        assert np.all(np.isfinite(out))
        assert_forward(out, true)


@pytest.mark.every_isa
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_input(cell: str, dtype: str, bad: float) -> None:
    """One NaN or Inf does what the formulas say: NaN is not clamped away, and a saturated gate stays right."""
    arguments = Case(cell, batch=5, steps=6, inputs=9, hidden=17).arguments(dtype)
    arguments["x"][3, 2, 4] = bad
    with np.errstate(invalid="ignore"):
        truth = reference.run(cell, **as_float64(arguments))
    outputs = forward(cell, arguments)
    for out, true in zip(outputs, truth, strict=True):
        assert_forward(out, true)
    if np.isnan(bad):
        assert np.all(np.isnan(outputs[0][3, 2:]))


def test_denormals_of_the_caller(cell: str, dtype: str) -> None:
    """Flush-to-zero, if a kernel uses it, does not leak to the caller."""
    forward(cell, Case(cell, batch=17, hidden=129).arguments(dtype))
    tiny = np.array([np.finfo(dtype).smallest_subnormal])
    assert (tiny + tiny)[0] > tiny[0] > 0
