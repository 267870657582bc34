"""One step at a time: the same bits as the whole sequence."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fusedrnn as fr
from problems import LAYERS, flat
from stacks import INPUTS, H
from tolerance import assert_same_bits


@pytest.mark.parametrize("batch", [1, 5])
def test_stream(cell: str, dtype: str, batch: int) -> None:
    """Steps give the bits of the whole sequence, for any number of layers, and carry the state."""
    layer = LAYERS[cell](INPUTS, 33, 3, dtype=dtype, seed=6)
    x = np.random.default_rng(2).normal(size=(batch, 9, INPUTS)).astype(dtype)
    y, *final = flat(*layer(x))
    stream = layer.stream(batch_size=batch)
    out = np.empty((batch, 33), dtype)
    for t in range(9):
        if t % 2:
            assert stream.step(x[:, t], out=out) is out
            assert_same_bits(out, y[:, t])
        else:
            assert_same_bits(stream.step(x[:, t]), y[:, t])
    for value, expected in zip(flat(y, stream.state)[1:], final, strict=True):
        assert_same_bits(value, expected)
    stream.reset()
    assert_same_bits(stream.step(x[:, 0]), y[:, 0])
    _, half = layer(x[:, :4])
    stream.reset(half)
    assert_same_bits(stream.step(x[:, 4]), y[:, 4])


def test_stream_freezes_the_weights() -> None:
    """Training on does not change a stream that is already open; a new one sees the new weights."""
    layer = fr.GRU(INPUTS, H, seed=0)
    x = np.ones((1, INPUTS), np.float32)
    before = layer.stream().step(x)
    stream = layer.stream()
    layer.params["weight_ih_l0"][...] *= 2
    assert_same_bits(stream.step(x), before)
    assert np.any(layer.stream().step(x) != before)


def test_state_of_a_stream_is_a_copy() -> None:
    """Writing to what ``state`` returned does not disturb the stream."""
    layer = fr.LSTM(INPUTS, H, 2, seed=0)
    x = np.ones((1, INPUTS), np.float32)
    stream, undisturbed = layer.stream(), layer.stream()
    stream.step(x), undisturbed.step(x)
    for value in stream.state:
        value[...] = 9
    assert_same_bits(stream.step(x), undisturbed.step(x))


def test_a_long_step_lets_others_run() -> None:
    """It releases the GIL; a stream itself takes one step at a time."""
    stream = fr.LSTM(512, 1024, seed=0).stream(batch_size=64)
    x = np.ones((64, 512), np.float32)
    stream.step(x)
    expected = stream.step(x)
    stream.reset()
    steps, refused = [], 0
    with ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            stream.reset()
            running = pool.submit(lambda: [stream.step(x) for _ in range(2)])
            while not running.done():
                try:
                    _ = stream.state
                except ValueError as error:
                    assert "in use by another thread" in str(error)
                    refused += 1
            steps.append(running.result()[1])
    assert refused > 0
    for y in steps:
        assert_same_bits(y, expected)


def test_a_stream_of_several_layers_names_them_and_checks_x() -> None:
    model = fr.models.SequenceToSequence(fr.GRU(4, 4, seed=0), 5, embedding=fr.Embedding(5, 4, seed=1), seed=2)
    stream = model.stream(batch_size=2)
    assert repr(stream) == "Stream of Embedding, GRU, Linear, batch_size=2"
    before = stream.state
    for x in (1, "a", [1], [1, 2, 3], np.zeros((0,), int)):
        with pytest.raises(ValueError, match=r"stream: x has shape .*; expected \(batch, features\) or tokens"):
            stream.step(x)
    assert_same_bits(stream.state, before)
    assert stream.step([1, 2]).shape == (2, 5)


def test_out_may_not_overlap_x() -> None:
    """Nor where the rows of x run backwards."""
    stream = fr.LSTM(4, 4, seed=0).stream(batch_size=2)
    memory = np.zeros((5, 4), np.float32)
    for x in (memory[:2], memory[1::-1], memory[3::-2]):
        with pytest.raises(ValueError, match="out overlaps x"):
            stream.step(x, out=memory[1:3])
    assert_same_bits(
        stream.step(memory[1::-1], out=memory[2:4]), fr.LSTM(4, 4, seed=0).stream(2).step(np.zeros((2, 4)))
    )
