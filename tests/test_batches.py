"""Bucketing, batches from a source, class weights and metrics over an epoch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.training import (
    BatchSource,
    RunningMetrics,
    accuracy,
    bucketed_order,
    class_weights,
    cross_entropy,
    mae,
    perplexity,
)

# ----------------------------------------------------------------------------------------------------------- bucketing


@pytest.mark.parametrize("samples", [0, 1, 7, 64, 131])
@pytest.mark.parametrize("window", [1, 3, 1000])
def test_every_sample_comes_once(samples: int, window: int) -> None:
    lengths = np.random.default_rng(0).integers(0, 30, samples)
    batches = bucketed_order(lengths, 8, np.random.default_rng(1), window=window)
    assert sorted(np.concatenate([*batches, np.zeros(0, int)])) == list(range(samples))
    assert len(batches) == -(-samples // 8) and all(len(batch) <= 8 for batch in batches)


def test_buckets_save_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 2000)

    def padding(batches: list[Any]) -> float:
        return float(sum(lengths[batch].max() * len(batch) for batch in batches) / lengths.sum() - 1)

    plain = padding(bucketed_order(lengths, 32, np.random.default_rng(1), window=1))
    assert plain >= 0.8 and padding(bucketed_order(lengths, 32, np.random.default_rng(1))) <= 0.05


def test_the_order_follows_from_the_generator() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 100)
    orders = [np.concatenate(bucketed_order(lengths, 8, np.random.default_rng(seed), window=4)) for seed in (3, 3, 4)]
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])
    largest = [lengths[batch].max() for batch in bucketed_order(lengths, 8, np.random.default_rng(0))]
    assert largest != sorted(largest)  # long batches do not all come last


def test_wrong_lengths_of_buckets() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"lengths has shape \(2, 2\)"):
        bucketed_order(np.ones((2, 2), int), 8, rng)
    with pytest.raises(TypeError, match="lengths has dtype float64"):
        bucketed_order(np.ones(2), 8, rng)
    with pytest.raises(ValueError, match="window is 0"):
        bucketed_order(np.ones(2, int), 8, rng, window=0)


# -------------------------------------------------------------------------------------------------------------- source


def test_a_list_starts_again_and_an_iterator_goes_on() -> None:
    pairs = [(k, -k) for k in range(5)]
    listed = BatchSource(pairs, steps=3)
    assert [list(listed.epoch(epoch)) for epoch in (0, 1)] == [pairs[:3], pairs[:3]]
    running = BatchSource(iter(pairs), steps=2)
    assert [list(running.epoch(epoch)) for epoch in (0, 1)] == [pairs[:2], pairs[2:4]]
    with pytest.raises(ValueError, match="ended after 1 batches of epoch 2; expected 2"):
        list(running.epoch(2))
    assert list(BatchSource(pairs).epoch(0)) == pairs
    made = BatchSource(lambda epoch: ((epoch, k, k) for k in range(epoch + 1)))
    assert [list(made.epoch(epoch)) for epoch in (0, 1)] == [[(0, 0, 0)], [(1, 0, 0), (1, 1, 1)]]


def test_wrong_sources() -> None:
    with pytest.raises(TypeError, match="source is an int; expected an iterable or a callable"):
        BatchSource(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the source gave a ndarray; expected \(x, y\), "):
        list(BatchSource([np.ones(2)]).epoch(0))  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"the source gave a NoneType; expected \(x, y\), "):
        list(BatchSource([(1, 2), None, (3, 4)]).epoch(0))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="ended after 0 batches"):
        list(BatchSource([]).epoch(0))
    with pytest.raises(ValueError, match=r"the source gave a ndarray; .* Without y, x is such a source"):
        fr.fit(fr.LSTM(2, 2), list(np.ones((4, 3, 2))), epochs=1, batch_size=2, progress=False)


# ------------------------------------------------------------------------------------------------- weights and metrics


def test_class_weights_make_classes_count_alike() -> None:
    labels = np.array([[0, 0, 2, -100], [0, 2, 0, 0]])
    weights = class_weights(labels, 4)
    assert np.array_equal(weights, [7 / 2 / 5, 1, 7 / 2 / 2, 1])
    valid = labels[labels != -100]
    assert len({float(weights[c] * np.count_nonzero(valid == c)) for c in (0, 2)}) == 1
    value, _ = cross_entropy(np.zeros((7, 4)), valid, weight=weights)
    assert abs(value - math.log(4)) <= 1e-15
    for wrong in ([-100], [], [4], [-1]):
        with pytest.raises(ValueError, match="class_weights: target has"):
            class_weights(np.array(wrong, int), 4)


def test_metrics_over_batches_are_those_of_one_batch() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 6, 5)), rng.integers(0, 5, (20, 6))
    labels[:4, 3:] = -100
    mask = np.arange(6) < rng.integers(0, 7, 20)[:, np.newaxis]
    running = RunningMetrics(["accuracy", "perplexity"])
    for part in np.split(np.arange(20), [3, 4, 11]):
        running.update(logits[part], labels[part], mask[part])
    values = running.values("val_")
    assert list(values) == ["val_accuracy", "val_perplexity"]
    assert abs(values["val_accuracy"] - accuracy(logits, labels, mask)) <= 1e-14
    assert abs(values["val_perplexity"] - perplexity(logits, labels, mask)) <= 1e-12


def test_metrics_of_regression_and_of_ones_own() -> None:
    rng = np.random.default_rng(0)
    pred, target = rng.normal(size=(9, 4, 2)), rng.normal(size=(9, 4, 2))

    def largest(pred: Any, target: Any, mask: Any = None) -> float:
        return 2.5

    running = RunningMetrics(["mae", largest])
    for part in np.split(np.arange(9), [2]):
        running.update(pred[part], target[part])
    assert abs(running.values()["mae"] - mae(pred, target)[0]) <= 1e-14 and running.values()["largest"] == 2.5
    assert RunningMetrics(["perplexity"]).values() == {"perplexity": 0.0}
    nothing = RunningMetrics(["accuracy"])
    nothing.update(np.ones((2, 3)), np.array([-100, -100]))
    assert nothing.values() == {"accuracy": 0.0}
    with pytest.raises(ValueError, match="metric is 'f1'"):
        RunningMetrics(["f1"])
    with pytest.raises(ValueError, match="metric 'mae' is given twice"):
        RunningMetrics(["mae", "mae"])


def test_accuracy_of_two_classes_by_one_logit() -> None:
    """As binary_cross_entropy takes them."""
    pred, target = np.array([[0.3], [-2.0], [4.0], [-0.1]]), np.array([[1.0], [1.0], [1.0], [0.0]])
    assert accuracy(pred, target) == accuracy(pred, target.astype(int)) == 0.75
    running = RunningMetrics(["accuracy"])
    running.update(pred[:1], target[:1])
    running.update(pred[1:], target[1:])
    assert running.values() == {"accuracy": 0.75}
    steps, mask = np.stack((pred, -pred), axis=1), np.array([[True, False]] * 3 + [[False, False]])
    assert accuracy(steps, np.ones((4, 2, 1)), mask) == 2 / 3
    assert accuracy(pred[:0], target[:0]) == 0.0
