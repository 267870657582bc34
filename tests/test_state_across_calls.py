"""Models that go on from a state: in pieces, step by step, and with gradients through the pieces, as in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import differences
import fusedrnn as fr
from fusedrnn.models import Residual, SequenceToSequence, SequenceToVector
from tolerance import DIFFERENCE, assert_gradient, assert_same_bits

B, T, CUT = 3, 7, 3
Make = Callable[[str], Any]


def lstm(d: str, size: int = 3, layers: int = 1) -> fr.LSTM:
    return fr.LSTM(size, 5, layers, dtype=d, seed=1)


def gru(d: str, size: int = 3) -> fr.GRU:
    return fr.GRU(size, 5, dtype=d, seed=2)


def linear(d: str, size: int, out: int) -> fr.Linear:
    return fr.Linear(size, out, dtype=d, seed=3)


def embedding(d: str) -> fr.Embedding:
    return fr.Embedding(6, 3, dtype=d, seed=4)


def chain(d: str) -> fr.Sequential:
    inner = fr.Sequential(fr.Activation("tanh"), gru(d, 5))
    return fr.Sequential(linear(d, 3, 3), lstm(d, layers=2), fr.Dropout(0.0), inner, linear(d, 5, 4))


MODELS: dict[str, Make] = {
    "sequential": chain,
    "embedded": lambda d: fr.Sequential(embedding(d), gru(d), linear(d, 5, 2)),
    "residual inside": lambda d: fr.Sequential(Residual(gru(d), lstm(d, 5), seed=5), linear(d, 5, 2)),
    "to sequence": lambda d: SequenceToSequence(lstm(d, layers=2), 4, seed=6),
    "tagger": lambda d: SequenceToSequence(gru(d), 4, embedding=embedding(d), seed=6),
    "chain inside": lambda d: SequenceToSequence(chain(d), 4, seed=6),
    "to vector": lambda d: SequenceToVector(lstm(d, layers=2), 4, seed=6),
    "vector of tokens": lambda d: SequenceToVector(gru(d), 4, embedding=embedding(d), seed=6),
    "vector of a chain": lambda d: SequenceToVector(chain(d), 4, seed=6),
    "vector inside": lambda d: fr.Sequential(linear(d, 3, 3), SequenceToVector(gru(d), 4, seed=6), linear(d, 4, 2)),
}


def data(model: Any) -> Any:
    rng = np.random.default_rng(7)
    if any(isinstance(layer, fr.Embedding) for layer in model.layers()):
        return rng.integers(0, 6, (B, T))
    return rng.normal(0, 1, (B, T, 3))


def flat(state: Any) -> list[Any]:
    return [each for part in state for each in flat(part)] if isinstance(state, tuple) else [state]


def like(state: Any, rng: np.random.Generator) -> Any:
    if isinstance(state, tuple):
        return tuple(like(part, rng) for part in state)
    return rng.normal(0, 0.5, state.shape)


@pytest.mark.parametrize("name", MODELS)
def test_pieces_are_the_whole(name: str, dtype: str) -> None:
    model, x = MODELS[name](dtype), data(MODELS[name](dtype))
    whole, final = model(x, return_state=True)
    assert_same_bits(model(x), whole)
    first, state = model(x[:, :CUT], return_state=True)
    second, last = model(x[:, CUT:], state=state, return_state=True)
    assert_same_bits(second if whole.ndim == 2 else np.concatenate([first, second], axis=1), whole)
    for ours, theirs in zip(flat(last), flat(final), strict=True):
        assert_same_bits(ours, theirs)
    assert_same_bits(model(x[:, CUT:], state=state), second)


@pytest.mark.parametrize("name", MODELS)
def test_forward_is_the_call(name: str, dtype: str) -> None:
    model, x = MODELS[name](dtype), data(MODELS[name](dtype))
    lengths = np.array([5, 0, 7])
    _, state = model(x, return_state=True)
    y, final = model(x, lengths=lengths, state=state, return_state=True)
    (y2, final2), _ = model.forward(x, lengths=lengths, state=state, return_state=True)
    for a, b in zip([y, *flat(final)], [y2, *flat(final2)], strict=True):
        assert_same_bits(a, b)
    for part, start in zip(flat(final), flat(state), strict=True):
        assert_same_bits(part[:, 1], start[:, 1])  # a sample without steps keeps its state


@pytest.mark.parametrize("name", MODELS)
def test_steps_are_the_whole(name: str, dtype: str) -> None:
    model, x = MODELS[name](dtype), data(MODELS[name](dtype))
    stream = model.stream(B)
    y = [stream.step(x[:, step]) for step in range(T)]
    whole, final = model(x, return_state=True)
    assert_same_bits(y[-1] if whole.ndim == 2 else np.stack(y, axis=1), whole)
    for ours, theirs in zip(flat(stream.state), flat(final), strict=True):
        assert_same_bits(ours, theirs)
    _, state = model(x[:, :CUT], return_state=True)
    stream.reset(state)
    assert_same_bits(stream.step(x[:, CUT]), y[CUT])
    stream.reset()
    assert_same_bits(stream.step(x[:, 0]), y[0])


@pytest.mark.parametrize("name", MODELS)
def test_gradients_through_pieces_are_those_of_the_whole(name: str) -> None:
    """The gradients of one call are held to the reference elsewhere."""
    model, x = MODELS[name]("float64"), data(MODELS[name]("float64"))
    rng = np.random.default_rng(8)
    whole, tape = model.forward(x)
    dy = rng.normal(0, 1, whole.shape)
    dx = model.backward(tape, dy)
    expected = {key: value.copy() for key, value in model.grads.items()}
    model.zero_grad()
    (_, state), tape1 = model.forward(x[:, :CUT], return_state=True)
    (_, _), tape2 = model.forward(x[:, CUT:], state=state, return_state=True)
    vector = whole.ndim == 2
    dx2, dstate = model.backward(tape2, dy if vector else dy[:, CUT:])
    dx1, _ = model.backward(tape1, None if vector else dy[:, :CUT], dstate)
    for key, value in model.grads.items():
        assert_gradient(value, expected[key], key)
    if dx is not None:
        assert_gradient(np.concatenate([dx1, dx2], axis=1), dx, "x")


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_states(name: str) -> None:
    """The gradient by the initial state, from y and the final one together, against differences."""
    model, x = MODELS[name]("float64"), data(MODELS[name]("float64"))
    rng = np.random.default_rng(9)
    state = like(model(x, return_state=True)[1], rng)
    lengths = np.array([5, 2, 7])
    (y, final), tape = model.forward(x, lengths=lengths, state=state, return_state=True)
    dy, dfinal = like(y, rng), like(final, rng)
    _, dstate = model.backward(tape, dy, dfinal)

    def loss() -> float:
        y, final = model(x, lengths=lengths, state=state, return_state=True)
        parts = zip([y, *flat(final)], [dy, *flat(dfinal)], strict=True)
        return float(sum((a * b).sum() for a, b in parts))

    for start, grad in zip(flat(state), flat(dstate), strict=True):
        along = rng.normal(0, 1, start.shape)
        exact = float((grad * along).sum())
        assert abs(differences.slope(loss, start, along) - exact) <= DIFFERENCE * max(1, abs(exact))


def test_both_directions_take_a_state() -> None:
    model = fr.Sequential(fr.Bidirectional(gru("float64"), seed=3), fr.LSTM(10, 4, bidirectional=True, dtype="float64"))
    x = data(model)
    y, state = model(x, return_state=True)
    assert not np.array_equal(model(x, state=state), y)
    with pytest.raises(ValueError, match="Sequential: stream needs one forward direction"):
        model.stream()


def test_bad_arguments() -> None:
    model, x = chain("float64"), np.ones((B, T, 3))
    with pytest.raises(ValueError, match=r"Sequential: state is 1 states; expected a tuple of 2"):
        model(x, state=(None,))
    with pytest.raises(ValueError, match=r"LSTM: h0 has shape"):
        model(x, state=((np.ones((1, B, 5)), None), None))
    with pytest.raises(ValueError, match=r"Sequential: state= and return_state= need a layer with a state"):
        fr.Sequential(fr.Linear(3, 2))(x, return_state=True)
    with pytest.raises(TypeError, match=r"Sequential: stream needs a layer with a state inside"):
        fr.Sequential(fr.Linear(3, 2)).stream()
    with pytest.raises(ValueError, match=r"pooling is 'mean'; expected 'last' for a stream"):
        SequenceToVector(gru("float64"), 2, pooling="mean").stream()
    y, tape = model.forward(x)
    with pytest.raises(ValueError, match=r"dstate is given; expected None for a tape without return_state=True"):
        model.backward(tape, y, (None, None))
    _, tape = model.forward(x, return_state=True)
    with pytest.raises(ValueError, match=r"dy and dstate are None"):
        model.backward(tape, None)
    stream = model.stream(B)
    stream.step(x[:, 0])
    before = flat(stream.state)
    with pytest.raises(ValueError, match=r"GRU"):
        stream.reset((None, (np.ones((2, B, 5)),)))
    for ours, theirs in zip(flat(stream.state), before, strict=True):
        assert_same_bits(ours, theirs)
