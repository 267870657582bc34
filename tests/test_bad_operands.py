"""The raw kernels of ``functional`` convert nothing: every wrong operand is an exception that names it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import _core
from problems import BACKWARD, FORWARD, LAYERS, Case, backward, forward, train
from test_bad_input import Bad, cases, check, zeros
from tolerance import assert_same_bits

F = fr.functional
GOOD = Case("lstm", batch=3, steps=5, inputs=4, hidden=8).arguments("float32")


def lstm(**changed: Any) -> Any:
    """Call the LSTM with some operands replaced."""
    return F.lstm(**(GOOD | changed))


def gru(**changed: Any) -> Any:
    """Call the GRU with some operands replaced."""
    return F.gru(**(Case("gru", batch=3, steps=5, inputs=4, hidden=8).arguments("float32") | changed))


SHAPES = {
    "x rank 2": Bad(lambda: lstm(x=zeros(5, 4)), ValueError, "x", "(5, 4)"),
    "x rank 4": Bad(lambda: lstm(x=zeros(1, 3, 5, 4)), ValueError, "x", "(1, 3, 5, 4)"),
    "x features": Bad(lambda: lstm(x=zeros(3, 5, 3)), ValueError, "x", "(3, 5, 3)"),
    "no features": Bad(lambda: lstm(x=zeros(3, 5, 0), weight_ih=zeros(32, 0)), ValueError, "input_size", "0"),
    "weight_ih rank": Bad(lambda: lstm(weight_ih=zeros(32)), ValueError, "weight_ih", "(32,)"),
    "weight_ih rows": Bad(lambda: lstm(weight_ih=zeros(31, 4)), ValueError, "weight_ih", "(31, 4)", "(32, 4)"),
    "weight_hh rank": Bad(lambda: lstm(weight_hh=zeros(4, 8, 8)), ValueError, "weight_hh", "(4, 8, 8)"),
    "weight_hh columns": Bad(lambda: lstm(weight_hh=zeros(32, 9)), ValueError, "weight_hh", "(32, 9)"),
    "weight_hh transposed": Bad(lambda: lstm(weight_hh=zeros(8, 32)), ValueError, "weight_hh", "(8, 32)"),
    "weights of a GRU": Bad(lambda: gru(weight_hh=zeros(32, 8)), ValueError, "weight_hh", "(32, 8)"),
    "no hidden units": Bad(lambda: lstm(weight_hh=zeros(0, 0)), ValueError, "hidden_size", "0"),
    "bias_ih size": Bad(lambda: lstm(bias_ih=zeros(31)), ValueError, "bias_ih", "(31,)", "(32,)"),
    "bias_hh rank": Bad(lambda: lstm(bias_hh=zeros(32, 1)), ValueError, "bias_hh", "(32, 1)", "(32,)"),
    "h0 rank": Bad(lambda: lstm(h0=zeros(1, 3, 8)), ValueError, "h0", "(1, 3, 8)", "(3, 8)"),
    "h0 batch": Bad(lambda: lstm(h0=zeros(2, 8)), ValueError, "h0", "2, 8)", "3, 8)"),
    "c0 hidden": Bad(lambda: lstm(c0=zeros(3, 7)), ValueError, "c0", "3, 7)", "3, 8)"),
    "lengths count": Bad(lambda: lstm(lengths=np.array([1, 2])), ValueError, "lengths", "(2,)", "(3,)"),
    "lengths negative": Bad(lambda: lstm(lengths=np.array([1, 2, -1])), ValueError, "lengths", "-1"),
    "lengths too long": Bad(lambda: lstm(lengths=np.array([1, 2, 6])), ValueError, "lengths", "6"),
    "lengths float": Bad(lambda: lstm(lengths=np.array([1.0, 2, 3])), TypeError, "lengths", "float64"),
    "lengths bool": Bad(lambda: lstm(lengths=np.ones(3, bool)), TypeError, "lengths", "bool"),
}


@cases(SHAPES)
def test_shapes(bad: Bad) -> None:
    """Operands of the wrong rank or size."""
    check(bad)


@pytest.mark.parametrize("kind", [">f4", "float64", "float16", "int64", "bool", "object", "complex64", "<U3"])
@pytest.mark.parametrize("name", [name for name, value in GOOD.items() if isinstance(value, np.ndarray)])
def test_dtypes(name: str, kind: str) -> None:
    """Every operand has the one dtype of the call, which is that of x."""
    if name == "x" and kind == "float64":
        bad = Bad(lambda: lstm(x=GOOD["x"].astype(kind)), TypeError, "weight_hh", "float32", "float64")
    else:
        wrong = GOOD[name].astype("i8").astype(kind)
        bad = Bad(lambda: lstm(**{name: wrong}), TypeError, name, str(wrong.dtype))
    check(bad)


@pytest.mark.parametrize("name", ["x", "weight_hh", "bias_ih", "h0"])
def test_lists(name: str) -> None:
    """A list is not an array."""
    check(Bad(lambda: lstm(**{name: GOOD[name].tolist()}), TypeError, name, "list"))


def test_nonlinearity() -> None:
    """Only tanh and relu."""
    arguments = Case("rnn_tanh").arguments()
    check(Bad(lambda: F.rnn(**arguments, nonlinearity="gelu"), ValueError, "nonlinearity", "gelu"))


def test_cotangents(cell: str) -> None:
    """Cotangents of another shape or dtype."""
    case = Case(cell)
    _, tape = train(cell, case.arguments())
    full = case.cotangents()
    for k, name in enumerate(("dy", "dh", "dc")[: len(full)]):
        for wrong, error in (
            (full[k][..., :-1], ValueError),
            (full[k][0], ValueError),
            (full[k].astype("f4"), TypeError),
        ):
            changed = (*full[:k], wrong, *full[k + 1 :])
            got = str(wrong.shape).lstrip("(") if error is ValueError else "float32"
            check(Bad(partial(backward, cell, tape, changed), error, name, got))


def test_foreign_tape() -> None:
    """A tape of another cell, or no tape at all."""
    _, tape = train("gru", Case("gru").arguments())
    for wrong in (tape, None, 3):
        with pytest.raises((TypeError, ValueError), match="tape"):
            BACKWARD["lstm"](wrong, dy=Case("lstm").cotangents()[0])


def test_good_after_bad(cell: str) -> None:
    """An exception leaves nothing behind: the next call has the same bits."""
    arguments = Case(cell).arguments()
    before = forward(cell, arguments)
    with pytest.raises(ValueError, match="x"):
        FORWARD[cell](**(arguments | {"x": zeros(2, 2, dtype="f8")}))
    for value, expected in zip(forward(cell, arguments), before, strict=True):
        assert np.array_equal(value, expected)


@pytest.mark.parametrize("lengths", [[], (), np.zeros(0, int), [3, 2, 1]], ids=str)
def test_as_many_lengths_as_samples(cell: str, lengths: Any) -> None:
    """None at all are not as if none were given."""
    case = Case(cell, batch=4)
    with pytest.raises(ValueError, match=r"lengths has shape \([03],\); expected \(batch,\) = \(4,\)"):
        forward(cell, case.arguments() | {"lengths": lengths})


def test_lengths_beyond_int64() -> None:
    """They are not taken for negative ones."""
    case = Case("gru", batch=2)
    with pytest.raises(ValueError, match=r"lengths\[1\] is 9223372036854775813"):
        forward("gru", case.arguments() | {"lengths": np.array([1, 2**63 + 5], np.uint64)})


def misaligned(array: np.ndarray) -> np.ndarray:
    """Return a C-ordered copy of which no element is aligned."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    copy = memory.view(array.dtype).reshape(array.shape) if array.size else array
    copy[...] = array
    assert copy.flags.c_contiguous and not copy.flags.aligned
    return copy


