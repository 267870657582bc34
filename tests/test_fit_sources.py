"""What ``fit`` trains on and measures: buckets, sources of batches, metrics, class weights, clipping by value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.training import accuracy, bucketed_order, class_weights, clip_grad_value, cross_entropy, mse, perplexity
from fusedrnn.training.data import make_samples

Array = NDArray[Any]
LENGTHS = (4, 1, 6, 2, 3, 5, 2, 7, 1, 6, 4)


def ragged(classes: int = 3) -> tuple[list[Array], list[Array]]:
    """Sequences of unequal length with a class, mostly the last one, at each time step."""
    rng = np.random.default_rng(1)
    x = [rng.standard_normal((n, 2)) for n in LENGTHS]
    return x, [np.where(rng.random(n) < 0.7, classes - 1, rng.integers(0, classes, n)) for n in LENGTHS]


def tagger(classes: int = 3) -> fr.Sequential:
    return fr.Sequential(
        fr.GRU(2, 5, dtype="float64", seed=1), fr.Dropout(0.2), fr.Linear(5, classes, dtype="float64", seed=2)
    )


def bits(model: fr.Layer) -> bytes:
    return b"".join(array.tobytes() for array in model.params.values())


def by_hand(
    model: fr.Layer,
    batches: list[tuple[Array, Array]],
    loss: Callable[..., tuple[float, Array]] = mse,
    clip: Callable[[fr.Layer], object] | None = None,
) -> bytes:
    """Return the weights after a step of gradient descent for each batch."""
    optimizer = fr.SGD(model)
    for x, y in batches:
        model.zero_grad()
        pred, tape = model.forward(x)
        model.backward(tape, loss(pred, y)[1])
        if clip is not None:
            clip(model)
        optimizer.step()
    return bits(model)


fit = partial(fr.fit, progress=False, optimizer="sgd")
tag = partial(fit, loss="cross_entropy", epochs=2, batch_size=4, seed=3)


# ------------------------------------------------------------------------------------------------------------- buckets


class Watched(fr.Linear):
    """Remember the shapes of the inputs in training."""

    def forward(self, x: Any) -> Any:
        self.__dict__.setdefault("shapes", []).append(x.shape)
        return super().forward(x)


def test_buckets_are_the_batches() -> None:
    x, y = ragged()
    model = Watched(2, 3)
    fit(model, x, y, loss="cross_entropy", epochs=2, batch_size=3, bucket_by_length=True, seed=5)
    rng, lengths = np.random.default_rng(5), np.array(LENGTHS)
    expected = [(len(chosen), lengths[chosen].max(), 2) for _ in range(2) for chosen in bucketed_order(lengths, 3, rng)]
    assert model.__dict__["shapes"] == expected and len(expected) == 8


def test_buckets_follow_from_the_seed() -> None:
    x, y = ragged()
    results = []
    for seed, bucket in ((3, True), (3, True), (4, True), (3, False)):
        model = tagger()
        tag(model, x, y, bucket_by_length=bucket, seed=seed)
        results.append(bits(model))
    assert results[0] == results[1] and len(set(results)) == 3


def test_samples_take_a_list_of_batches() -> None:
    x, y = ragged()
    samples = make_samples(x, y)
    batches = list(samples.batches(99, [np.array([7, 2]), np.array([1, 8, 3])]))
    assert [batch.x.shape for batch in batches] == [(2, 7, 2), (3, 2, 2)]
    assert np.array_equal(batches[1].y[2], y[3]) and batches[0].lengths.tolist() == [7, 6]


def test_lengths_of_several_inputs_add_up() -> None:
    x, y = ragged()
    images = np.ones((len(x), 3))
    sums = np.add(LENGTHS[::-1], LENGTHS)
    assert np.array_equal(make_samples((x[::-1], x), y).time_steps, sums)  # type: ignore[arg-type]
    assert np.array_equal(make_samples((images, x), y).time_steps, LENGTHS)  # type: ignore[arg-type]
    assert make_samples(images, images).time_steps is None


# ------------------------------------------------------------------------------------------------------------- sources


def pairs(epoch: int = 0) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(epoch)
    return [(rng.standard_normal((n, 2)), rng.standard_normal((n, 1))) for n in (4, 7, 1)]


def linear() -> fr.Linear:
    return fr.Linear(2, 1, dtype="float64", seed=1)


def test_a_source_gives_the_batches() -> None:
    twice = by_hand(linear(), pairs() * 2)
    model = linear()
    history = fit(model, pairs(), epochs=2, batch_size=9)
    assert bits(model) == twice and history.epochs == 2
    expected = sum(len(x) for x, _ in pairs())
    judged = linear()
    total = sum(mse(judged(x), y)[0] * len(x) for x, y in pairs())
    frozen = fit(linear(), pairs(), optimizer=lambda m: fr.SGD(m, lr=1e-300), epochs=1, batch_size=9)
    assert abs(frozen["loss"][0] - total / expected) <= 1e-14

    model = linear()
    fit(model, pairs, None, epochs=2, batch_size=9)
    assert bits(model) == by_hand(linear(), pairs(0) + pairs(1)) != twice


def test_a_generator_goes_on_for_the_next_epoch() -> None:
    model = linear()
    source = (pair for _ in range(9) for pair in pairs())
    fit(model, source, epochs=2, batch_size=9, steps_per_epoch=2)
    assert bits(model) == by_hand(linear(), (pairs() * 2)[:4])
    assert len(next(source)[0]) == 7  # the fifth batch is still there


def test_ragged_batches_of_a_source_are_those_of_samples() -> None:
    x, y = ragged()
    lengths = np.array(LENGTHS)
    padded = make_samples(x, y)
    order = np.random.default_rng(3)
    orders = [order.permutation(len(x)) for _ in range(2)]

    def listed(epoch: int) -> Iterator[tuple[Any, ...]]:
        for part in np.split(orders[epoch], [4, 8]):
            yield [x[k] for k in part], [y[k] for k in part]

    def with_lengths(epoch: int) -> Iterator[tuple[Any, ...]]:
        for part in np.split(orders[epoch], [4, 8]):
            steps = lengths[part].max()
            yield padded.x[part, :steps], padded.y[part, :steps], lengths[part]

    # Of a list it is known how many labels a sample has on average; of a function only what it has given so far.
    for epochs, sources in (
        (1, ((x, y), (list(listed(0)),), (list(with_lengths(0)),))),
        (2, ((listed,), (with_lengths,))),
    ):
        results = []
        for source in sources:
            model = tagger()
            history = tag(model, *source, epochs=epochs, metrics=["accuracy"])
            results.append((bits(model), history["loss"], history["accuracy"]))
        assert results[1:] == results[:-1]


@pytest.mark.parametrize(("steps", "shown"), [(2, "4/4"), (None, "6step")])
def test_the_bar_knows_the_steps_of_a_source(steps: int | None, shown: str, capfd: pytest.CaptureFixture[str]) -> None:
    fr.fit(linear(), pairs, epochs=2, batch_size=9, steps_per_epoch=steps, progress=True)
    assert shown in capfd.readouterr().err


# ------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_are_recorded_and_shown(capfd: pytest.CaptureFixture[str]) -> None:
    x, y = ragged()
    model = tagger()

    def zeros(pred: Array, target: Array, mask: Any = None) -> float:
        return 100 * float(np.mean(target[... if mask is None else mask] == 0))

    history = tag(
        *(model, x, y), metrics=(name for name in ["accuracy", zeros]), validation_data=(x[:7], y[:7]), progress=True
    )
    assert set(history) == {*("loss", "lr", "seconds", "accuracy", "zeros", "val_loss", "val_accuracy", "val_zeros")}
    flat, labels = np.concatenate([model(one[np.newaxis])[0] for one in x[:7]]), np.concatenate(y[:7])
    assert abs(history["val_accuracy"][-1] - accuracy(flat, labels)) <= 1e-14
    assert abs(history["val_zeros"][0] - 100 * np.mean(labels == 0)) <= 1e-12
    assert abs(history["zeros"][1] - 100 * np.mean(np.concatenate(y) == 0)) <= 1e-12  # each epoch starts anew
    err = capfd.readouterr().err
    assert "loss=" in err and ", accuracy=" in err and "val_accuracy=" in err and "zeros=" in err and "lr=" not in err


class Bar(nullcontext["Bar"]):
    """Remember what a progress bar would show."""

    def __init__(self) -> None:
        super().__init__(self)
        self.shown: list[dict[str, Any]] = []

    def set_postfix(self, values: dict[str, Any], refresh: bool) -> None:
        self.shown.append(values)

    def update(self, batches: int) -> None:
        pass


def test_the_bar_shows_metrics_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = Bar()
    monkeypatch.setattr("tqdm.tqdm", lambda **options: bar)
    x, y = ragged()
    tag(tagger(), x, y, metrics=["accuracy"], validation_data=(x, y), progress=True)
    first, second = ["epoch", "loss", "accuracy"], ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    assert [list(values) for values in bar.shown] == [first] * 3 + [second] * 5


def test_training_metrics_are_of_the_training_outputs() -> None:
    x, y = ragged()
    model = fr.Linear(2, 3, dtype="float64", seed=1)
    flat, labels = model(np.concatenate(x)), np.concatenate(y)
    expected = accuracy(flat, labels), perplexity(flat, labels)
    history = tag(model, x, y, epochs=1, optimizer=lambda m: fr.SGD(m, lr=1e-300), metrics=["accuracy", "perplexity"])
    assert abs(history["accuracy"][0] - expected[0]) <= 1e-14
    assert abs(history["perplexity"][0] - expected[1]) <= 1e-12
    assert abs(history["perplexity"][0] - math.exp(history["loss"][0])) <= 1e-12


def test_metrics_do_not_change_training() -> None:
    x, y = ragged()
    plain, measured = tagger(), tagger()
    tag(plain, x, y)
    tag(measured, x, y, metrics=["accuracy"], validation_data=(x, y))
    assert bits(plain) == bits(measured)


# -------------------------------------------------------------------------------------------------------- class weights


@pytest.mark.parametrize("as_dict", [False, True])
def test_class_weights_multiply_each_label(as_dict: bool) -> None:
    """A gradient is the sum of w dl over the number of labels, not over the sum of the batch's weights."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((11, 2)), rng.integers(0, 3, 11)
    weight = np.array([0.5, 3.0, 1.0])
    given = {np.int64(0): 0.5, 1: 3} if as_dict else weight.tolist()
    model = fr.Linear(2, 3, dtype="float64", seed=1)
    fit(model, [(x, y)] * 3, loss="cross_entropy", epochs=1, batch_size=11, class_weight=given)
    manual = fr.Linear(2, 3, dtype="float64", seed=1)
    assert bits(model) == by_hand(manual, [(x, y)] * 3, partial(cross_entropy, sample_weight=weight[y], normalizer=11))


