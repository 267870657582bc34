"""compute_dtype="bfloat16": products of rounded operands, everything else as in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import reference
from problems import LAYERS, Array, as_state, flat
from stacks import Stack
from tolerance import assert_same_bits

available = fr.config()["bfloat16"] != "none"
needs_kernels = pytest.mark.skipif(not available, reason="no bfloat16 kernels for this instruction set")

SIZES = [
    (1, 1, 1, 1),
    (5, 3, 7, 20),
    (6, 7, 33, 65),
    (3, 13, 131, 300),
    (9, 32, 64, 48),
    (4, 9, 5, 25),
    (4, 1, 9, 43),
]  # T, B, I, H


def as_bfloat16(array: Array) -> Array:
    """Round float32 to the nearest bfloat16, ties to even; the result is float32 again."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return nearest.astype(np.uint32).view(np.float32)


def pair(cell: str, inputs: int, hidden: int, **options: Any) -> tuple[Any, Any]:
    """Return a float32 layer and a bfloat16 one with the same parameters."""
    options = {"seed": 3, "init": "torch", **options}
    exact = LAYERS[cell](inputs, hidden, **options)
    return exact, LAYERS[cell](inputs, hidden, compute_dtype="bfloat16", **options)


def error(got: Array, expected: Array) -> float:
    """Return |got - expected| / |expected| in the Euclidean norm."""
    return float(np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30))


@needs_kernels
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_one_step_rounds_the_operands_only(cell: str, sizes: tuple[int, int, int, int]) -> None:
    """One step is the reference on rounded x and weights, as exact as float32: sums, gates and c are not rounded."""
    _, B, I, H = sizes  # noqa: E741
    _, layer = pair(cell, I, H)
    rng = np.random.default_rng(1)
    x = rng.normal(0.1, 1, (B, 1, I)).astype(np.float32)
    start = [rng.uniform(-1, 1, (1, B, H)).astype(np.float32) for _ in reference.CELLS[cell].states]
    start[0] = as_bfloat16(start[0])  # GRU also uses h0 outside of products
    rounded = {
        name: (as_bfloat16(value) if name.startswith("weight") else value).astype(np.float64)
        for name, value in layer.params.items()
    }
    states = {
        f"{name}0": value.astype(np.float64) for name, value in zip(reference.CELLS[cell].states, start, strict=True)
    }
    truth = reference.stack(
        cell, rounded, as_bfloat16(x).astype(np.float64), **states, num_layers=1, bidirectional=False, lengths=None
    )
    for got, expected in zip(flat(*layer(x, as_state(start))), truth, strict=True):
        assert error(got, expected) <= 1e-6


@needs_kernels
@pytest.mark.parametrize("inputs", [1, 2, 7, 64, 501])
def test_order_of_the_sums(inputs: int) -> None:
    """The instruction and its emulation give the bits of two multiply-adds a pair, the upper half first."""
    layer = fr.RNN(inputs, 37, nonlinearity="relu", bias=False, compute_dtype="bfloat16", seed=4, init="torch")
    x = np.random.default_rng(5).standard_normal((9, 1, inputs)).astype(np.float32)
    sums = np.zeros((9, 37), np.float32)
    columns = as_bfloat16(layer.params["weight_ih_l0"]).T
    for k in (pair + half for pair in range(0, inputs, 2) for half in (1, 0)):
        if k < inputs:  # a product of bfloat16 is exact in float64, and so, but for one rounding, is a multiply-add
            product = as_bfloat16(x[:, 0, k])[:, np.newaxis].astype(np.float64) * columns[k]
            sums = (sums + product).astype(np.float32)
    assert_same_bits(layer(x)[0][:, 0], np.maximum(sums, 0))


@needs_kernels
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_close_to_float32(cell: str, sizes: tuple[int, int, int, int]) -> None:
    """Ragged two-way stacks: outputs within 1.5 % and gradients within 2 % of float32, and not equal to it.

    Gradients of relu: within 20 %, because a sum near 0 that changes its sign switches a whole gradient on or off.
    """
    T, B, I, H = sizes  # noqa: E741
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (B, T, I)).astype(np.float32)
    dy = rng.normal(0, 1, (B, T, 2 * H)).astype(np.float32)
    lengths = rng.integers(0, T + 1, B)
    lengths[0] = T
    results = []
    for layer in pair(cell, I, H, num_layers=2, bidirectional=True):
        (y, state), tape = layer.forward(x, lengths=lengths)
        dx, _ = layer.backward(tape, dy)
        results.append(({"y": y, "state": flat(y, state)[1]}, {"x": dx, **layer.grads}))
    (exact, slopes), (rough, rough_slopes) = results
    assert not np.array_equal(exact["y"], rough["y"])
    for name, value in exact.items():
        assert error(rough[name], value) <= 1.5e-2, name
    for name, value in slopes.items():
        assert error(rough_slopes[name], value) <= (2e-1 if cell == "rnn_relu" else 2e-2), name


