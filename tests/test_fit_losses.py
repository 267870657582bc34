"""The loss that ``fit`` reports and the gradient it follows do not depend on how the data is cut into batches."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.layers.activation import softmax
from fusedrnn.training import Callback, Training, cross_entropy, evaluate, mae, mse

Array = NDArray[Any]
fit = partial(fr.fit, progress=False, seed=0)
RNG = np.random.default_rng(0)


class Gradients(Callback):
    """Collect the gradient of each step, of a model that does not move."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Array]] = []

    def on_train_begin(self, training: Training) -> None:
        grads = training.model.grads
        training.optimizer.constraints.append(lambda: self.steps.append({k: g.copy() for k, g in grads.items()}))

    def mean(self) -> dict[str, Array]:
        return {name: np.mean([step[name] for step in self.steps], axis=0) for name in self.steps[0]}


def gradient(model: fr.Layer, *data: Any, **arguments: Any) -> tuple[dict[str, Array], float]:
    """Return the mean gradient of the steps of one epoch without motion, and the loss."""
    collected = Gradients()
    history = fit(model, *data, epochs=1, optimizer=lambda m: fr.SGD(m, lr=0.0), callbacks=collected, **arguments)
    return collected.mean(), history["loss"][0]


def assert_alike(first: dict[str, Array], second: dict[str, Array], tolerance: float = 1e-14) -> None:
    for name, array in first.items():
        assert np.max(np.abs(array - second[name])) <= tolerance, name


# ------------------------------------------------------------------------------------------------------ class weights


@pytest.mark.parametrize("batch_size", [200, 16, 8, 2, 1])
@pytest.mark.parametrize("as_array", [False, True])
def test_balanced_classes_count_alike_at_every_batch_size(batch_size: int, as_array: bool) -> None:
    """Without information in x, balanced classes are equally likely; a batch's own sum of weights would undo that."""
    x, y = np.zeros((200, 3, 1)), np.zeros(200, int)
    y[:10] = 1
    model = fr.models.SequenceToVector(fr.GRU(1, 4, seed=0), 2, seed=1)
    epochs = 200 if batch_size == 200 else 60
    fit(
        model,
        x,
        y,
        loss="cross_entropy",
        class_weight=[200 / 380, 10.0] if as_array else "balanced",
        optimizer=lambda m: fr.Adam(m, lr=3e-2 if batch_size > 2 else 3e-3),
        callbacks=fr.LearningRate(fr.training.schedules.cosine(3e-2 if batch_size > 2 else 3e-3, epochs)),
        epochs=epochs,
        batch_size=batch_size,
    )
    assert abs(softmax(model(x[:1]))[0, 1] - 0.5) <= 0.03


def test_the_gradient_of_class_weights_is_a_sum_over_the_number_of_labels() -> None:
    x, y = RNG.standard_normal((12, 2)), RNG.integers(0, 3, 12)
    weight = np.array([0.5, 3.0, 1.25])
    model = fr.Linear(2, 3, dtype="float64", seed=1)
    expected = (softmax(model(x)) - np.eye(3)[y]) * weight[y, None] / 12
    for size in (12, 4, 3, 1):
        found, loss = gradient(model, x, y, loss="cross_entropy", class_weight=weight, batch_size=size)
        assert np.max(np.abs(found["bias"] - expected.sum(axis=0))) <= 1e-15
        assert abs(loss - cross_entropy(model(x), y, weight=weight)[0]) <= 1e-15


# ------------------------------------------------------------------------------------------------- losses and batches


