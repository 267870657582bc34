"""Backward kernels against the complex step through the reference, and float32 against float64."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import reference
from problems import Array, Case, backward, differentiable, gradients, train
from tolerance import TOLERANCE, assert_gradient, assert_same_bits, assert_slope

pytestmark = pytest.mark.every_isa

# Batch, steps, inputs, hidden: the last two around the vector widths, the batch around the row blocks of a GEMM.
SIZES = [(1, 9, 1, 1), (2, 2, 4, 3), (7, 9, 3, 4), (5, 3, 5, 7), (17, 2, 8, 8), (4, 9, 7, 9), (33, 2, 16, 15)]
SIZES += [(6, 3, 17, 16), (9, 5, 15, 17), (8, 3, 33, 31), (3, 2, 31, 33), (17, 9, 129, 127), (2, 3, 127, 129)]
SIZES += [(1, 5, 20, 20), (9, 3, 5, 23), (7, 4, 9, 43), (5, 3, 2, 28)]  # every number of vectors for the last units


def check_slopes(case: Case, actual: dict[str, Array]) -> None:
    """Compare each gradient with the reference along one random direction."""
    arguments, cotangents = case.arguments(), case.cotangents()
    for name in differentiable(arguments):
        along = case.rng(name).normal(size=arguments[name].shape)
        truth = reference.slope(partial(reference.run, case.cell), arguments, cotangents, name, along)
        assert_slope(actual[name], along, truth, f"d{name} of {case}")


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])
def test_every_element(cell: str, batch_first: bool, reverse: bool, ragged: bool, bias: bool) -> None:
    """Every element of every gradient, in both dtypes, for every combination of options."""
    case = Case(cell, hidden=5, bias=bias, ragged=ragged, reverse=reverse, batch_first=batch_first)
    arguments, cotangents = case.arguments(), case.cotangents()
    double = gradients(cell, arguments, cotangents)
    single = gradients(cell, case.arguments("float32"), case.cotangents("float32"))
    assert set(double) == set(single) == set(differentiable(arguments))
    for name, actual in double.items():
        truth = reference.gradient(partial(reference.run, cell), arguments, cotangents, name)
        assert_gradient(actual, truth, f"d{name}")
        assert_gradient(single[name], truth, f"float32 d{name}")


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes(cell: str, sizes: tuple[int, int, int, int]) -> None:
    """At every size: float64 along a random direction of every tensor, float32 element by element against float64."""
    batch, steps, inputs, hidden = sizes
    for reverse in (False, True):
        case = Case(cell, batch, steps, inputs, hidden, ragged=not reverse, reverse=reverse, batch_first=steps != 2)
        double = gradients(cell, case.arguments(), case.cotangents())
        single = gradients(cell, case.arguments("float32"), case.cotangents("float32"))
        check_slopes(case, double)
        for name, actual in single.items():
            assert actual.dtype == np.float32
            assert_gradient(actual, double[name], f"float32 d{name} of {case}")


def test_1025(cell: str) -> None:
    """Sums over more than a thousand products."""
    for inputs, hidden in ((3, 1025), (1025, 3)):
        case = Case(cell, batch=2, steps=2, inputs=inputs, hidden=hidden)
        double = gradients(cell, case.arguments(), case.cotangents())
        check_slopes(case, double)
        for name, actual in gradients(cell, case.arguments("float32"), case.cotangents("float32")).items():
            assert_gradient(actual, double[name], f"float32 d{name} of {case}")


def test_many_steps(cell: str) -> None:
    """Backpropagation through 300 steps."""
    case = Case(cell, batch=2, steps=300, inputs=3, hidden=9)
    double = gradients(cell, case.arguments(), case.cotangents())
    check_slopes(case, double)
    for name, actual in gradients(cell, case.arguments("float32"), case.cotangents("float32")).items():
        assert_gradient(actual, double[name], f"float32 d{name}")


def test_zero_initial_state(cell: str) -> None:
    """Without h0 and c0 the gradients are those at a state of zeros, the states' own included."""
    case = Case(cell, batch=4, hidden=9, state=False, ragged=True)
    arguments, cotangents = case.arguments(), case.cotangents()
    zeros = {f"{name}0": np.zeros((4, 9)) for name in reference.CELLS[cell].states}
    expected = gradients(cell, arguments | zeros, cotangents)
    actual = gradients(cell, arguments, cotangents)
    assert set(actual) == set(expected)
    for name, value in actual.items():
        assert_same_bits(value, expected[name], name)


