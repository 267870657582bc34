"""What threads share of one layer: most of it matters where there is no GIL (python3.13t), all of it holds anywhere.

pip install pytest-run-parallel
PYTHON_GIL=0 pytest --parallel-threads=8 tests/test_kernels.py tests/test_threads_sharing.py
"""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from problems import LAYERS
from tolerance import assert_same_bits

ROUNDS = 60


def together(*jobs: Callable[[int], None]) -> None:
    """Run each job with 0, 1, ... in a thread of its own; all begin at the same moment."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[int], None]) -> None:
        try:
            start.wait()
            for k in range(ROUNDS):
                job(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs an interpreter without a GIL")
def test_the_import_turns_the_gil_on_unless_it_is_forced_off() -> None:
    forced_off = os.environ.get("PYTHON_GIL") == "0"
    assert sys._is_gil_enabled() is not forced_off  # type: ignore[attr-defined]


def test_calls_of_many_shapes(cell: str) -> None:
    """The order of rows that a layer keeps from call to call is that of the call's own shape."""
    layer: Any = LAYERS[cell](5, 17, 2, seed=1)
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((1 + k % 4, 2 + k % 3, 5)).astype(np.float32) for k in range(12)]
    expected = [layer(x)[0] for x in inputs]

    def call(which: int) -> None:
        assert_same_bits(layer(inputs[which])[0], expected[which])

    together(*(lambda k, offset=offset: call((k * (offset + 1)) % 12) for offset in range(6)))  # type: ignore[misc]


def test_weights_that_change_between_calls(cell: str) -> None:
    """Each thread sees its own layer's change at once, while others ask for the packed weights of theirs and of it."""
    layers: list[Any] = [LAYERS[cell](4, 33, seed=k) for k in range(3)]
    x = np.ones((2, 3, 4), np.float32)
    locks = [threading.Lock() for _ in layers]
    expected: list[dict[int, np.ndarray]] = [{}, {}, {}]
    for which in range(3):
        for value in range(4):
            layers[which].params["weight_hh_l0"][...] = value / 10
            expected[which][value] = layers[which](x)[0]

    def change(k: int, which: int) -> None:
        with locks[which]:
            layers[which].params["weight_hh_l0"][...] = (k % 4) / 10
            assert_same_bits(layers[which](x)[0], expected[which][k % 4])

    together(*(lambda k, which=which: change(k, which % 3) for which in range(6)))  # type: ignore[misc]


def test_those_who_look_at_the_parameters_of_a_layer_in_use(cell: str) -> None:
    """To hand the arrays out beside calls changes no result, and a change afterwards is seen."""
    layer: Any = LAYERS[cell](4, 21, seed=1)
    x = np.ones((2, 3, 4), np.float32)
    expected = layer(x)[0]

    def call(_: int) -> None:
        assert_same_bits(layer(x)[0], expected)

    def look(_: int) -> None:
        assert layer.params["weight_ih_l0"].shape[1] == 4
        layer.state_dict()

    together(call, look, call, look)
    layer.params["weight_hh_l0"][...] = 0
    assert not np.array_equal(layer(x)[0], expected)


def test_a_stream_is_stepped_by_one_or_refuses() -> None:
    """Steps from several threads at once: each that was not refused happened once, whole, one after another."""
    layer: Any = fr.RNN(1, 1, bias=False, nonlinearity="relu", seed=1)
    for array in layer.params.values():
        array[...] = 1
    stream = layer.stream()
    x = np.ones((1, 1), np.float32)
    seen: list[float] = []

    def step(_: int) -> None:
        try:
            seen.append(float(stream.step(x)[0, 0]))
        except ValueError as error:
            assert "stream is in use by another thread" in str(error)

    together(step, step, step, step)
    assert sorted(seen) == [float(k + 1) for k in range(len(seen))]
    assert stream.state[0, 0, 0] == len(seen)


def test_training_of_layers_of_their_own(cell: str) -> None:
    """Several threads train, each its own layer, to the bits of one that does so alone."""
    x = np.random.default_rng(0).standard_normal((4, 6, 5)).astype(np.float32)

    def train(layer: Any, steps: int) -> list[np.ndarray]:
        optimizer = fr.Adam(layer, lr=1e-2)
        for _ in range(steps):
            (y, _), tape = layer.forward(x)
            layer.backward(tape, y - 1)
            optimizer.step()
            layer.zero_grad()
        return list(layer.state_dict().values())

    alone = [train(LAYERS[cell](5, 19, seed=seed), ROUNDS) for seed in range(4)]
    layers = [LAYERS[cell](5, 19, seed=seed) for seed in range(4)]
    results: dict[int, list[np.ndarray]] = {}

    def job(k: int, seed: int) -> None:
        if k == 0:
            results[seed] = train(layers[seed], ROUNDS)

    together(*(lambda k, seed=seed: job(k, seed) for seed in range(4)))  # type: ignore[misc]
    for seed in range(4):
        for got, expected in zip(results[seed], alone[seed], strict=True):
            assert_same_bits(got, expected)


def test_64_threads_share_a_layer(cell: str) -> None:
    layer: Any = LAYERS[cell](9, 65, 2, seed=1)
    x = np.random.default_rng(0).standard_normal((3, 12, 9)).astype(np.float32)
    expected = layer(x)[0]

    def call(k: int) -> None:
        if k < 10:
            assert_same_bits(layer(x)[0], expected)
            assert_same_bits(layer.forward(x)[0][0], expected)

    together(*[call] * 64)