def two_words() -> tuple[fr.Linear, Any, Any]:
    """Two samples, of which the second has one label only; the loss of all labels is 1.35148."""
    model = fr.Linear(1, 2, bias=False, dtype="float64")
    model.params["weight"][...] = [[1.0], [-1.0]]
    return model, [[[2.0], [2.0]], [[-2.0], [-2.0]]], [[0, 0], [0, -100]]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_loss_is_the_log_of_the_perplexity(batch_size: int) -> None:
    model, x, y = two_words()
    result = evaluate(model, x, y, loss="cross_entropy", batch_size=batch_size, metrics="perplexity")
    assert abs(result["loss"] - 1.351483) <= 1e-6 and abs(result["loss"] - math.log(result["perplexity"])) <= 1e-14
    history = fit(
        model,
        x,
        y,
        loss="cross_entropy",
        batch_size=batch_size,
        epochs=1,
        validation_data=(x, y),
        optimizer=lambda m: fr.SGD(m, lr=0.0),
    )
    assert history["loss"] == history["val_loss"] and abs(history["loss"][0] - result["loss"]) <= 1e-14


CUTS: dict[str, Any] = {
    "ignored": lambda labels, lengths: {"y": np.where(np.arange(9) < lengths[:, None], labels, -100)},
    "lengths": lambda labels, lengths: {"y": labels, "lengths": lengths},
    "sample weights": lambda labels, lengths: {
        "y": labels,
        "sample_weight": (np.arange(9) < lengths[:, None]).astype(float),
    },
}


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_each_label_counts_alike_whatever_its_batch(name: str, weighted: bool) -> None:
    """Samples of 1 to 9 labels: the mean over the steps is the gradient of one batch."""
    lengths = np.array([1, 9, 2, 8, 5, 3])
    x, labels = RNG.standard_normal((6, 9, 2)), RNG.integers(0, 3, (6, 9))
    given: dict[str, Any] = {"loss": "cross_entropy", **CUTS[name](labels, lengths)}
    if weighted:
        given["class_weight"] = "balanced"
    model = fr.Sequential(fr.GRU(2, 4, dtype="float64", seed=1), fr.Linear(4, 3, dtype="float64", seed=2))
    whole, loss = gradient(model, x, batch_size=6, **given)
    for size in (1, 2, 3):
        found, value = gradient(model, x, batch_size=size, **given)
        assert_alike(found, whole)
        assert abs(value - loss) <= 1e-14
    valid = np.arange(9) < lengths[:, None]
    pred = model(x, lengths if name == "lengths" else None)[valid]
    weight = fr.training.class_weights(labels[valid], 3) if weighted else None
    assert abs(loss - cross_entropy(pred, labels[valid], weight=weight)[0]) <= 1e-14


def test_one_and_99_labels_are_a_batch_of_100() -> None:
    x, y = RNG.standard_normal((2, 99, 3)), RNG.standard_normal((2, 99, 1))
    model = fr.Linear(3, 1, dtype="float64", seed=1)
    one, _ = gradient(model, x, y, lengths=[1, 99], batch_size=1)
    both, _ = gradient(model, x, y, lengths=[1, 99], batch_size=2)
    listed, _ = gradient(model, [x[0, :1], x[1]], [y[0, :1], y[1]], batch_size=1)
    source, _ = gradient(model, [([x[0, :1]], [y[0, :1]]), (x[1:], y[1:])], batch_size=9)
    for each in (one, listed, source):
        assert_alike(each, both)


def test_a_source_knows_its_labels_better_with_every_batch() -> None:
    """The first batch has 2 labels a sample, the second 8, of a loss that is the mean over labels."""
    model = fr.Linear(1, 1, dtype="float64", seed=1)

    def batches(epoch: int) -> Any:
        return [(np.ones((3, 2, 1)), np.zeros((3, 2, 1))), (np.ones((1, 8, 1)), np.zeros((1, 8, 1)))]

    collected = Gradients()
    fit(model, batches, epochs=1, batch_size=9, optimizer=lambda m: fr.SGD(m, lr=0.0), callbacks=collected)
    first, second = (step["bias"][0] for step in collected.steps)
    # Means over 2 * 3 labels, and over 1 sample of (2 * 3 + 8 * 1) / 4 labels.
    assert abs(second / first - 8 / 3.5) <= 1e-14


