"""``resets`` passed on by what layers are put together in: as a call for each piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.models import Residual, SequenceToSequence, SequenceToVector
from tolerance import assert_same_bits

B, T, INPUTS, H = 3, 7, 4, 5
MARKS = np.zeros((B, T), bool)
MARKS[0, [0, 3, 4]] = True
MARKS[2, 5] = True
OPTIONS: dict[str, Any] = {"dtype": "float64", "seed": 1}

CHAINS: dict[str, Callable[[], Any]] = {
    "sequential": lambda: fr.Sequential(
        fr.LSTM(INPUTS, H, 2, **OPTIONS), fr.Linear(H, H, **OPTIONS), fr.GRU(H, H, **OPTIONS)
    ),
    "nested": lambda: fr.Sequential(
        fr.Sequential(fr.Bidirectional(fr.GRU(INPUTS, H, **OPTIONS), seed=2)),
        fr.Sequential(fr.Linear(2 * H, 3, **OPTIONS)),
    ),
    "to sequence": lambda: SequenceToSequence(fr.LSTM(INPUTS, H, **OPTIONS), 3, seed=3),
    "of residual": lambda: SequenceToSequence(
        Residual(fr.RNN(INPUTS, H, **OPTIONS), fr.LSTM(H, H, **OPTIONS), seed=4), 3
    ),
}


def x_of() -> Any:
    return np.random.default_rng(0).normal(size=(B, T, INPUTS))


def pieces() -> list[tuple[int, int, int]]:
    """(sample, begin, end) of every piece."""
    found = []
    for b in range(B):
        begins = [0, *(t for t in range(1, T) if MARKS[b, t])]
        found += [(b, t, end) for t, end in zip(begins, [*begins[1:], T], strict=True)]
    return found


@pytest.mark.parametrize("name", CHAINS)
def test_outputs_and_gradients_are_those_of_pieces(name: str) -> None:
    model, x = CHAINS[name](), x_of()
    y = model(x, resets=MARKS)
    dy = np.random.default_rng(1).normal(size=y.shape)
    for b, begin, end in pieces():
        assert_same_bits(y[b : b + 1, begin:end], model(x[b : b + 1, begin:end]))
    y_trained, tape = model.forward(x, resets=MARKS)
    assert_same_bits(y_trained, y)
    dx = model.backward(tape, dy)
    gradients = {key: value.copy() for key, value in model.grads.items()}
    model.zero_grad()
    for b, begin, end in pieces():
        _, tape = model.forward(x[b : b + 1, begin:end])
        part = model.backward(tape, dy[b : b + 1, begin:end])
        np.testing.assert_allclose(dx[b : b + 1, begin:end], part, atol=1e-12)
    for key, value in model.grads.items():
        np.testing.assert_allclose(gradients[key], value, atol=1e-12)


def test_states_go_on_over_calls() -> None:
    """The state that a call returns is the one of the last pieces, and one that is given reaches the first alone."""
    model, x = CHAINS["sequential"](), x_of()
    whole = model(x, resets=MARKS)
    first, state = model(x[:, :4], return_state=True, resets=MARKS[:, :4])
    second = model(x[:, 4:], state=state, resets=MARKS[:, 4:])
    assert_same_bits(np.concatenate((first, second), axis=1), whole)
    (outputs, _), _ = model.forward(x[:, :4], return_state=True, resets=MARKS[:, :4])
    assert_same_bits(outputs, first)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_to_vector(pooling: str) -> None:
    model, x = SequenceToVector(fr.GRU(INPUTS, H, **OPTIONS), 2, pooling=pooling, seed=3), x_of()
    y, _ = model.layer(x, resets=MARKS)
    pooled = {"last": y[:, -1], "mean": y.mean(axis=1), "max": y.max(axis=1)}[pooling]
    expected = model.head(pooled)
    np.testing.assert_allclose(model(x, resets=MARKS), expected, atol=1e-12)
    outputs, tape = model.forward(x, resets=MARKS)
    np.testing.assert_allclose(outputs, expected, atol=1e-12)
    dx = model.backward(tape, np.ones_like(outputs))
    before = MARKS[0].nonzero()[0][-1]
    assert (dx[0, :before] == 0).all() == (pooling == "last")
    assert dx[0, before:].all()


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", None])
def test_bidirectional_with_the_state_after_a_reset(merge: Any) -> None:
    layer = fr.Bidirectional(fr.LSTM(INPUTS, H, **OPTIONS), merge, seed=2)
    rng = np.random.default_rng(3)
    start, again = (tuple((rng.normal(size=(1, B, H)), rng.normal(size=(1, B, H))) for _ in range(2)) for _ in range(2))
    x = x_of()
    y, states = layer(x, start, resets=MARKS, reset_state=again)
    parts = []
    for child, state, restart, final in zip(layer.children().values(), start, again, states, strict=True):
        part, expected = child(x, state=state, resets=MARKS, reset_state=restart)
        parts.append(part)
        for got, wanted in zip(final, expected, strict=True):
            assert_same_bits(got, wanted)
    merged = {"concat": lambda: np.concatenate(parts, axis=-1), "sum": lambda: parts[0] + parts[1],
              "mul": lambda: parts[0] * parts[1], None: lambda: tuple(parts)}[merge]()  # fmt: skip
    (trained, _), tape = layer.forward(x, start, resets=MARKS, reset_state=again)
    for outputs in (y, trained):
        np.testing.assert_array_equal(outputs, merged)
    dy = tuple(map(np.ones_like, y)) if merge is None else np.ones_like(y)
    dx, (ds0, ds1), (dr0, dr1) = layer.backward(tape, dy)
    # Sample 0 is marked at its first step: nothing of it enters with the caller's state, forward.
    assert dx.all() and not ds0[0][:, 0].any() and ds0[0][:, 1].all() and ds1[0].all()
    assert dr0[0][:, 0].all() and not dr0[0][:, 1].any() and dr1[0][:, 2].all() and not dr1[0][:, 1].any()
    _, tape = layer.forward(x, start, resets=MARKS)
    assert len(layer.backward(tape, dy)) == 2
    _, tape = layer.forward(x, start, resets=MARKS, reset_state=(again[0], None))
    assert layer.backward(tape, dy)[2][1] is None


def test_errors() -> None:
    x = x_of()
    with pytest.raises(ValueError, match="Sequential: resets is given, but no layer has a state; expected None"):
        fr.Sequential(fr.Linear(INPUTS, H))(x, resets=MARKS)
    masked = fr.models.Masked(fr.GRU(INPUTS, H))
    with pytest.raises(ValueError, match="resets is given, but Masked cannot start its state again; expected None"):
        fr.Sequential(masked).forward(x, resets=MARKS)
    with pytest.raises(ValueError, match="SequenceToVector: resets is given, but Masked cannot"):
        SequenceToVector(masked, 2)(x, resets=MARKS)
    with pytest.raises(ValueError, match="Bidirectional: reset_state is given without resets"):
        fr.Bidirectional(fr.GRU(INPUTS, H))(x, reset_state=(None, np.zeros((1, B, H))))
    with pytest.raises(ValueError, match=r"GRU: resets has shape \(3, 6\)"):
        fr.Sequential(fr.GRU(INPUTS, H))(x, resets=MARKS[:, :-1])