@needs_kernels
@pytest.mark.usefixtures("restore_threads")
def test_same_bits(cell: str) -> None:
    """Outputs and gradients do not depend on threads; outputs not on the batch, nor on training."""
    rng = np.random.default_rng(3)
    _, layer = pair(cell, 19, 130, bidirectional=True)
    x, dy = rng.normal(size=(9, 11, 19)).astype(np.float32), rng.normal(size=(9, 11, 260)).astype(np.float32)
    lengths = np.array([11, 3, 0, 7, 11, 1, 5, 9, 2])
    fr.set_num_threads(1)
    expected = layer(x, lengths=lengths)[0]
    slopes = []
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        layer.zero_grad()
        (y, _), tape = layer.forward(x, lengths=lengths)
        dx, _ = layer.backward(tape, dy)
        assert_same_bits(y, expected)
        slopes.append({"x": dx, **{name: value.copy() for name, value in layer.grads.items()}})
        for name, value in slopes[-1].items():
            assert_same_bits(value, slopes[0][name], name)
    assert_same_bits(layer(x[3:4], lengths=lengths[3:4])[0], expected[3:4])
    layer.zero_grad()
    dx, _ = layer.backward(tape, dy)  # a second time: the tape was consumed and is computed again
    assert_same_bits(dx, slopes[0]["x"])


@needs_kernels
def test_stream_and_files(tmp_path: Path) -> None:
    """A stream gives the bits of the whole sequence; a file keeps compute_dtype."""
    _, layer = pair("gru", 5, 33)
    x = np.random.default_rng(4).normal(size=(2, 6, 5)).astype(np.float32)
    y, _ = layer(x)
    stream = layer.stream(2)
    for t in range(6):
        assert_same_bits(stream.step(x[:, t]), y[:, t])
    layer.save(tmp_path / "layer.safetensors")
    again = fr.load(tmp_path / "layer.safetensors")
    assert again.compute_dtype == "bfloat16"
    assert_same_bits(again(x)[0], y)


@needs_kernels
def test_nan_and_infinity_come_through() -> None:
    """A value that is not finite is not rounded away."""
    _, layer = pair("rnn_relu", 3, 20)
    x = np.zeros((1, 2, 3), np.float32)
    x[0, 0, 1] = np.nan
    assert np.isnan(layer(x)[0]).all()
    for largest in (np.inf, np.finfo(np.float32).max):
        x[0, 0, 1] = largest
        y, _ = layer(x[:, :1])
        assert (np.isinf(y) | np.isnan(y)).any()


def test_errors() -> None:
    """What cannot be computed is said at once."""
    for options in ({"compute_dtype": "float8"}, {"compute_dtype": "bfloat16", "dtype": "float64"}):
        with pytest.raises(
            ValueError, match=r"LSTM: compute_dtype is '\w+' with dtype \w+; expected None, or 'bfloat16'"
        ):
            fr.LSTM(3, 4, **options)
    with pytest.raises(RuntimeError, match="LSTM: compute_dtype is 'float16'; expected None or 'bfloat16' on cpu"):
        fr.LSTM(3, 4, compute_dtype="float16")
    assert fr.LSTM(3, 4, compute_dtype="float32").compute_dtype is None
    if not available:
        with pytest.raises(RuntimeError, match="LSTM: compute_dtype is bfloat16; expected float32 on this instruction"):
            fr.LSTM(3, 4, compute_dtype="bfloat16")


def test_a_stack_of_float32_is_unchanged(cell: str) -> None:
    """compute_dtype="float32" is the default, to the bit."""
    problem, same = Stack(cell), Stack(cell, compute_dtype="float32")
    for one, other in zip(problem.train()[0], same.train()[0], strict=True):
        assert_same_bits(one, other)


@needs_kernels
@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize(("inputs", "hidden"), [(5, 20), (300, 9), (49, 129)])
def test_threads_in_different_layers(inputs: int, hidden: int) -> None:
    """By sample no thread waits for another: one may round the input of a layer while the other reads a lower one's."""
    layer = fr.LSTM(inputs, hidden, 3, compute_dtype="bfloat16", seed=1)
    lengths = np.repeat([200, 20], [10, 100])  # the thread with the short ones is in the next layer much earlier
    x = np.random.default_rng(2).standard_normal((len(lengths), 200, inputs), dtype=np.float32)
    fr.set_num_threads(1)
    expected = layer(x, lengths=lengths)[0]
    fr.set_num_threads(2)
    assert layer.plan(200, len(lengths)) == "by_sample x2"
    for _ in range(20):
        assert_same_bits(layer(x, lengths=lengths)[0], expected)