@pytest.mark.parametrize("with_weights", [False, True])
def test_accumulated_batches_are_one(with_weights: bool) -> None:
    x, y = [RNG.standard_normal((n, 2)) for n in (3, 1, 5, 2, 4, 2, 6)], None
    y = [sequence.cumsum(axis=0)[:, :1] for sequence in x]
    weights = [RNG.random(len(sequence)) for sequence in x] if with_weights else None
    results = []
    for size, accumulate in ((4, 1), (2, 2), (1, 4)):
        model = fr.models.SequenceToSequence(fr.LSTM(2, 3, dtype="float64", seed=1), 1, seed=2)
        history = fit(model, x, y, sample_weight=weights, epochs=2, batch_size=size, accumulate=accumulate)
        results.append((model.state_dict(), history["loss"]))
    for state, loss in results[1:]:
        assert_alike(state, results[0][0])
        assert np.allclose(loss, results[0][1], rtol=1e-14, atol=0)


def test_a_penalty_is_not_accumulated() -> None:
    model = fr.models.StackedAutoencoder((4, 2), sparsity=0.1)
    with pytest.raises(ValueError, match="fit: accumulate is 2, but StackedAutoencoder has a penalty"):
        fit(model, np.ones((4, 4)), np.ones((4, 4)), epochs=1, batch_size=2, accumulate=2)


# ------------------------------------------------------------------------------------------------------ sample weights


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "binary_cross_entropy", "cross_entropy"])
def test_a_sample_of_weight_2_is_two_and_of_weight_0_none(loss: str) -> None:
    x, often = RNG.standard_normal((5, 4, 2)), np.array([2, 0, 1, 3, 1])
    y: Any = RNG.integers(0, 3, (5, 4)) if loss == "cross_entropy" else RNG.random((5, 4, 3))
    model = fr.Linear(2, 3, dtype="float64", seed=1)
    repeated, value = gradient(model, np.repeat(x, often, axis=0), np.repeat(y, often, axis=0), loss=loss, batch_size=9)
    for weight in (often, np.repeat(often[:, None], 4, axis=1).astype("float32")):
        for size in (5, 1):
            found, weighted = gradient(model, x, y, loss=loss, sample_weight=weight, batch_size=size)
            assert_alike(found, repeated)
            assert abs(weighted - value) <= 1e-14
        measured = evaluate(model, x, y, loss=loss, sample_weight=weight, batch_size=2, metrics=_metric(loss))
        assert abs(measured["loss"] - value) <= 1e-14
    again = evaluate(model, np.repeat(x, often, axis=0), np.repeat(y, often, axis=0), metrics=_metric(loss), loss=loss)
    for name in again:
        assert abs(measured[name] - again[name]) <= 1e-14


def _metric(loss: str) -> list[str]:
    return ["accuracy", "perplexity"] if loss == "cross_entropy" else ["mae"]


def test_weights_of_ragged_steps_and_of_validation_data() -> None:
    lengths = (3, 1, 4)
    x = [RNG.standard_normal((n, 2)) for n in lengths]
    y = [RNG.standard_normal((n, 1)) for n in lengths]
    weights = [RNG.random(n) for n in lengths]
    model = fr.Linear(2, 1, dtype="float64", seed=1)
    flat, flat_y, flat_w = np.concatenate(x), np.concatenate(y), np.concatenate(weights)
    expected = float(np.average(((model(flat) - flat_y) ** 2)[:, 0], weights=flat_w))
    padded_w = np.zeros((3, 4))
    for row, weight in zip(padded_w, weights, strict=True):
        row[: len(weight)] = weight
    for data in ((x, y, None, weights), ([(x[:1], y[:1], None, weights[:1]), (x[1:], y[1:], None, weights[1:])])):
        history = fit(model, x, y, sample_weight=weights, epochs=1, batch_size=2, validation_data=data, **STILL)
        assert abs(history["loss"][0] - expected) <= 1e-14 and abs(history["val_loss"][0] - expected) <= 1e-14
    per_sample = evaluate(model, x, y, sample_weight=[2.0, 0.0, 1.0])["loss"]
    assert abs(per_sample - np.average(((model(flat) - flat_y) ** 2)[:, 0], weights=[2] * 3 + [0] + [1] * 4)) <= 1e-14
    source, _ = gradient(model, [(x, y, None, weights)], batch_size=9)
    assert_alike(source, gradient(model, x, y, sample_weight=weights, batch_size=3)[0])


