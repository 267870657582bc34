"""The steps of the optimizers in C++: the bits of the array formulas, for any threads, sizes and rows."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import _core
from fusedrnn.arrays.namespace import all_finite, square_sum
from fusedrnn.training.optimizers.formulas import FORMULAS, change

STATES = {"sgd": 0, "momentum": 1, "rmsprop": 1, "rmsprop_momentum": 2, "adam": 2}
RATES = {
    "lr": 0.037,
    "shrink": 0.993,
    "decay": 0.21,
    "momentum": 0.83,
    "along": 0.83,
    "ahead": 1.0,
    "mean_share": 0.1,
    "square_kept": 0.997,
    "square_share": 0.003,
    "root_scale": 0.31,
    "eps": 1e-5,
}


def arrays(rng: np.random.Generator, rule: str, shape: tuple[int, ...], dtype: str) -> list[Any]:
    """Return a parameter, its gradient and states, which are positive as means of squares are."""
    made = [rng.standard_normal(shape), rng.standard_normal(shape)]
    made += [rng.random(shape) for _ in range(STATES[rule])]
    return [np.ascontiguousarray(each, dtype) for each in made]


def same(ours: list[Any], theirs: list[Any]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))


def test_every_rule_is_there() -> None:
    assert FORMULAS.keys() == STATES.keys()


@pytest.mark.every_isa
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", STATES)
@pytest.mark.parametrize("given", [{}, {"shrink": 1.0, "decay": 0.0}, {"along": 1.0, "ahead": 0.0}])
def test_the_kernels_have_the_bits_of_the_array_formulas(rule: str, dtype: str, given: dict[str, float]) -> None:
    rng = np.random.default_rng(1)
    rates = RATES | given
    for shape in [(), (0,), (1,), (7,), (8,), (15,), (16,), (17,), (33,), (3, 5, 7), (0, 4), (4, 0), (129, 65)]:
        ours = arrays(rng, rule, shape, dtype)
        theirs = [each.copy() for each in ours]
        assert _core.update(rule, [(*ours, None)], **rates) == []
        param, grad, *states = theirs
        if shape:
            change(np, rule, rates, param, grad, tuple(states), None)
            assert same(ours, theirs), shape
            assert not param.size or not np.array_equal(param, grad)


@pytest.mark.every_isa
@pytest.mark.parametrize("rule", STATES)
def test_threads_and_neighbours_do_not_change_a_bit(rule: str) -> None:
    """Parameters go through in one call, which threads cut anywhere."""
    shapes = [(301, 70), (5,), (0,), (64, 1000), (3, 11)]
    results = []
    for threads in (1, 2, 3, 7):
        rng = np.random.default_rng(2)
        items = [arrays(rng, rule, shape, "float32") for shape in shapes]
        before = fr.get_num_threads()
        fr.set_num_threads(threads)
        _core.wait_for_workers(True)
        try:
            _core.update(rule, [(*item, None) for item in items], **RATES)
        finally:
            _core.wait_for_workers(False)
            fr.set_num_threads(before)
        results.append([array for item in items for array in item])
    alone = np.random.default_rng(2)
    items = [arrays(alone, rule, shape, "float32") for shape in shapes]
    for item in items:
        _core.update(rule, [(*item, None)], **RATES)
    assert all(same(result, [array for item in items for array in item]) for result in results)


@pytest.mark.every_isa
@pytest.mark.parametrize("rule", STATES)
@pytest.mark.parametrize("chosen", [[], [0], [2, 3, 50], list(range(51))])
def test_some_rows_alone(rule: str, chosen: list[int]) -> None:
    ours = arrays(np.random.default_rng(3), rule, (51, 19), "float64")
    before, theirs = [each.copy() for each in ours], [each.copy() for each in ours]
    rows = np.array(chosen, np.int64)
    assert _core.update(rule, [(*ours, rows)], **RATES) == []
    param, grad, *states = theirs
    change(np, rule, RATES, param, grad, tuple(states), rows)
    assert same(ours, theirs)
    others = np.setdiff1d(np.arange(51), rows)
    assert all(np.array_equal(each[others], old[others]) for each, old in zip(ours, before, strict=True))


def test_what_the_kernels_cannot_change_in_place_is_left() -> None:
    p, g, m = np.zeros((3, 4), "float32"), np.ones((3, 4), "float32"), np.zeros((3, 4), "float32")
    bytes_ = np.zeros(49, "uint8")[1:].view("float32").reshape(3, 4)
    odd = [
        (np.asfortranarray(p), g, m, None),
        (p, g[:, ::-1], m, None),
        (p, g.astype("float64"), m, None),
        (p, g[:2], m, None),
        (bytes_, g, m, None),
        (p.astype(">f4"), g.astype(">f4"), m.astype(">f4"), None),
    ]
    read_only = p.copy()
    read_only.flags.writeable = False
    odd.append((read_only, g, m, None))
    assert _core.update("momentum", [*odd, (p, g, m, None)], lr=0.5, momentum=0.9) == list(range(7))
    assert np.all(p == -0.5) and np.all(m == 1)
    assert not any(item[0].any() for item in odd[4:])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda p: _core.update("adam", [(p, p, None)]), "update: item has 3 parts; expected 5 for this rule"),
        (lambda p: _core.update("adagrad", []), "update: rule is 'adagrad'"),
        (lambda p: _core.update("sgd", [], rate=1.0), "update: number is 'rate'"),
        (lambda p: _core.update("sgd", [(p, p.copy(), np.array([0, 3]))]), "update: rows has 3 at 1"),
        (lambda p: _core.update("sgd", [(p, p.copy(), np.array([-1]))]), "update: rows has -1 at 0"),
        (
            lambda p: _core.update("sgd", [(p, p.copy(), np.array([1, 1]))]),
            "update: rows has 1 at 1; expected ascending",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, match: str) -> None:
    p = np.ones((3, 4), "float32")
    with pytest.raises(ValueError, match=match):
        call(p)
    with pytest.raises(TypeError, match="update: rows is no plain array of int64"):
        _core.update("sgd", [(p, p.copy(), np.array([0], np.int32))])
    assert np.all(p == 1)


@pytest.mark.every_isa
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_squares(dtype: str) -> None:
    """Close to NumPy's in long double, and the same bits for any number of threads."""
    rng = np.random.default_rng(4)
    for size in (0, 1, 15, 16, 17, 8191, 8193, 100_003):
        x = rng.standard_normal(size).astype(dtype)
        sums = set()
        for threads in (1, 3):
            before = fr.get_num_threads()
            fr.set_num_threads(threads)
            sums.add(_core.square_sum(x))
            fr.set_num_threads(before)
        exact = float((x.astype(np.longdouble) ** 2).sum())
        assert len(sums) == 1 and abs(sums.pop() - exact) <= 1e-14 * exact
        assert abs(square_sum(np, x[::-1]) - exact) <= 1e-14 * exact
    assert _core.square_sum(x[::-1]) is None
    assert square_sum(np, np.full(3, 1e30, "float32")) == 3 * float(np.float32(1e30)) ** 2