@pytest.mark.parametrize("pad", [False, True])
def test_balanced_weights_leave_out_padding_and_know_all_classes(pad: bool) -> None:
    x, y = ragged()
    labels = np.concatenate(y)
    weight = class_weights(labels, 4)
    assert len(set(weight)) == 4  # no class of the data is as frequent as another; one of the model does not occur
    results = []
    for given in ("balanced", weight):
        model = tagger(4)
        if pad:
            samples = make_samples(x, y)
            hidden = np.arange(7) >= np.array(LENGTHS)[:, np.newaxis]
            targets = np.where(hidden, 77, samples.y)
            history = tag(model, samples.x, targets, lengths=LENGTHS, class_weight=given)
        else:
            history = tag(model, x, y, class_weight=given)
        results.append((bits(model), {name: history[name] for name in history if name != "seconds"}))
    assert results[0] == results[1]


def test_the_validation_loss_has_the_class_weights() -> None:
    x, y = ragged()
    model = tagger()
    history = tag(model, x, y, batch_size=11, class_weight="balanced", validation_data=(x[:6], y[:6]))
    pred, labels = np.concatenate([model(one[np.newaxis])[0] for one in x[:6]]), np.concatenate(y[:6])
    expected = cross_entropy(pred, labels, weight=class_weights(np.concatenate(y)))[0]
    assert abs(history["val_loss"][-1] - expected) <= 1e-14
    assert abs(history["val_loss"][-1] - cross_entropy(pred, labels)[0]) >= 1e-3