STILL: dict[str, Any] = {"optimizer": lambda model: fr.SGD(model, lr=0.0)}


def own(pred: Array, target: Array, mask: Any = None) -> tuple[float, Array]:
    return mse(pred, target, mask)


def own_weighted(pred: Array, target: Array, mask: Any = None, sample_weight: Any = None) -> tuple[float, Array]:
    return mse(pred, target, mask, sample_weight=sample_weight)


def test_a_loss_of_ones_own_is_weighted_like_ours() -> None:
    x, y = RNG.standard_normal((4, 6, 2)), RNG.standard_normal((4, 6, 3))
    lengths, weight = [6, 1, 3, 2], RNG.random((4, 6))
    model = fr.Linear(2, 3, dtype="float64", seed=1)
    for loss, given in ((own, {}), (own_weighted, {}), (own_weighted, {"sample_weight": weight})):
        expected, value = gradient(model, x, y, lengths=lengths, batch_size=4, **given)
        for size in (4, 1):
            found, own_value = gradient(model, x, y, lengths=lengths, loss=loss, batch_size=size, **given)
            assert_alike(found, expected)
            assert abs(own_value - value) <= 1e-14


@pytest.mark.parametrize(
    ("weight", "error", "match"),
    [
        ([1.0, 2.0], ValueError, r"fit: sample_weight has shape \(2,\); expected \(samples,\) = \(3,\) or"),
        (np.ones((3, 5)), ValueError, r"sample_weight has shape \(3, 5\); .* or \(samples, time\) = \(3, 4\)"),
        ([-1.0, 1, 1], ValueError, "fit: sample_weight has elements that are negative or not finite"),
        ([math.nan, 1, 1], ValueError, "fit: sample_weight has elements that are negative or not finite"),
        (["a", "b", "c"], TypeError, "fit: sample_weight has dtype"),
        ([[1.0], [1.0, 2.0], [1.0]], ValueError, "fit: sample_weight is a list of sequences; expected"),
    ],
)
def test_wrong_sample_weights(weight: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        fit(fr.Linear(2, 1), np.ones((3, 4, 2)), np.ones((3, 4, 1)), sample_weight=weight, epochs=1, batch_size=2)


# ---------------------------------------------------------------------------------------------------------------- NaN


def regression() -> tuple[Array, Array]:
    return RNG.standard_normal((20, 5, 2)), RNG.standard_normal((20, 5, 1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x, y: x.__setitem__((13, 2, 0), math.nan), "x of sample 13 has NaN or infinity; clean the data;"),
        (lambda x, y: y.__setitem__((7, 0, 0), math.nan), "y of sample 7 has NaN .* or ignore_nan=True"),
        (lambda x, y: x.__setitem__((3, 1, 1), math.inf), "x of sample 3 has NaN or infinity"),
        (lambda x, y: y.__setitem__(slice(None), 1e200), "the data and the weights are finite, so the prediction"),
    ],
)
def test_the_first_loss_that_is_not_finite_ends_training(change: Any, match: str) -> None:
    x, y = regression()
    change(x, y)
    model = fr.models.SequenceToSequence(fr.GRU(2, 3, dtype="float64", seed=1), 1, seed=2)
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=rf"fit: the .* in epoch 1, .*{match}") as caught,
    ):
        fit(model, x, y, epochs=3, batch_size=4)
    assert all(np.isfinite(array).all() for array in model.params.values())
    assert caught.value.history.stopped == "the loss was not finite"  # type: ignore[attr-defined]
    with np.errstate(all="ignore"):
        history = fit(model, x, y, epochs=2, batch_size=4, check_finite=False)
    assert not np.isfinite(history["loss"]).all() and history.epochs == 2


