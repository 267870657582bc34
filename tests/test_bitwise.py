"""The promise: the same bits across runs, thread counts, batch positions and strides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from problems import Array, Case, backward, differentiable, forward, gradients, train
from reference import CELLS
from tolerance import assert_same_bits

pytestmark = pytest.mark.every_isa

PER_SAMPLE = ("x", "h0", "c0")  # gradients that belong to one sample; those of the weights sum over the batch


def everything(cell: str, arguments: dict[str, Any], cotangents: tuple[Array, ...]) -> dict[str, Array]:
    """Return all outputs and all gradients by name."""
    outputs, tape = train(cell, arguments)
    named = dict(zip(("y", *CELLS[cell].states), outputs, strict=True))
    return named | {f"d{name}": value for name, value in backward(cell, tape, cotangents).items()}


def assert_same(actual: dict[str, Array], expected: dict[str, Array]) -> None:
    """Demand the same names with the same bits."""
    assert set(actual) == set(expected)
    for name, value in actual.items():
        assert_same_bits(value, expected[name], name)


@pytest.mark.parametrize("sizes", [(1, 40, 9, 33), (7, 5, 17, 15), (33, 4, 65, 129), (9, 5, 7, 43)], ids=str)
@pytest.mark.usefixtures("restore_threads")
def test_runs_and_threads(cell: str, dtype: str, sizes: tuple[int, int, int, int]) -> None:
    """Outputs and gradients do not depend on the run or on the number of threads."""
    case = Case(cell, *sizes, ragged=True)
    arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
    fr.set_num_threads(1)
    expected = everything(cell, arguments, cotangents)
    for threads in (1, 2, 3, 2):
        fr.set_num_threads(threads)
        assert_same(everything(cell, arguments, cotangents), expected)


@pytest.mark.parametrize("hidden", [3, 17, 18, 20, 23, 27, 28, 29, 44, 100])
def test_idle_units(cell: str, dtype: str, hidden: int) -> None:
    """Units without weights, and so without output, change no bit: full blocks of units and others agree."""
    case = Case(cell, batch=8, steps=3, inputs=5, hidden=hidden)
    more = 128 - hidden

    def widened(name: str, value: Array) -> Array:
        """Return `value` with zeros for the idle units."""
        if name in ("x", "dx"):
            return value
        if name.removeprefix("d")[0] in "wb":  # (gates * units, ...)
            value = value.reshape(CELLS[cell].gates, hidden, *value.shape[1:])
            value = np.pad(value, [(0, 0), (0, more)] + [(0, 0)] * (value.ndim - 2))
            value = value.reshape(-1, *value.shape[2:])
        if name.removeprefix("d")[0] != "b" and not name.endswith("weight_ih"):  # (..., units)
            value = np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, more)])
        return value

    for batch in (1, 2, 8):
        case = replace(case, batch=batch)
        arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
        wide = arguments | {name: widened(name, arguments[name]) for name in differentiable(arguments)}
        actual = everything(cell, wide, tuple(widened("y", d) for d in cotangents))
        for name, value in everything(cell, arguments, cotangents).items():
            used = np.nonzero(widened(name, np.ones_like(value)))
            assert_same_bits(actual[name][used], value.ravel(), f"{name} of {case}")


def test_training_is_inference(cell: str, dtype: str) -> None:
    """The outputs of a training forward are those of inference."""
    for ragged in (False, True):
        case = Case(cell, batch=33, steps=40, inputs=17, hidden=33, ragged=ragged)
        trained, _ = train(cell, case.arguments(dtype))
        for name, one, other in zip(("y", "h", "c"), trained, forward(cell, case.arguments(dtype)), strict=False):
            assert_same_bits(one, other, name)


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
def test_batch_position(cell: str, dtype: str, batch_first: bool) -> None:
    """A sample gives the same bits alone, in every position of a batch, and beside any others."""
    case = Case(cell, batch=19, steps=5, inputs=17, hidden=33, ragged=True, batch_first=batch_first)
    arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
    expected = everything(cell, arguments, cotangents)
    alone = [np.array([b]) for b in range(case.batch)]
    for rows in (*alone, case.rng("order").permutation(case.batch), np.arange(case.batch)[::3]):
        axis = {"x": 0 if batch_first else 1, "y": 0 if batch_first else 1}
        axis["dx"] = axis["x"]

        def pick(name: str, value: Array, rows: Array = rows, axis: dict[str, int] = axis) -> Array:
            return value.take(rows, axis=axis.get(name, 0))

        some = {name: pick(name, arguments[name]) for name in ("x", "h0", "c0", "lengths") if name in arguments}
        dy, *dfinal = cotangents
        actual = everything(cell, arguments | some, (pick("y", dy), *(pick("h", d) for d in dfinal)))
        for name in ("y", *CELLS[cell].states, *(f"d{name}" for name in PER_SAMPLE if f"d{name}" in expected)):
            assert_same_bits(actual[name], pick(name, expected[name]), f"{name} of samples {rows.tolist()}")


@pytest.mark.parametrize("steps", [1, 2, 4, 6, 7, 13, 150])
@pytest.mark.parametrize(("inputs", "hidden"), [(66, 64), (5, 100), (130, 75), (3, 48)])
def test_one_of_many(cell: str, dtype: str, steps: int, inputs: int, hidden: int) -> None:
    """One sequence, whose input products are made beside the recurrent ones, has the bits that it has in a batch."""
    case = Case(cell, batch=5, steps=steps, inputs=inputs, hidden=hidden)
    arguments = case.arguments(dtype)
    together, _ = train(cell, arguments)
    for rows in ([0], [4], [1, 2]):
        some = {name: arguments[name][rows] for name in ("x", "h0", "c0") if name in arguments}
        for name, one, all_of_them in zip(("y", "h", "c"), train(cell, arguments | some)[0], together, strict=False):
            assert_same_bits(one, all_of_them[rows], f"{name} of samples {rows}")
    # At the end of a ragged batch one is left.
    lengths = np.array([steps // 2, steps, 0, max(steps - 3, 0), steps // 2])
    y = train(cell, arguments | {"lengths": lengths})[0][0]
    for b, length in enumerate(lengths):
        assert_same_bits(y[b, :length], together[0][b, :length], f"y of sample {b} with {length} steps")


def test_ragged_batch_is_its_samples(cell: str, dtype: str) -> None:
    """A padded batch with lengths gives the bits of each sequence run alone without padding, forward and reverse."""
    for reverse in (False, True):
        case = Case(cell, batch=9, steps=6, inputs=5, hidden=17, ragged=True, reverse=reverse)
        arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
        expected = everything(cell, arguments, cotangents)
        dy, *dfinal = cotangents
        for b, length in enumerate(arguments["lengths"]):
            one = {name: arguments[name][b : b + 1] for name in PER_SAMPLE if name in arguments}
            one["x"] = one["x"][:, :length]
            actual = everything(
                cell,
                arguments | one | {"lengths": None},
                (dy[b : b + 1, :length], *(d[b : b + 1] for d in dfinal)),
            )
            for name in ("y", "dx"):
                assert_same_bits(actual[name], expected[name][b : b + 1, :length], name)
            for name in (*CELLS[cell].states, *(f"d{state}0" for state in CELLS[cell].states)):
                assert_same_bits(actual[name], expected[name][b : b + 1], name)


def test_layouts(cell: str, dtype: str) -> None:
    """Time-major gives the bits of batch-major, and reverse those of forward on the flipped sequence."""
    case = Case(cell, batch=7, steps=5, inputs=9, hidden=17)
    arguments, (dy, *dfinal) = case.arguments(dtype), case.cotangents(dtype)
    expected = everything(cell, arguments, (dy, *dfinal))
    x = arguments["x"]
    time_major = arguments | {"x": np.ascontiguousarray(x.swapaxes(0, 1)), "batch_first": False}
    actual = everything(cell, time_major, (np.ascontiguousarray(dy.swapaxes(0, 1)), *dfinal))
    for name in ("y", "dx"):
        actual[name] = actual[name].swapaxes(0, 1)
    assert_same(actual, expected)
    actual = everything(cell, arguments | {"x": x[:, ::-1].copy(), "reverse": True}, (dy[:, ::-1].copy(), *dfinal))
    for name in ("y", "dx"):
        actual[name] = actual[name][:, ::-1]
    assert_same(actual, expected)


def fortran(value: Array) -> Array:
    """Order the memory by columns."""
    return np.asfortranarray(value)


def negative(value: Array) -> Array:
    """Run through the memory backwards."""
    flip = (slice(None, None, -1),) * value.ndim
    return value[flip].copy()[flip]


def every_second(value: Array) -> Array:
    """Skip every second element of the last axis."""
    wide = np.full((*value.shape[:-1], 2 * value.shape[-1]), np.nan, value.dtype)
    wide[..., ::2] = value
    return wide[..., ::2]


def every_second_row(value: Array) -> Array:
    """Skip every second row."""
    wide = np.full((2 * value.shape[0], *value.shape[1:]), np.nan, value.dtype)
    wide[1::2] = value
    return wide[1::2]


def read_only(value: Array) -> Array:
    """Forbid writing."""
    value = value.copy()
    value.flags.writeable = False
    return value


def shifted(value: Array) -> Array:
    """Start one element past an allocation, where no vector load is aligned."""
    buffer = np.empty(value.size + 1, value.dtype)
    view = buffer[1:].reshape(value.shape)
    view[...] = value
    return view


@pytest.mark.parametrize("view", [fortran, negative, every_second, every_second_row, read_only, shifted])
def test_strides(cell: str, dtype: str, view: Callable[[Array], Array]) -> None:
    """Every array in another memory order gives the bits of a C-ordered copy, and is not written to."""
    case = Case(cell, batch=7, steps=5, inputs=9, hidden=17, ragged=True)
    arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
    expected = everything(cell, arguments, cotangents)
    moved = arguments | {name: view(arguments[name]) for name in differentiable(arguments)}
    moved["lengths"] = np.repeat(arguments["lengths"], 2)[::2]
    assert_same(everything(cell, moved, tuple(view(d) for d in cotangents)), expected)
    for name, value in arguments.items():
        assert np.array_equal(moved[name], value)


def test_broadcast_views(cell: str, dtype: str) -> None:
    """An input with strides of 0 gives the bits of its copy; a sum as the loss gives such a dy."""
    case = Case(cell, batch=7, steps=5, inputs=9, hidden=17)
    arguments, (dy, *dfinal) = case.arguments(dtype), case.cotangents(dtype)
    arguments["x"] = np.broadcast_to(arguments["x"][:1, :1], arguments["x"].shape)
    dy = np.broadcast_to(np.ones((), dtype), dy.shape)
    copied = arguments | {"x": arguments["x"].copy()}
    assert_same(everything(cell, arguments, (dy, *dfinal)), everything(cell, copied, (dy.copy(), *dfinal)))


@pytest.mark.parametrize("integer", ["uint8", "int32", "int64"])
def test_dtype_of_lengths(cell: str, integer: str) -> None:
    """Any integer dtype will do for the lengths."""
    case = Case(cell, batch=7, ragged=True)
    arguments, cotangents = case.arguments(), case.cotangents()
    other = arguments | {"lengths": arguments["lengths"].astype(integer)}
    assert_same(everything(cell, other, cotangents), everything(cell, arguments, cotangents))


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e30])
def test_padding_is_not_read(cell: str, dtype: str, junk: float) -> None:
    """What stands in the padding of x changes no bit of any output or gradient."""
    for reverse in (False, True):
        for batch_first in (True, False):
            case = Case(cell, 7, 5, 9, 17, ragged=True, reverse=reverse, batch_first=batch_first)
            arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
            padding = np.arange(case.steps) >= arguments["lengths"][:, None]
            x = arguments["x"]
            by_sample = x if batch_first else x.swapaxes(0, 1)
            by_sample[padding] = 0
            expected = everything(cell, arguments | {"x": x.copy()}, cotangents)
            by_sample[padding] = junk
            assert_same(everything(cell, arguments, cotangents), expected)


def test_nan_stays_in_its_sample(cell: str, dtype: str) -> None:
    """A NaN in one sample changes no bit of the others' outputs and gradients."""
    case = Case(cell, batch=7, steps=5, inputs=9, hidden=17)
    arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
    expected = everything(cell, arguments, cotangents)
    sick = arguments | {"x": arguments["x"].copy()}
    sick["x"][3, 1, 4] = np.nan
    actual = everything(cell, sick, cotangents)
    assert np.all(np.isnan(actual["y"][3, 1:]))
    assert_same_bits(actual["y"][3, :1], expected["y"][3, :1])
    for name in ("y", "h", "c", "dx", "dh0", "dc0"):
        if name in expected:
            assert_same_bits(np.delete(actual[name], 3, axis=0), np.delete(expected[name], 3, axis=0), name)


def test_results_own_their_memory(cell: str, dtype: str) -> None:
    """Results are C-contiguous and share no memory with inputs; all are writable but the y that a tape reads again."""
    case = replace(Case(cell, hidden=17), ragged=True)
    arguments, cotangents = case.arguments(dtype), case.cotangents(dtype)
    outputs, tape = train(cell, arguments)
    first = backward(cell, tape, cotangents)
    kept = {name: value.copy() for name, value in first.items()}
    assert not outputs[0].flags.writeable
    for value in (*outputs, *first.values()):
        assert value.flags.c_contiguous
        assert value is outputs[0] or value.flags.writeable
        assert not any(np.shares_memory(value, given) for given in (*arguments.values(), *cotangents) if np.ndim(given))
    for value in outputs[1:]:
        value[...] = np.nan  # the tape must not read what the caller may overwrite
    second = backward(cell, tape, cotangents)
    assert all(np.all(np.isnan(value)) for value in outputs[1:])  # nor write again
    for name, value in first.items():
        assert_same_bits(value, kept[name], name)
        assert_same_bits(second[name], kept[name], name)
    assert_same(gradients(cell, arguments, cotangents), kept)