# ------------------------------------------------------------------------------------------------------------ clipping


def test_gradients_are_clipped_by_value_then_by_norm() -> None:
    x, y = pairs()[0]

    def clip(model: fr.Layer) -> None:
        clip_grad_value(model, 0.05)
        fr.clip_grad_norm(model, 0.06)

    results = []
    cases: tuple[tuple[dict[str, Any], Callable[[fr.Layer], object]], ...] = (
        ({"clip_value": 0.05}, lambda model: clip_grad_value(model, 0.05)),
        ({"clip_value": 0.05, "clip_norm": 0.06}, clip),
    )
    for arguments, steps in cases:
        model = linear()
        fit(model, [(x, y)] * 3, epochs=1, batch_size=9, **arguments)
        results.append(bits(model))
        assert results[-1] == by_hand(linear(), [(x, y)] * 3, clip=steps)
    assert len({*results, by_hand(linear(), [(x, y)] * 3)}) == 3


# -------------------------------------------------------------------------------------------------------------- errors


def loss_of_ones_own(pred: Array, target: Array, mask: Any = None) -> tuple[float, Array]:
    return 0.0, pred


def lr(pred: Array, target: Array, mask: Any = None) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"bucket_by_length": True}, ValueError, "fit: bucket_by_length is set without lengths"),
        ({"steps_per_epoch": 3}, ValueError, "fit: steps_per_epoch is 3 with samples"),
        ({"y": None}, ValueError, "fit: y is None and x an array"),
        ({"x": 5, "y": None}, TypeError, "source is an int; expected an iterable or a callable"),
        ({"x": pairs, "y": None, "steps_per_epoch": 0}, ValueError, "fit: steps_per_epoch is 0"),
        ({"x": pairs, "y": None, "steps_per_epoch": 4}, ValueError, "ended after 3 batches of epoch 0; expected 4"),
        (
            {"x": iter(pairs()), "y": None, "epochs": 2},
            ValueError,
            "ended after 0 batches of epoch 1; .* an iterator does",
        ),
        ({"x": pairs, "y": None, "lengths": [1]}, ValueError, "fit: lengths is given with a source"),
        ({"x": pairs, "y": None, "bucket_by_length": True}, ValueError, "fit: bucket_by_length is given with a source"),
        ({"x": [(np.ones((2, 2)), np.ones(3))], "y": None}, ValueError, "fit: x has 2 and y has 3 samples"),
        ({"metrics": ["f1"]}, ValueError, "metric is 'f1'"),
        ({"metrics": [lr]}, ValueError, "fit: a metric's name is 'lr'; expected none of loss, lr"),
        ({"loss": "mse", "class_weight": [1.0]}, ValueError, "fit: class_weight is given with another loss"),
        ({"loss": loss_of_ones_own, "class_weight": [1.0]}, ValueError, "fit: class_weight is given with another"),
        ({"class_weight": "even"}, ValueError, "fit: class_weight is 'even'; expected 'balanced', an array"),
        ({"x": pairs, "y": None, "class_weight": "balanced"}, ValueError, r"expected an array \(classes,\) or a dict"),
        ({"class_weight": [1.0, -2.0]}, ValueError, "fit: class_weight is .* that are not negative"),
        ({"class_weight": [1.0, math.nan]}, ValueError, "fit: class_weight is .* that are not negative"),
        ({"class_weight": [[1.0, 2.0]]}, ValueError, "fit: class_weight is .* that are not negative"),
        ({"class_weight": [1.0, 2.0, 3.0]}, ValueError, r"weight has shape \(3,\)"),
        ({"class_weight": ["a", "b"]}, TypeError, "class_weight has dtype"),
        ({"class_weight": {0.5: 1.0}}, TypeError, "fit: a class of class_weight is 0.5; expected an integer"),
        ({"class_weight": {0: -1.0}}, ValueError, "fit: class_weight is {0: -1.0}; expected classes and weights"),
        ({"class_weight": {7: 1.0}}, ValueError, "fit: class_weight has class 7; expected 0 <= class < 2"),
        ({"clip_value": 0}, ValueError, "fit: clip_value is 0"),
    ],
)
def test_fit_checks_the_arguments(change: dict[str, Any], error: type[Exception], match: str) -> None:
    classes = not callable(change.get("x")) and change.get("x") is None
    arguments: dict[str, Any] = {
        **{"x": np.ones((5, 2)), "y": np.array([0, 1, 1, 0, 1]), "epochs": 1, "batch_size": 2},
        "loss": "cross_entropy" if classes or "class_weight" in change else "mse",
        **change,
    }
    model = fr.Linear(2, 2 if classes else 1)
    before = bits(model)
    with pytest.raises(error, match=match):
        fit(model, **arguments)
    assert "ended" in match or bits(model) == before


def test_early_stopping_keeps_the_epoch_of_the_highest_accuracy() -> None:
    """What ends in accuracy is better when higher."""
    stopping = fr.EarlyStopping(patience=2, monitor="accuracy")
    assert _improvements(stopping, "accuracy", [0.2, 0.5, 0.4, 0.6]) == [True, True, False, True]
    falling = fr.EarlyStopping(patience=2, monitor="loss")
    assert _improvements(falling, "loss", [0.5, 0.6, 0.4]) == [True, False, True]


def _improvements(callback: fr.EarlyStopping, name: str, values: list[float]) -> list[bool]:
    return [callback.improves(SimpleNamespace(values={name: value})) for value in values]  # type: ignore[arg-type]