def test_weights_that_are_not_finite_are_named() -> None:
    model = fr.Linear(2, 1, seed=1)
    model.params["weight"][0, 1] = math.inf
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="weight is not finite, so an earlier step"):
        fit(model, np.ones((3, 2)), np.ones((3, 1)), epochs=1, batch_size=2)


def test_validation_data_that_is_not_finite_is_named() -> None:
    x, y = regression()
    bad = x.copy()
    bad[4, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="in validation_data: x of sample 4 has NaN"):
        fit(fr.Linear(2, 1, seed=1), x, y, epochs=1, batch_size=4, validation_data=(bad, y))


def test_targets_that_are_nan_may_be_unknown() -> None:
    """As if these elements were masked, in the loss, the gradient, metrics and validation."""
    x, y = RNG.standard_normal((6, 5, 2)), RNG.standard_normal((6, 5, 2))
    unknown = RNG.random(y.shape) < 0.4
    y[unknown] = math.nan
    model = fr.Linear(2, 2, dtype="float64", seed=1)
    expected = float(np.mean((model(x) - y)[~unknown] ** 2))
    whole, loss = gradient(model, x, y, ignore_nan=True, batch_size=6)
    assert abs(loss - expected) <= 1e-14
    bias = (2 * np.where(unknown, 0, model(x) - np.where(unknown, 0, y))).sum(axis=(0, 1)) / np.count_nonzero(~unknown)
    assert np.max(np.abs(whole["bias"] - bias)) <= 1e-14
    for size in (1, 4):
        measured = evaluate(model, x, y, ignore_nan=True, metrics="mae", batch_size=size)
        assert abs(measured["loss"] - expected) <= 1e-14
        assert abs(measured["mae"] - mae(model(x)[~unknown], y[~unknown])[0]) <= 1e-14
    found, _ = gradient(model, x, y, ignore_nan=True, batch_size=2)
    assert_alike(found, whole)
    _, value = gradient(model, x, y, ignore_nan=True, lengths=[3, 5, 1, 4, 2, 5], batch_size=2)
    shown = ~unknown & (np.arange(5) < np.array([3, 5, 1, 4, 2, 5])[:, None])[..., None]
    assert abs(value - float(np.mean((model(x) - y)[shown] ** 2))) <= 1e-14


# ------------------------------------------------------------------------------------------------- losses of ones own


def without_mask(pred: Array, target: Array) -> tuple[float, Array]:
    return mse(pred, target)


def without_gradient(pred: Array, target: Array, mask: Any = None) -> float:
    return mse(pred, target, mask)[0]


def wrong_shape(pred: Array, target: Array, mask: Any = None) -> tuple[float, Array]:
    return 1.0, np.ones(3)


def one_argument(pred: Array) -> tuple[float, Array]:
    return 1.0, pred


@pytest.mark.parametrize(
    ("loss", "given", "error", "match"),
    [
        (
            without_mask,
            {"lengths": [1, 2, 3]},
            ValueError,
            "fit: loss without_mask takes no mask, .* expected with",
        ),
        (without_gradient, {}, TypeError, r"fit: loss without_gradient returned a float; expected \(value, d_pred\)"),
        (wrong_shape, {}, ValueError, r"fit: loss wrong_shape: d_pred has shape \(3,\); expected \(pred.shape\)"),
        (one_argument, {}, TypeError, "fit: loss one_argument takes 1 arguments; expected one_argument"),
        (own, {"sample_weight": [1, 1, 1]}, ValueError, "fit: loss own takes no sample_weight; expected own"),
    ],
)
def test_losses_of_ones_own_are_judged_before_the_first_step(
    loss: Any, given: dict[str, Any], error: type[Exception], match: str
) -> None:
    model = fr.Linear(2, 1, seed=1)
    before = model.state_dict()
    with pytest.raises(error, match=match):
        fit(model, np.ones((3, 4, 2)), np.ones((3, 4, 1)), loss=loss, epochs=1, batch_size=2, **given)
    assert all(np.array_equal(model.params[name], array) for name, array in before.items())