def test_cotangents_of_none(cell: str, dtype: str) -> None:
    """A cotangent that is left out is one of zeros."""
    case = Case(cell, hidden=9, ragged=True)
    tape = train(cell, case.arguments(dtype))[1]
    full = case.cotangents(dtype)
    for only in range(len(full)):
        left_out = tuple(d if k == only else None for k, d in enumerate(full))
        zeros = tuple(d if k == only else np.zeros_like(d) for k, d in enumerate(full))
        actual, expected = backward(cell, tape, left_out), backward(cell, tape, zeros)
        for name, value in actual.items():
            assert_same_bits(value, expected[name], f"{name} with cotangent {only}")
        assert np.any(actual["x"])


def test_no_steps(cell: str, dtype: str) -> None:
    """T = 0: the gradient of the final state is that of the initial one, the weights have none."""
    case = Case(cell, batch=3, steps=0, hidden=9)
    dy, *dfinal = case.cotangents(dtype)
    actual = gradients(cell, case.arguments(dtype), (dy, *dfinal))
    for name, dstate in zip(reference.CELLS[cell].states, dfinal, strict=True):
        assert_same_bits(actual[f"{name}0"], dstate)
    assert actual["x"].shape == (3, 0, case.inputs)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        assert not np.any(actual[name])


def test_no_samples(cell: str, dtype: str) -> None:
    """B = 0: gradients of the right shapes, zero for the weights."""
    case = Case(cell, batch=0, hidden=9)
    arguments = case.arguments(dtype)
    for name, value in gradients(cell, arguments, case.cotangents(dtype)).items():
        assert value.shape == arguments[name].shape
        assert not np.any(value)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_padding_has_no_gradient(cell: str, dtype: str, reverse: bool) -> None:
    """Past the end the gradient of x is exactly 0 and dy is not read; a length of 0 passes the state's on."""
    case = replace(Case(cell, batch=5, steps=7, hidden=17), reverse=reverse)
    arguments = case.arguments(dtype) | {"lengths": np.array([3, 0, 5, 1, 4])}
    dy, *dfinal = case.cotangents(dtype)
    actual = gradients(cell, arguments, (dy, *dfinal))
    padding = np.arange(7) >= arguments["lengths"][:, None]
    assert not np.any(actual["x"][padding])
    for name, dstate in zip(reference.CELLS[cell].states, dfinal, strict=True):
        assert_same_bits(actual[f"{name}0"][1], dstate[1])
    dy[padding] = np.nan
    for name, value in gradients(cell, arguments, (dy, *dfinal)).items():
        assert_same_bits(value, actual[name], name)


def test_relu_at_its_kink(dtype: str) -> None:
    """The derivative of the relu at 0 is 0, as in torch."""
    arguments = Case("rnn_relu", bias=False, state=False).arguments(dtype)
    arguments["x"] *= 0
    actual = gradients("rnn_relu", arguments, Case("rnn_relu").cotangents(dtype))
    assert not np.any(actual["x"])
    assert not np.any(actual["h0"])


def test_tolerance_is_inside_the_goal() -> None:
    """The table is tighter than what the package promises, so it cannot be loosened unnoticed."""
    assert TOLERANCE["float32"].forward <= 1e-6
    assert TOLERANCE["float32"].gradient <= 1e-5
    assert TOLERANCE["float64"].forward <= 1e-7
    assert TOLERANCE["float64"].gradient <= 1e-7