def test_misaligned_arrays_are_copied(cell: str) -> None:
    """They reach no kernel, which would be undefined behaviour: the sanitizer sees it, the bits need not."""
    rng = np.random.default_rng(0)
    layer: Any = LAYERS[cell](5, 7, seed=1)
    x, lengths = rng.standard_normal((3, 4, 5), dtype=np.float32), np.array([4, 0, 2])
    weights = layer._weights
    core = layer._stack
    expected = core.forward(weights, x, None, None, lengths, True, False)
    got = core.forward(tuple(map(misaligned, weights)), misaligned(x), None, None, misaligned(lengths), True, False)
    assert_same_bits(got[0], expected[0])
    unsigned = core.forward(weights, x, None, None, misaligned(lengths.astype(np.uint64)), True, False)
    assert_same_bits(unsigned[0], expected[0])
    stream, other = core.stream(weights, 3), core.stream(weights, 3)
    assert_same_bits(other.step(misaligned(x[:, 0])), stream.step(x[:, 0]))
    assert_same_bits(_core.row_products(misaligned(x[0]), misaligned(weights[0])), _core.row_products(x[0], weights[0]))


def test_views_that_promise_too_much() -> None:
    """A few bytes that claim 10^9 elements and more are refused at once, by layers, functional and the raw binding."""
    one = np.zeros((1, 1, 1), np.float32)
    small: Any = fr.GRU(1, 1)
    for shape in ((10**5, 10**4, 1), (10**9, 1, 1), (1, 10**9, 1), (10**7, 10**7, 1)):
        x = np.broadcast_to(one, shape)
        rows, columns = shape[:2]
        calls = [
            lambda x=x: F.gru(x, *small._weights),
            lambda x=x: small(x),
            lambda x=x: fr.Linear(1, 1)(x),
            lambda x=x, columns=columns: _core.row_products(x[:, :, 0], np.broadcast_to(one[0], (1, columns))),
            lambda rows=rows, columns=columns: (
                F.gru(np.zeros((1, 0, columns), np.float32), np.broadcast_to(one[0], (3, columns)), *small._weights[1:])
                if 3 * columns >= 2**28
                else F.gru(np.broadcast_to(one, (rows, columns, 1)), *small._weights)
            ),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"\b(x|weight_ih(_l0)?) (has shape|would need)"):
                call()
    assert small(np.broadcast_to(one, (1, 10**5, 1)))[0].shape == (1, 10**5, 1)