def test_a_loss_needs_no_mask_where_everything_counts() -> None:
    x, y = np.ones((3, 4, 2)), np.zeros((3, 4, 1))
    first, second = fr.Linear(2, 1, seed=1), fr.Linear(2, 1, seed=1)
    fit(first, x, y, loss=without_mask, epochs=1, batch_size=2)
    fit(second, x, y, loss=lambda pred, target, known: mse(pred, target, known), epochs=1, batch_size=2)
    assert np.array_equal(first.params["weight"], second.params["weight"])


def test_data_of_which_nothing_counts_are_an_error() -> None:
    """A loss of 0 would be the best one for whatever watches it."""
    x, y = np.random.default_rng(0).normal(size=(5, 3, 2)), np.zeros((5, 3), np.int64)
    nothing, options = np.full((5, 3), -100), {"epochs": 1, "batch_size": 2, "progress": False, "loss": "cross_entropy"}

    def model() -> fr.GRU:
        return fr.GRU(2, 3, seed=0)

    with pytest.raises(ValueError, match="fit: no label of y counts"):
        fr.fit(model(), x, nothing, **options)
    with pytest.raises(ValueError, match="fit: no label of y counts"):
        fr.fit(model(), x, y, sample_weight=np.zeros(5), **options)
    with pytest.raises(ValueError, match="fit: no label of y counts"):
        fr.fit(model(), x, np.full((5, 3, 3), np.nan), **{**options, "loss": "mse"}, ignore_nan=True)
    with pytest.raises(ValueError, match="fit: no label of validation_data counts"):
        fr.fit(model(), x, y, validation_data=(x, nothing), **options)
    with pytest.raises(ValueError, match="evaluate: no label of y counts"):
        fr.evaluate(model(), x, nothing, loss="cross_entropy")
    with pytest.raises(ValueError, match=r"class_weight is .*nor all 0"):
        fr.fit(model(), x, y, class_weight=[0, 0, 0], **options)
    batches = [[(x, nothing)], [(x, y)]]
    history = fr.fit(model(), lambda epoch: batches[epoch], **{**options, "epochs": 2})
    assert np.isnan(history["loss"][0]) and history["loss"][1] > 0
    assert history.best_epoch == 1


def test_an_error_says_why_a_loss_is_not_finite() -> None:
    """Labels that do not fit into their sample, and data beyond the range of float32."""
    rng, options = np.random.default_rng(1), {"epochs": 1, "batch_size": 3, "progress": False, "seed": 0}
    x = [rng.normal(size=(steps, 2)) for steps in (6, 4, 5)]
    y = [np.array(labels) for labels in ([1, 2], [1, 1, 2, 2], [3])]
    with pytest.raises(FloatingPointError, match=r"labels \[1, 1, 2, 2\] need 6 time steps.*their sample has 4"):
        fr.fit(fr.GRU(2, 4, seed=0), x, y, loss="ctc", **options)
    windows = np.full((3, 4, 2), 1e39)
    with (
        np.errstate(over="ignore"),
        pytest.raises(FloatingPointError, match=r"x has values beyond 3.4e\+38, the range"),
    ):
        fr.fit(fr.GRU(2, 4, seed=0), windows, np.zeros((3, 4, 4)), **options)
    with pytest.raises(ValueError, match=r"fit: y has shape \(3,\); expected a target for each time step"):
        fr.fit(fr.GRU(2, 4, seed=0), x, np.zeros(3, np.int64), loss="cross_entropy", **options)

    def nothing(pred: object, target: object, mask: object = None) -> None:
        return None

    with pytest.raises(TypeError, match="the value of metric nothing is None"):
        fr.fit(
            fr.GRU(2, 4, seed=0),
            x,
            [np.zeros(len(each), np.int64) for each in x],
            loss="cross_entropy",
            metrics=nothing,
            **options,
        )


