"""Random calls: each gives the bits of the plain one, or an exception that names what was wrong; never a signal.

    FUSEDRNN_FUZZ_CASES=1000000 pytest tests/test_fuzz.py

runs so many cases in all, of random seeds; without it a few hundred, always the same ones.
"""

from __future__ import annotations

import os
import struct
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fusedrnn as fr
from fusedrnn import _core
from problems import LAYERS
from tolerance import assert_same_bits

CASES = int(os.environ.get("FUSEDRNN_FUZZ_CASES", "0"))
TESTS = 6
fuzz = settings(
    max_examples=CASES // TESTS if CASES else 60,
    derandomize=not CASES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
ALLOWED = (ValueError, TypeError, RuntimeError, MemoryError)  # MemoryError: of sizes that no machine has


def outcome(call: Any) -> Any:
    """Return what a call returns, or None after an exception that says something about an argument."""
    try:
        return call()
    except ALLOWED as error:
        assert type(error) in ALLOWED, repr(error)
        assert str(error), repr(error)
        return None


# ----------------------------------------------------------------------------------------------------- strategies

seeds = st.integers(0, 2**32 - 1)
small = st.integers(0, 5)


@st.composite
def layers(draw: Any) -> Any:
    """Draw a recurrent layer."""
    count = draw(st.integers(1, 3))
    return LAYERS[draw(st.sampled_from(sorted(LAYERS)))](
        draw(st.integers(1, 19)),
        draw(st.sampled_from([1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 65])),
        count,
        bidirectional=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        bias=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.4])) if count > 1 else 0.0,
        dtype=draw(st.sampled_from(["float32", "float64"])),
        seed=draw(seeds),
    )


def laid_out(array: np.ndarray, how: str) -> np.ndarray:
    """Return the same values in another memory."""
    if how == "fortran":
        return np.asfortranarray(array)
    if how == "reversed":
        return array[::-1].copy()[::-1]
    if how == "every other":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if how == "misaligned":
        memory = np.empty(array.nbytes + 1, np.uint8)[1:]
        copy: np.ndarray = np.ndarray(array.shape, array.dtype, memory)
        copy[...] = array
        return copy
    if how == "packed field":
        record = np.zeros(array.shape, np.dtype([("mark", "u1"), ("value", array.dtype)]))
        record["value"] = array
        return record["value"]
    if how == "other byte order":
        return array.astype(array.dtype.newbyteorder())
    if how == "read-only":
        array = array.copy()
        array.flags.writeable = False
    return array


layouts = st.sampled_from(
    ["plain", "fortran", "reversed", "every other", "misaligned", "packed field", "other byte order", "read-only"]
)


@st.composite
def junk(draw: Any) -> Any:
    """Draw something that may be given for an array, or for anything else."""
    kind = draw(st.integers(0, 9))
    if kind < 6:
        shape = tuple(draw(st.lists(st.integers(0, 6), max_size=5)))
        dtype = draw(st.sampled_from(["f4", "f8", ">f4", "f2", "i4", "u8", "?", "c8", "O", "U3", "M8[s]", "V3"]))
        array = np.zeros(shape, dtype)
        if shape and draw(st.booleans()):
            huge = draw(st.sampled_from([2**20, 2**31, 2**40, 2**62]))
            place = draw(st.integers(0, 3))
            with suppress(ValueError):
                array = np.broadcast_to(array[..., :1], (*shape[:place], huge, *shape[place:])[: array.ndim])
        return laid_out(array, draw(layouts)) if array.nbytes < 2**20 and array.ndim and array.dtype != "O" else array
    return draw(
        st.sampled_from(
            [None, 0, -1, 2**70, 1.5, float("nan"), "x", b"x", [], [[]], [[1], [1, 2]], (), {}, object(), np.float32(3)]
        )
    )


def data_for(layer: Any, rng: np.random.Generator, steps: int, batch: int) -> tuple[np.ndarray, Any]:
    """Return x and a state."""
    shape = (batch, steps) if layer.batch_first else (steps, batch)
    x = rng.standard_normal((*shape, layer.input_size)).astype(layer.dtype)
    slabs = layer.num_layers * layer.num_directions
    state = [rng.standard_normal((slabs, batch, layer.hidden_size)).astype(layer.dtype) for _ in range(2)]
    return x, tuple(state) if layer._has_cell_state else state[0]


# ---------------------------------------------------------------------------------------------------------- tests