ENDLESS = [np.broadcast_to(np.zeros(1, kind), (size,)) for kind in ("i4", "f4") for size in (2**31, 2**59)]


@pytest.mark.parametrize("endless", ENDLESS, ids=lambda a: f"{a.dtype} {a.size}")
def test_views_that_promise_any_number_of_items(endless: Any) -> None:
    """Refused before they are counted out one by one, by the layers and by what lies below them."""
    layer = fr.LSTM(4, 8, seed=0)
    x = np.zeros((2, 3, 4), np.float32)
    core, weights = layer._stack, layer._weights
    tape = core.forward(weights, x, None, None, None, True, True)[3]
    calls: list[Callable[[], Any]] = [
        lambda: layer(x, lengths=endless),
        lambda: layer.forward(x, lengths=endless),
        lambda: core.forward(endless, x, None, None, None, True, False),
        lambda: core.forward(weights, x, None, None, None, True, True, factors=endless),
        lambda: core.stream(endless, 1),
        lambda: tape.backward(x, None, None, endless),
        lambda: _core.fingerprint([endless]),
    ]
    for call in calls:
        begin = time.process_time()
        with pytest.raises((ValueError, TypeError)):
            call()
        assert time.process_time() - begin < 1


@pytest.mark.parametrize("junk", [None, 3, "x", object(), [], {}])
def test_a_fingerprint_of_what_is_no_array(junk: Any) -> None:
    with pytest.raises(TypeError, match="fingerprint"):
        _core.fingerprint([junk])


def test_the_plan_of_more_samples_than_there_is_memory_for() -> None:
    layer = fr.LSTM(4, 8, seed=0)
    begin = time.process_time()
    assert layer.plan(3, 2**31) == layer.plan(3, 2**20)
    assert layer.plan(2**31, 1) == layer.plan(2**20, 1)
    assert time.process_time() - begin < 5
