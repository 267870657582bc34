"""Products of matrices: right, and each element with bits of its own, whatever stands beside it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.arrays.products import row_products, row_sums
from scripts import run_python
from tolerance import assert_same_bits

pytestmark = pytest.mark.every_isa

Array = NDArray[Any]
# Items, rows, columns, inputs: around the lanes of a vector, the rows of a tile, a block of columns, a piece of inputs.
SIZES = [
    (1, 1, 1, 1),
    (3, 5, 7, 3),
    (2, 6, 16, 64),
    (2, 7, 33, 65),
    (1, 100, 129, 513),
    (1, 2, 300, 1030),
    (1, 800, 17, 70),
    (1, 2100, 3, 5),
    (0, 2, 3, 4),
    (2, 0, 3, 4),
    (2, 3, 0, 4),
]


def in_layout(values: Array, layout: str) -> Array:
    """Return the same values (N, R, K) with other strides."""
    if layout == "transposed":
        return np.ascontiguousarray(values.transpose(0, 2, 1)).transpose(0, 2, 1)
    if layout == "reversed":
        return np.ascontiguousarray(values[:, ::-1, ::-1])[:, ::-1, ::-1]
    if layout == "spread":
        wide = np.zeros((*values.shape[:2], 3 * values.shape[2]), values.dtype)
        wide[:, :, ::3] = values
        return wide[:, :, ::3]
    if layout == "unaligned":
        memory = np.zeros(values.nbytes + 1, np.uint8)[1:]
        memory[:] = np.frombuffer(values.tobytes(), np.uint8)
        return memory.view(values.dtype).reshape(values.shape)
    return values


LAYOUTS = ["dense", "transposed", "reversed", "spread", "unaligned"]


def operands(sizes: tuple[int, int, int, int], dtype: str) -> tuple[Array, Array]:
    items, rows, columns, inputs = sizes
    rng = np.random.default_rng(sum(sizes))
    x, weight = rng.normal(0.1, 1, (items, rows, inputs)), rng.normal(0.1, 1, (items, columns, inputs))
    return x.astype(dtype), weight.astype(dtype)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values(sizes: tuple[int, int, int, int], dtype: str) -> None:
    """Those of float64, and the same bits in every layout and with the factors exchanged."""
    x, weight = operands(sizes, dtype)
    y = row_products(x, weight)
    wide, wide_weight = x.astype("float64"), weight.astype("float64")
    truth = np.einsum("nrk,nok->nro", wide, wide_weight)
    bound = np.einsum("nrk,nok->nro", np.abs(wide), np.abs(wide_weight))
    assert y.shape == truth.shape and y.dtype == dtype
    assert np.all(np.abs(y - truth) <= 64 * np.finfo(dtype).eps * bound)
    for layout in LAYOUTS:
        assert_same_bits(row_products(in_layout(x, layout), weight), y, f"x {layout}")
        assert_same_bits(row_products(x, in_layout(weight, layout)), y, f"weight {layout}")
    assert_same_bits(row_products(weight, x).transpose(0, 2, 1), y, "exchanged")


@pytest.mark.parametrize("sizes", SIZES[:8], ids=str)
@pytest.mark.usefixtures("restore_threads")
def test_bits_are_an_elements_own(sizes: tuple[int, int, int, int], dtype: str) -> None:
    """They depend neither on threads, nor on other items, rows and columns, nor on zeros that follow the inputs."""
    x, weight = operands(sizes, dtype)
    fr.set_num_threads(1)
    y = row_products(x, weight)
    for threads in (1, 2, 3):
        fr.set_num_threads(threads)
        assert_same_bits(row_products(x, weight), y, f"{threads} threads")
        for layout in ("dense", "transposed"):  # some are read where they lie, others packed
            some, others = in_layout(x, layout), in_layout(weight, layout)
            assert_same_bits(row_products(some[-1], others[-1]), y[-1])
            for rows in (slice(1), slice(1, 9), slice(-3, None)):
                assert_same_bits(row_products(some[:, rows], others), y[:, rows])
                assert_same_bits(row_products(some, others[:, rows]), y[:, :, rows])
    padding = [(0, 0), (0, 0), (0, 700)]
    assert_same_bits(row_products(np.pad(x, padding), np.pad(weight, padding)), y)


def test_no_inputs(dtype: str) -> None:
    assert_same_bits(row_products(np.ones((2, 3, 0), dtype), np.ones((2, 4, 0), dtype)), np.zeros((2, 3, 4), dtype))
    assert_same_bits(row_sums(np.ones((2, 0), dtype)), np.zeros(2, dtype))


def test_row_sums(dtype: str) -> None:
    """Zeros at the end change no bit of a sum, for any number of rows."""
    x = np.random.default_rng(0).normal(size=(3, 7, 600)).astype(dtype)
    sums = row_sums(x)
    assert np.max(np.abs(sums - x.sum(axis=-1, dtype="float64"))) <= 2e3 * np.finfo(dtype).eps
    assert_same_bits(row_sums(np.pad(x, [(0, 0), (0, 0), (0, 900)])), sums)
    assert_same_bits(row_sums(x[1, 2]), sums[1, 2])
    assert_same_bits(row_sums(x.transpose(1, 0, 2)), sums.T)


def test_special_values(dtype: str) -> None:
    """Infinities and NaN stay in the row that has them."""
    x, weight = operands((1, 9, 5, 20), dtype)
    clean = row_products(x[0], weight[0])
    x[0, 4, 3] = np.nan
    x[0, 7, 0] = np.inf
    y = row_products(x[0], weight[0])
    assert np.isnan(y[4]).all() and np.isinf(y[7]).all()
    others = [0, 1, 2, 3, 5, 6, 8]
    assert_same_bits(y[others], clean[others])


@pytest.mark.parametrize(
    ("x", "weight", "error", "words"),
    [
        ((3,), (3,), ValueError, "x has shape (3,)"),
        ((2, 3), (4, 4), ValueError, "weight has shape (4, 4); expected (outputs, inputs) = (outputs, 3)"),
        ((2, 3), (1, 4, 3), ValueError, "weight has shape (1, 4, 3)"),
        ((2, 2, 3), (3, 4, 3), ValueError, "expected (items, outputs, inputs) = (2, outputs, 3)"),
        ((2, 2, 3), (4, 3), ValueError, "weight has shape (4, 3)"),
        ((1 << 40, 1), (3, 1), ValueError, "x has shape"),
    ],
)
def test_wrong_shapes(x: tuple[int, ...], weight: tuple[int, ...], error: type[Exception], words: str) -> None:
    one = np.float32(1)
    with pytest.raises(error) as caught:
        row_products(np.broadcast_to(one, x), np.broadcast_to(one, weight))
    assert words in str(caught.value)


def test_wrong_dtypes() -> None:
    for x, weight, words in (
        ("float32", "float64", "weight has dtype float64; expected float32"),
        ("float64", "float32", "weight has dtype float32; expected float64"),
        ("int64", "float32", "x has dtype int64; expected float32"),
        (">f8", "float64", "x has dtype >f8; expected float32"),
    ):
        with pytest.raises(TypeError, match=words):
            row_products(np.ones((2, 3), x), np.ones((4, 3), weight))


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layer", ["fr.Linear(2048, 4096)", "TiedLinear(fr.Linear(4096, 2048))"])
def test_interrupt(layer: str, threads: int) -> None:
    """Ctrl-C during a backward raises KeyboardInterrupt soon; no gradient has half of it."""
    run_python(
        f"""
        import os, signal, threading, time
        import numpy as np
        import fusedrnn as fr
        from fusedrnn import _core
        from fusedrnn.layers import Tape
        from fusedrnn.layers.tied import TiedLinear

        signal.signal(signal.SIGINT, signal.default_int_handler)
        _core.wait_for_workers(True)
        fr.set_num_threads({threads})
        layer = {layer}

        def prepare(rows):
            tape = Tape(layer, (np.broadcast_to(np.float32(1), (rows, 2048)),))
            dy = np.broadcast_to(np.float32(1), (rows, 4096))
            return lambda: layer.backward(tape, dy)

        def seconds(rows):
            begin = time.monotonic()
            prepare(rows)()
            return time.monotonic() - begin

        shortest = min(seconds(500) for _ in range(4))  # other work can only make a call longer
        call = prepare(int(500 * 0.75 / shortest))
        layer.zero_grad()
        sent = []
        def interrupt():
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        timer = threading.Timer(0.2, interrupt)
        timer.start()
        try:
            call()
            late = None
        except KeyboardInterrupt:
            late = time.monotonic() - sent[0]
        timer.join()
        assert late is not None, "the call ended before the interrupt"
        assert late <= 0.3, f"answered after {{late:.2f}} s"
        assert not any(gradient.any() for gradient in layer.grads.values()), "half a backward was added"
        """
    )
