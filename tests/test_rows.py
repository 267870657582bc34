"""Passes over rows: values added into a table, softmax in two halves, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusedrnn import _core
from fusedrnn.arrays.namespace import add_rows
from fusedrnn.training.losses import cross_entropy


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 7, 16, 33])
def test_rows_are_added_one_after_the_other(dtype: str, width: int) -> None:
    rng = np.random.default_rng(width)
    table = rng.standard_normal((9, width)).astype(dtype)
    rows, values = rng.integers(0, 9, 50), rng.standard_normal((50, width)).astype(dtype)
    expected = table.copy()
    for row, value in zip(rows, values, strict=True):
        expected[row] += value
    for given in (values, np.asfortranarray(values)):  # the second is no plain array
        found = table.copy()
        add_rows(np, found, rows, given)
        assert np.array_equal(found, expected)
    wide = np.zeros((9, 2 * width), dtype)
    add_rows(np, wide[:, ::2], rows, values)
    assert np.array_equal(wide[:, 1::2], np.zeros((9, width)))
    np.testing.assert_allclose(wide[:, ::2] + table, expected, rtol=0, atol=1e-5)


def test_rows_outside_the_table_are_refused_before_anything_changes() -> None:
    table, values = np.zeros((3, 2), "float32"), np.ones((2, 2), "float32")
    for rows in ([0, 3], [0, -1]):
        assert not _core.add_to_rows((table, np.array(rows), values), 0)
    read_only = np.zeros((3, 2), "float32")
    read_only.flags.writeable = False
    assert not _core.add_to_rows((read_only, np.array([0, 1]), values), 0)
    assert not _core.add_to_rows((table, np.array([0, 1], "int32"), values), 0)
    assert not _core.add_to_rows((table, np.array([0, 1]), values.astype("float64")), 0)
    assert not _core.add_to_rows((table[0], np.array([0, 1]), values), 0)
    assert not table.any()
    assert not read_only.any()


@pytest.mark.parametrize("classes", [1, 2, 15, 16, 17, 40, 513, 2000])
def test_softmax_is_as_exact_as_its_dtype(classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits = 5 * rng.standard_normal((37, classes)) + 300 * rng.standard_normal((37, 1))
    target = rng.integers(0, classes, 37)
    target[5] = -100
    single = logits.astype("float32")
    shifted = single.astype(float) - single.max(axis=1, keepdims=True)
    shares = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    valid = target >= 0
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(37), np.maximum(target, 0)]
    expected = shares - (np.arange(classes) == target[:, None])
    expected[~valid] = 0
    for given in (single, np.asfortranarray(single), np.repeat(single, 2, axis=1)[:, ::2]):
        value, grad = cross_entropy(given, target)
        assert abs(value - losses[valid].mean()) <= 3e-7 * max(1, losses[valid].mean())
        np.testing.assert_allclose(grad * 36, expected, rtol=2e-6, atol=3e-7)


def test_logits_that_are_not_finite_stay_seen() -> None:
    for bad in (np.nan, np.inf):
        for at in (0, 3, 19):
            logits = np.zeros((2, 20), "float32")
            logits[1, at] = bad
            assert not np.isfinite(cross_entropy(logits, np.array([0, 1]))[0])
    logits[1] = -np.inf
    logits[1, 2] = 0.0
    value, grad = cross_entropy(logits[1:], np.array([2]))
    assert value == 0.0
    assert not grad.any()


@pytest.mark.parametrize(
    "change",
    [
        {"chosen": np.array([0, 3])},
        {"chosen": np.array([0, -1])},
        {"losses": np.zeros(1, "float32")},
        {"shifted": np.zeros((2, 4), "float32")[:, ::2]},
        {"x": np.zeros((3, 3), "float32")},
        {"x": np.zeros((2, 3), "float64")},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    given = {
        "x": np.zeros((2, 3), "float32"),
        "shifted": np.zeros((2, 3), "float32"),
        "chosen": np.array([0, 2]),
        "losses": np.zeros(2, "float32"),
    }
    given |= change
    x = given.pop("x")
    before = {name: array.copy() for name, array in given.items()}
    assert not _core.begin_softmax((*given.values(), x), 0)
    if "x" not in change:
        assert not _core.end_softmax((*given.values(), None), 1.0)
    assert not _core.end_softmax((*given.values(), np.ones(3, "float32")), 1.0)
    assert not _core.end_softmax(tuple(given.values()), 1.0)
    assert not _core.begin_softmax((*given.values(), None), 1.0)
    assert not _core.begin_softmax((None, *list(given.values())[1:], x), 1.0)
    assert all(np.array_equal(array, before[name]) for name, array in given.items())


def test_alignments_of_other_shapes_are_refused() -> None:
    given = [np.zeros(shape) for shape in ((4, 3, 2), (3, 2), (4, 3, 2), (4, 5, 2), (4, 2))]
    assert _core.align(tuple(given), 8)
    for index in range(5):
        assert not _core.align(tuple(array[0] if at == index else array for at, array in enumerate(given)), 8)
        assert not _core.align(tuple(None if at == index else array for at, array in enumerate(given)), 8)
    assert not _core.align(tuple(given), 0)
    assert not _core.align(tuple(given[:4]), 8)
    assert not _core.align((*given[:4], [0.0]), 8)