@pytest.mark.parametrize("weights", [{0: 0, 1: 0.0}, {0: 0.0}, [0.0, 1.0], {0: 0.0, 1: 0.0}])
def test_classes_of_which_none_counts(weights: Any) -> None:
    """An error instead of a loss of NaN, whether all weights are 0 or those of the labels that there are."""
    x, y, options = np.ones((6, 2)), np.zeros(6, int), {"class_weight": weights, "epochs": 1, "batch_size": 4}
    with pytest.raises(ValueError, match=r"are not all 0|no label of y counts"):
        fr.fit(fr.Linear(2, 2), x, y, loss="cross_entropy", progress=False, **options)


def test_metrics_have_names_of_ones_own() -> None:
    x, y = np.zeros((6, 3, 2), "float32"), np.arange(6) % 2
    model = fr.models.SequenceToVector(fr.GRU(2, 3, seed=0), 2, seed=1)
    options: dict[str, Any] = {"loss": "cross_entropy", "epochs": 1, "batch_size": 3, "progress": False}
    metrics = {"share": "accuracy", "largest": lambda pred, target, mask=None: float(pred.max())}
    history = fr.fit(model, x, y, metrics=metrics, validation_data=(x, y), **options)
    assert {"share", "largest", "val_share", "val_largest"} <= history.keys()
    assert fr.training.evaluate(model, x, y, loss="cross_entropy", metrics=metrics).keys() == {
        "loss",
        "share",
        "largest",
    }
    with pytest.raises(ValueError, match=r"fit: metrics\['out'\] has 2 metrics, but the model has one output"):
        fr.fit(model, x, y, metrics={"out": ["accuracy", "perplexity"]}, **options)


@pytest.mark.parametrize(
    ("argument", "given", "meant"),
    [
        ("metrics", ["acc"], "accuracy"),
        ("metrics", "sparse_categorical_accuracy", "accuracy"),
        ("metrics", "mean_absolute_error", "mae"),
        ("loss", "sparse_categorical_crossentropy", "cross_entropy"),
        ("loss", "CrossEntropyLoss", "cross_entropy"),
        ("loss", "binary_crossentropy", "binary_cross_entropy"),
        ("loss", "BCEWithLogitsLoss", "binary_cross_entropy"),
        ("loss", "mean_squared_error", "mse"),
        ("loss", "SmoothL1Loss", "huber"),
        ("loss", "CTCLoss", "ctc"),
        ("optimizer", "Adam", "adam"),
        ("optimizer", "RMSProp", "rmsprop"),
    ],
)
def test_names_of_other_libraries_are_known(argument: str, given: Any, meant: str) -> None:
    x, y = np.zeros((6, 3, 2), "float32"), np.zeros((6, 3, 4), "float32")
    with pytest.raises(ValueError, match=rf"expected .*one of .* \(that is '{meant}' here\)$"):
        fr.fit(fr.GRU(2, 4), x, y, epochs=1, batch_size=3, **{argument: given})
    with pytest.raises(ValueError, match=r"expected .*one of [a-z, _]*$"):
        fr.fit(fr.GRU(2, 4), x, y, epochs=1, batch_size=3, **{argument: "quite another"})


def test_booleans_may_weigh_samples() -> None:
    rng = np.random.default_rng(0)
    x, y, chosen = rng.standard_normal((6, 3, 2)), rng.standard_normal((6, 3, 4)), np.arange(6) % 3 > 0
    model = fr.GRU(2, 4, dtype="float64", seed=0)
    expected = evaluate(model, x[chosen], y[chosen])["loss"]
    assert abs(evaluate(model, x, y, sample_weight=chosen)["loss"] - expected) <= 1e-15


def test_lists_of_lists_and_dictionaries_are_named() -> None:
    x, y = np.zeros((6, 3, 2)), np.zeros((6, 3, 4))
    options: dict[str, Any] = {"epochs": 1, "batch_size": 3, "progress": False}
    with pytest.raises(TypeError, match="fit: a metric is a list; expected a name or a function"):
        fr.fit(fr.GRU(2, 4), x, y, metrics=[["mae"]], **options)
    with pytest.raises(TypeError, match="fit: x is a dict; expected an array, or a tuple of the model's inputs"):
        fr.fit(fr.GRU(2, 4), {"x": x}, y, **options)