def test_finite_or_not() -> None:
    for dtype in ("float16", "float32", "float64", "int64"):
        x = np.zeros((50, 50), dtype)
        assert all_finite(np, x) and all_finite(np, x[::2, ::3])
        if dtype != "int64":
            for wrong in (np.nan, np.inf, -np.inf):
                x[37, 3] = wrong
                assert not all_finite(np, x), (dtype, wrong)
    assert all_finite(np, np.full(5, 1e200)), "the sum of squares overflows, the numbers do not"


@pytest.mark.parametrize("make", [fr.Adam, fr.RMSprop, lambda model: fr.SGD(model, momentum=0.9)])
def test_subnormal_numbers_take_no_longer(make: Any) -> None:
    """At most 1.5 times what others take, as everywhere."""

    def seconds(scale: float) -> float:
        layer = fr.Linear(512, 512, seed=1)
        optimizer = make(layer)
        layer.grads["weight"][...] = scale * np.random.default_rng(1).standard_normal((512, 512))
        for array in optimizer._buffers[optimizer.buffer_names[-1]].values():
            array[...] = abs(scale)
        times = []
        for _ in range(15):
            start = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - start)
        return min(times)

    for _ in range(3):
        normal, subnormal = seconds(1.0), seconds(1e-40)
        if subnormal <= 1.5 * normal:
            return
    assert subnormal <= 1.5 * normal
