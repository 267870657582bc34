"""Truncated backpropagation through time: states go on from batch to batch, as values, row by row."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.training import Callback, Training, mse

Array = NDArray[Any]
fit = partial(fr.fit, progress=False, seed=0, epochs=1, optimizer="sgd")
RNG = np.random.default_rng(0)


def make(name: str, model: str = "Sequential") -> Any:
    layer = getattr(fr, name)(2, 3, 2, dtype="float64", seed=1)
    head = fr.Linear(3, 1, dtype="float64", seed=2)
    if model == "Sequential":
        return fr.Sequential(layer, head)
    return fr.models.SequenceToSequence(layer, head)


def parts_of(model: Any) -> tuple[fr.Layer, fr.Layer]:
    layer, head = list(model.children().values())
    return layer, head


def by_hand(model: Any, segments: list[tuple[Array, Array, Any]], again: list[bool]) -> dict[str, Array]:
    """Return the weights after a step for each segment (x, y, lengths), and whether its state is carried."""
    layer, head = parts_of(model)
    optimizer, state = fr.SGD(model), None
    for (x, y, lengths), carried in zip(segments, again, strict=True):
        model.zero_grad()
        (h, state), tape = layer.forward(x, state if carried else None, lengths)
        pred, head_tape = head.forward(h)
        mask = None if lengths is None else np.arange(x.shape[1]) < np.array(lengths)[:, None]
        layer.backward(tape, head.backward(head_tape, mse(pred, y, mask)[1]))
        optimizer.step()
    result: dict[str, Array] = model.state_dict()
    return result


def assert_same(model: fr.Layer, expected: dict[str, Array], tolerance: float = 0.0) -> None:
    for name, array in model.params.items():
        assert np.max(np.abs(array - expected[name])) <= tolerance, name


@pytest.mark.parametrize("kind", ["Sequential", "SequenceToSequence"])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_states_go_on_from_segment_to_segment(name: str, kind: str) -> None:
    x, y = RNG.standard_normal((3, 12, 2)), RNG.standard_normal((3, 12, 1))
    segments = [(x[:, at : at + 4], y[:, at : at + 4], None) for at in (0, 4, 8)]
    expected = by_hand(make(name, kind), segments, [False, True, True])
    model = make(name, kind)
    fit(model, [(x, y) for x, y, _ in segments], batch_size=9, stateful=True)
    assert_same(model, expected)
    cut = make(name, kind)
    order = np.argsort(np.random.default_rng(0).permutation(3))  # so that the rows are those of above
    fit(cut, x[order], y[order], batch_size=3, stateful=4)
    assert_same(cut, expected, 1e-15)
    without = make(name, kind)
    fit(without, [(x, y) for x, y, _ in segments], batch_size=9)
    assert any(np.any(without.params[key] != array) for key, array in expected.items())


def test_samples_in_their_order_go_on_row_by_row() -> None:
    x, y = RNG.standard_normal((6, 4, 2)), RNG.standard_normal((6, 4, 1))
    expected = by_hand(make("GRU"), [(x[i : i + 2], y[i : i + 2], None) for i in (0, 2, 4)], [False, True, True])
    model = make("GRU")
    fit(model, x, y, batch_size=2, stateful=True)
    assert_same(model, expected)
    twice = by_hand(make("GRU"), [(x[i : i + 2], y[i : i + 2], None) for i in (0, 2, 4)] * 2, [False, True, True] * 2)
    model = make("GRU")
    fit(model, x, y, batch_size=2, stateful=True, epochs=2)  # each epoch begins with zeros
    assert_same(model, twice)


class Watched(fr.GRU):
    """Remember the first state of each call, and its input."""

    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        self.__dict__.setdefault("calls", []).append((np.array(x), state, lengths))
        return super().forward(x, state, lengths)


def test_rows_are_reset_one_by_one() -> None:
    x = RNG.standard_normal((2, 3, 2))
    model = Watched(2, 2, seed=1)
    resets = np.array([False, True])
    fit(model, [(x, x), (x, x, None, None, resets), (x, x)], batch_size=9, stateful=True, optimizer=still)
    (_, first, _), (_, second, _), (_, third, _) = model.__dict__["calls"]
    ended = fr.GRU(2, 2, seed=1)(x)[1]
    assert first is None
    assert np.array_equal(second[:, 0], ended[:, 0]) and not second[:, 1].any()
    assert np.array_equal(third, fr.GRU(2, 2, seed=1)(x, second)[1])


def still(model: fr.Layer) -> fr.Optimizer:
    return fr.SGD(model, lr=0.0)


def test_a_sequence_that_ends_leaves_its_row_to_the_next() -> None:
    """Whatever the order: the segments of a sequence follow each other, the first one from zeros."""
    lengths = (7, 3, 10, 1, 5, 0, 4)
    x = [RNG.standard_normal((n, 2)) for n in lengths]
    y = [sequence.copy() for sequence in x]
    model, truth = Watched(2, 2, dtype="float64", seed=1), fr.GRU(2, 2, dtype="float64", seed=1)
    history = fit(model, x, y, batch_size=3, stateful=4, optimizer=still)
    seen = 0
    for inputs, state, given in model.__dict__["calls"]:
        ends = np.full(len(inputs), inputs.shape[1]) if given is None else given
        for row, end in enumerate(ends):
            part = inputs[row, :end]
            sample, start = next(
                (i, at)
                for i, each in enumerate(x)
                for at in range(0, len(each), 4)
                if np.array_equal(each[at : at + 4], part)
            )
            before = truth(x[sample][:start][None])[1][:, 0] if start else np.zeros((1, 2))
            found = np.zeros((1, 2)) if state is None else state[:, row]
            assert np.max(np.abs(found - before)) <= 1e-15
            seen += end
    assert seen == sum(lengths) and max(len(call[0]) for call in model.__dict__["calls"]) == 3
    whole = fr.evaluate(fr.GRU(2, 2, dtype="float64", seed=1), x, y)["loss"]
    assert abs(history["loss"][0] - whole) <= 1e-14  # the loss of whole sequences


def test_each_label_counts_alike_in_segments() -> None:
    """The mean over the steps is that of all labels, for weights as well."""
    lengths = (7, 3, 10, 1)
    x, y = [RNG.standard_normal((n, 2)) for n in lengths], [RNG.standard_normal((n, 1)) for n in lengths]
    steps: list[Array] = []

    class Grads(Callback):
        def on_train_begin(self, training: Training) -> None:
            training.optimizer.constraints.append(lambda: steps.append(training.model.grads["1.bias"].copy()))

    model = make("GRU")
    history = fit(model, x, y, batch_size=1, stateful=4, optimizer=still, callbacks=Grads())
    pred = np.concatenate([model(each[None])[0] for each in x])
    assert abs(history["loss"][0] - np.mean((pred - np.concatenate(y)) ** 2)) <= 1e-14
    assert len(steps) == 2 + 1 + 3 + 1
    assert abs(np.mean(steps) - 2 * np.mean(pred - np.concatenate(y))) <= 1e-14


def test_a_long_memory_is_learned_from_short_segments() -> None:
    """The target is the sign of the first input, far back; a state that is not carried cannot know it."""
    first = RNG.choice([-1.0, 1.0], 40)
    x = np.zeros((40, 24, 2))
    x[:, 0, 0], x[:, 0, 1] = first, 1
    y = np.repeat(first[:, None, None], 24, axis=1)
    losses = []
    for given in ({"stateful": 6}, {}):
        model = fr.models.SequenceToSequence(fr.GRU(2, 8, seed=1), 1, seed=2)
        data = (x, y) if given else (x.reshape(-1, 6, 2), y.reshape(-1, 6, 1))
        history = fit(model, *data, batch_size=20, epochs=60, optimizer=lambda m: fr.Adam(m, lr=1e-2), **given)
        losses.append(history["loss"][-1])
    assert losses[0] <= 0.05 and losses[1] >= 0.5


def test_a_share_is_held_out_of_long_sequences() -> None:
    x = [np.full((n, 2), float(n)) for n in (9, 4, 7, 12, 3, 10, 6, 5)]
    model = Watched(2, 2, seed=1)
    fit(model, x, x, batch_size=2, stateful=4, validation_data=0.5, optimizer=still)
    seen = {float(inputs[row, 0, 0]) for inputs, _, _ in model.__dict__["calls"] for row in range(len(inputs))}
    steps = sum(
        inputs.shape[1] * len(inputs) if given is None else sum(given) for inputs, _, given in model.__dict__["calls"]
    )
    assert len(seen) == 4 and steps == sum(seen)


def test_a_stateful_run_resumes_to_the_same_bits(tmp_path: Any) -> None:
    x = [RNG.standard_normal((n, 2)) for n in (9, 4, 7, 12)]
    y = [each[:, :1] for each in x]
    whole, parts = make("LSTM"), make("LSTM")
    fit(whole, x, y, batch_size=2, stateful=3, epochs=3)
    for epochs in (1, 3):
        fit(parts, x, y, batch_size=2, stateful=3, epochs=epochs, resume=tmp_path / "run")
    assert_same(parts, whole.state_dict())


X, Y = np.zeros((4, 6, 2)), np.zeros((4, 6, 1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": fr.Linear(2, 1)}, "fit: stateful is set, but Linear has no layer with a state"),
        (
            {"model": fr.Sequential(fr.GRU(2, 3, bidirectional=True), fr.Linear(6, 1))},
            "fit: stateful is set, but GRU also reads the future",
        ),
        ({"batch_size": 3}, "fit: stateful is set with 4 samples and batch_size 3; expected a multiple"),
        ({"stateful": 0}, "fit: stateful is 0"),
        ({"stateful": -2}, "fit: stateful is -2"),
        (
            {"stateful": 2, "y": np.zeros((4, 1))},
            r"fit: stateful is 2 with x of shape \(4, 6, 2\) and y of shape \(4, 1\)",
        ),
        ({"x": [(X, Y)], "y": None, "stateful": 2}, "fit: stateful is 2 with a source of batches, which are segments"),
        ({"x": [(X, Y), (X[:2], Y[:2])], "y": None}, "fit: stateful: a batch has 2 rows; expected 4, as before it"),
        ({"x": [(X, Y, None, None, [1, 0, 0, 0])], "y": None}, "fit: resets has dtype int64 .* expected booleans"),
        (
            {"x": [(X, Y, None, None, np.ones(4, bool))], "y": None, "stateful": False},
            "fit: the source gave resets, but stateful is False",
        ),
        ({"bucket_by_length": True, "lengths": [1, 2, 3, 4]}, "fit: bucket_by_length is set with stateful"),
    ],
)
def test_what_cannot_be_carried_is_refused(change: dict[str, Any], match: str) -> None:
    given: dict[str, Any] = {"model": make("GRU"), "x": X, "y": Y, "batch_size": 2, "stateful": True, **change}
    with pytest.raises(ValueError, match=match):
        fit(**given)
    assert not any("forward" in vars(layer) for layer in given["model"].layers())