@fuzz
@given(layers(), small, small, seeds, layouts, layouts, st.booleans())
def test_any_memory_gives_the_same_bits(
    layer: Any, steps: int, batch: int, seed: int, of_x: str, of_state: str, ragged: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, state = data_for(layer, rng, steps, batch)
    lengths = rng.integers(0, steps + 1, batch) if ragged else None
    y, final = layer(x, state, lengths)
    other = tuple(laid_out(each, of_state) for each in state) if isinstance(state, tuple) else laid_out(state, of_state)
    y_other, final_other = layer(laid_out(x, of_x), other, None if lengths is None else lengths.astype(np.uint8))
    assert_same_bits(y_other, y)
    for got, expected in zip(np.atleast_1d(final_other), np.atleast_1d(final), strict=True):
        assert_same_bits(got, expected)
    layer.dropout = 0.0
    (y, _), tape = layer.forward(laid_out(x, of_x), other, lengths)
    dx, _ = layer.backward(tape, laid_out(y, of_x) if y.size else y)
    assert np.isfinite(dx).all()


@fuzz
@given(layers(), junk(), junk(), junk(), small, small)
def test_any_argument_of_a_layer(layer: Any, a: Any, b: Any, c: Any, steps: int, batch: int) -> None:
    x, state = data_for(layer, np.random.default_rng(0), steps, batch)
    for arguments in ((a, None, None), (x, a, None), (x, None, b), (x, (a, b), c), (a, b, c), (x, [a], None)):
        outcome(lambda arguments=arguments: layer(*arguments))
        outcome(lambda arguments=arguments: layer.forward(*arguments))
    made = outcome(lambda: layer.forward(x, state))
    for arguments in ((a, None), (None, b), (a, (b, c)), (None, [a, b])):
        outcome(lambda arguments=arguments: layer.backward(made[1], *arguments))
    outcome(lambda: layer.load_state_dict({**layer.state_dict(), "weight_ih_l0": a}))
    outcome(lambda: layer.load_state_dict(a))
    assert_same_bits(layer(x, state)[0], layer(x.copy(), state)[0])


@fuzz
@given(st.lists(layers(), min_size=2, max_size=3), st.lists(st.tuples(small, small, small), max_size=8), junk())
def test_tapes_of_other_calls(made: list[Any], operations: list[tuple[int, int, int]], a: Any) -> None:
    tapes: list[Any] = [None, a]
    for which, what, other in operations:
        layer = made[which % len(made)]
        x, state = data_for(layer, np.random.default_rng(which), 1 + what % 3, 1 + other % 3)
        if what < 3:
            (y, _), tape = layer.forward(x, state)
            tapes += [tape, y]
        outcome(lambda layer=layer, other=other, x=x: layer.backward(tapes[other % len(tapes)], x))  # noqa: B023
        outcome(lambda layer=layer, other=other, state=state: layer.backward(tapes[-1 - other % 2], None, state))  # noqa: B023


@fuzz
@given(layers(), junk(), junk(), st.integers(-1, 4), st.booleans())
def test_streams(layer: Any, a: Any, b: Any, batch: int, use_out: bool) -> None:
    stream = outcome(lambda: layer.stream(batch))
    if stream is None:
        return
    x = np.ones((batch, layer.input_size), layer.dtype)
    expected = stream.step(x).copy()
    stream.reset()
    outcome(lambda: stream.step(a, out=b if use_out else None))
    outcome(lambda: stream.reset(a))
    outcome(lambda: stream.step(x, out=b))
    stream.reset()
    assert_same_bits(stream.step(x), expected)


@fuzz
@given(layers(), junk(), junk(), junk(), st.sampled_from([-(2**62), -1, 0, 1, 7, 2**40, 2**62]), st.booleans())
def test_the_raw_binding(layer: Any, a: Any, b: Any, c: Any, number: int, flag: bool) -> None:
    """As safe as the layers: whatever is wrong is refused there as well."""
    core, weights = layer._stack, layer._weights
    x, _ = data_for(layer, np.random.default_rng(0), 3, 2)
    allowed = (*ALLOWED, IndexError, OverflowError)

    def tried(call: Any) -> Any:
        try:
            return call()
        except allowed:
            return None

    tried(lambda: core.forward(weights, a, b, c, None, flag, flag))
    tried(lambda: core.forward(weights, x, None, None, a, flag, True))
    tried(lambda: core.forward((a,) * len(weights), x, None, None, None, flag, flag))
    tried(lambda: core.forward((*weights[:-1], a), x, b, None, c, flag, flag))
    tried(lambda: core.plan(number, number))
    tried(lambda: core.stream(weights, number) if number < 2**20 else None)
    tried(lambda: _core.row_products(a, b))
    made = tried(lambda: core.forward(weights, x, None, None, None, layer.batch_first, True))
    tape = made[3]
    gradients = [np.zeros_like(weight) for weight in weights]
    tried(lambda: tape.backward(a, b, c, gradients))
    tried(lambda: tape.backward(made[0], None, None, [*gradients[:-1], a]))
    tried(lambda: tape.backward(made[0], None, None, a))
    for method in (tape.gates, tape.cell_states, tape.outputs):
        tried(lambda method=method: method(number))
    arguments = dict(zip(("input_size", "hidden_size", "num_layers", "num_directions"), (number,) * 4, strict=True))
    tried(lambda: _core.Stack("lstm", "float32", **arguments, reverse=flag, bias=flag) if number < 2**20 else None)
    assert tape.backward(made[0], None, None, gradients)[0].shape == x.shape


@pytest.fixture(scope="module")
def good_file() -> bytes:
    """Return a small model's file."""
    model = fr.Sequential(fr.Embedding(5, 3, seed=1), fr.GRU(3, 2, seed=2), fr.Dropout(0.1), fr.Linear(2, 2, seed=3))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "m")
        return (Path(folder) / "m").read_bytes()


@fuzz
@given(
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_mutated_files(good_file: bytes, edits: list[tuple[int, int, bytes]], repair: bool, verify: bool) -> None:
    data = bytearray(good_file)
    end = 8 + int.from_bytes(good_file[:8], "little")
    for place, removed, added in edits:
        at = place % len(data)
        data[at : at + removed] = added
    if repair:  # most edits break the length of the header first
        data[:8] = struct.pack("<Q", max(0, len(data) - (len(good_file) - end) - 8))
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            fr.load(file.name, verify=verify)
        except ValueError as error:
            assert str(error).startswith("load: ")
