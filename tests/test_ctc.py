"""Connectionist temporal classification: against its definition, against torch, and in training."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import differences
import fusedrnn as fr
from fusedrnn.layers.activation import softmax
from fusedrnn.models import SequenceToSequence
from fusedrnn.training import ctc, ctc_labels
from fusedrnn.training.data import make_samples
from fusedrnn.training.losses import connectionist

Array = NDArray[Any]


def by_definition(logits: Array, labels: list[int], blank: int = 0) -> float:
    """Return -log p(labels): the sum over all paths, written out."""
    shares, total = softmax(logits), 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        merged = [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]
        if merged == labels:
            total += math.prod(shares[t, symbol] for t, symbol in enumerate(path))
    return -math.log(total) if total else math.inf


def padded(labels: list[list[int]], size: int | None = None) -> Array:
    size = max(map(len, labels)) if size is None else size
    return np.array([[*row, *[-100] * (size - len(row))] for row in labels]).reshape(len(labels), size)


@pytest.mark.parametrize("blank", [0, 2])
def test_the_sum_over_all_paths(blank: int) -> None:
    rng = np.random.default_rng(0)
    names = [symbol for symbol in range(3) if symbol != blank]
    a, b = names
    labels = [[a], [a, b], [a, a], [], [b, a, b], [a, b]]
    lengths = [5, 4, 3, 2, 5, 2]
    pred = rng.standard_normal((6, 5, 3)) * 2
    mask = np.arange(5) < np.array(lengths)[:, None]
    expected = [by_definition(pred[i, :n], labels[i], blank) / max(1, len(labels[i])) for i, n in enumerate(lengths)]
    weight = rng.random(6)
    pred[~mask] = np.nan
    with np.errstate(invalid="ignore"):
        value, grad = ctc(pred, padded(labels), mask, blank=blank)
        weighted, _ = ctc(pred, padded(labels), mask, blank=blank, sample_weight=weight)
    assert abs(value - np.mean(expected)) <= 1e-14 and not grad[~mask].any()
    assert abs(weighted - np.average(expected, weights=weight)) <= 1e-14


def test_gradients_equal_central_differences() -> None:
    rng = np.random.default_rng(1)
    pred, target = rng.standard_normal((3, 6, 4)), padded([[1, 1, 2], [3], []])
    mask = np.arange(6) < np.array([6, 4, 3])[:, None]
    _, grad = ctc(pred, target, mask, sample_weight=[1.0, 2.0, 0.5])
    expected = differences.gradient(lambda: ctc(pred, target, mask, sample_weight=[1.0, 2.0, 0.5])[0], pred)
    assert np.max(np.abs(grad - expected)) <= 1e-8


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])
def test_equals_torchs(dtype: str, tolerance: float) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    for batch, steps, classes, most in ((1, 1, 2, 1), (4, 17, 5, 6), (7, 60, 29, 20), (3, 200, 3, 90)):
        lengths = rng.integers(2 * most + 1, steps + 1, batch) if steps > 2 * most else np.full(batch, steps)
        counts = rng.integers(0, most + 1, batch)
        labels = [rng.integers(1, classes, n).tolist() for n in counts]
        pred = (3 * rng.standard_normal((batch, steps, classes))).astype(dtype)
        leaf = torch.from_numpy(pred.astype("float64")).requires_grad_()
        truth = torch.nn.functional.ctc_loss(
            leaf.log_softmax(-1).transpose(0, 1),
            torch.tensor(list(itertools.chain(*labels)), dtype=torch.long),
            torch.from_numpy(lengths),
            torch.from_numpy(counts),
        )
        truth.backward()
        mask = np.arange(steps) < lengths[:, None]
        value, grad = ctc(pred, padded(labels, most), mask)
        assert isinstance(value, float) and grad.dtype == pred.dtype
        assert abs(value - truth.item()) <= tolerance * max(1, abs(truth.item()))
        assert np.max(np.abs(grad - leaf.grad.numpy() * mask[..., None])) <= tolerance


def test_labels_that_do_not_fit_are_infinitely_unlikely() -> None:
    pred = np.zeros((3, 2, 3))
    target = padded([[1, 1], [1, 2], [1, 2, 1]])
    value, grad = ctc(pred, target)
    assert value == math.inf and np.isfinite(grad).all() and not grad[[0, 2]].any() and grad[1].any()
    value, again = ctc(pred, target, zero_infinity=True)
    assert abs(value - math.log(9) / 2 / 3) <= 1e-15 and np.array_equal(grad, again)
    assert ctc(pred[:0], target[:0])[0] == 0 and ctc(np.zeros((1, 0, 2)), np.zeros((1, 0), int))[0] == 0


def test_extreme_logits() -> None:
    pred = np.full((1, 300, 4), -1e4)
    pred[0, np.arange(300), np.arange(300) % 4] = 1e4
    path = np.arange(300) % 4
    value, grad = ctc(pred, path[path != 0][None])
    assert value == 0 and not grad.any()
    value, grad = ctc(-pred, path[path != 0][None])
    assert math.isfinite(value) and np.isfinite(grad).all()


@pytest.mark.parametrize(
    ("pred", "target", "options", "match"),
    [
        (np.zeros((2, 3)), [[1]], {}, r"ctc: pred has shape \(2, 3\); expected \(batch, time, classes\)"),
        (np.zeros((2, 3, 2)), [[1]], {}, r"ctc: target has shape \(1, 1\); expected \(batch, labels\) = \(2, labels\)"),
        (np.zeros((1, 3, 2)), [[2]], {}, "ctc: target has 2; expected 0 <= class < 2, -100, and not the blank 0"),
        (np.zeros((1, 3, 2)), [[0]], {}, "ctc: target has 0; expected 0 <= class < 2, -100, and not the blank 0"),
        (np.zeros((1, 3, 2)), [[-100, 1]], {}, "ctc: target has -100 in front of a label"),
        (np.zeros((1, 3, 2)), [[1]], {"blank": 2}, "ctc: blank is 2; expected 0 <= blank < 2"),
        (np.zeros((1, 3, 2)), [[1]], {"mask": [[True, False, True]]}, "ctc: mask has a gap"),
    ],
)
def test_wrong_arguments(pred: Array, target: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ctc(pred, target, **options)


def test_ragged_labels_have_a_time_of_their_own() -> None:
    x, y = [np.ones((n, 2)) for n in (5, 3)], [np.array([1, 2]), np.array([1])]
    for given in (y, padded([[1, 2], [1]])):
        batch = make_samples(x, given, step_rank=0).batch(slice(None))
        assert batch.y.tolist() == [[1, 2], [1, -100]] and batch.y_lengths.tolist() == [5, 3]


def test_sequences_are_labelled_without_an_alignment() -> None:
    """Each label is two to four noisy steps of its class's vector, with pauses: the borders are not known."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4, 6))
    x, y = [], []
    for _ in range(160):
        labels = rng.integers(1, 4, rng.integers(1, 5))
        parts = [np.repeat(vectors[[label, 0]], [rng.integers(2, 5), rng.integers(1, 3)], axis=0) for label in labels]
        x.append(np.concatenate(parts) + 0.3 * rng.standard_normal((sum(map(len, parts)), 6)))
        y.append(labels)
    model = fr.models.SequenceToSequence(fr.GRU(6, 16, bidirectional=True, seed=1), 4, seed=2)
    history = fr.fit(
        *(model, x[:120], y[:120]),
        loss="ctc",
        optimizer=lambda m: fr.Adam(m, lr=1e-2),
        epochs=25,
        batch_size=12,
        validation_data=(x[120:], y[120:]),
        seed=0,
        progress=False,
    )
    assert history["val_loss"][-1] <= 0.1
    outputs, lengths = fr.pad_sequences(fr.predict(model, x[120:]))
    found = ctc_labels(outputs, lengths)
    assert np.mean([np.array_equal(a, b) for a, b in zip(found, y[120:], strict=True)]) >= 0.9


def test_the_loss_in_training_does_not_depend_on_the_batches() -> None:
    rng = np.random.default_rng(0)
    x, y = [rng.standard_normal((n, 3)) for n in (9, 5, 12, 7)], [rng.integers(1, 5, n) for n in (3, 1, 4, 2)]
    model, weight = fr.Linear(3, 5, dtype="float64", seed=1), [1.0, 2.0, 0.5, 0.0]
    values = [fr.evaluate(model, x, y, loss="ctc", batch_size=size, sample_weight=weight)["loss"] for size in (1, 2, 4)]
    assert np.allclose(values, values[0], rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match="ctc_labels: pred has shape"):
        ctc_labels(np.zeros((2, 3)))


@pytest.mark.parametrize("none", [np.zeros((2, 0)), np.zeros((2, 0), np.int64), [[], []]])
def test_no_label_at_all_has_no_type(none: Any) -> None:
    """An empty list becomes an array of floats, which says nothing against it."""
    assert ctc(np.zeros((2, 3, 4)), none)[0] == pytest.approx(3 * np.log(4))


def test_samples_without_labels_among_others() -> None:
    x, model = np.zeros((3, 4, 2)), SequenceToSequence(fr.GRU(2, 4, seed=0), 3, seed=1)
    losses = [
        fr.fit(model, x, y, loss="ctc", optimizer=lambda m: fr.SGD(m, lr=0.0), epochs=1, batch_size=3, progress=False)
        for y in ([[1, 2], [], [1]], [np.array([1, 2]), np.zeros(0), np.array([1])])
    ]
    assert losses[0]["loss"] == losses[1]["loss"] and np.isfinite(losses[0]["loss"][0])


@pytest.mark.parametrize("spread", [1.0, 4.0, 30.0, 3000.0])
def test_what_probabilities_lose_is_found_by_their_logarithms(spread: float) -> None:
    """Of any spread of the logits: the values of the logarithms alone, which lose nothing."""
    rng, known = np.random.default_rng(5), []
    for steps in (1, 7, 8, 9, 40, 131):
        pred, counts = spread * rng.standard_normal((6, steps, 5)), rng.integers(0, (steps + 1) // 2 + 1, 6)
        labels = rng.integers(1, 5, (6, max(1, counts.max())))
        lengths = rng.integers(steps // 2, steps + 1, 6)
        log_p = pred - np.logaddexp.reduce(pred, axis=-1, keepdims=True)
        shares = np.exp(log_p)
        labels[np.arange(labels.shape[1]) >= counts[:, None]] = 0
        given = labels, counts, lengths, 0
        losses, expected = connectionist._alignments(shares, pred, *given)
        truth, share, _ = connectionist._aligned(connectionist._Logarithmic, log_p, *given)
        assert np.allclose(losses, truth, rtol=1e-11, atol=1e-11)
        assert np.max(np.abs(expected - share)) <= 1e-11
        known.append(connectionist._aligned(connectionist._Plain, shares, *given)[2])
    possible = np.isfinite(truth)
    assert known[-1][possible].all() if spread <= 4 else not np.concatenate(known).all()


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.filterwarnings("error")
def test_logits_that_are_not_finite_are_not_taken_for_impossible(zero_infinity: bool) -> None:
    """With zero_infinity a sample of NaN would otherwise not count, and nobody would know."""
    pred = np.random.default_rng(5).standard_normal((3, 40, 4))
    target = np.array([[1, 2], [3, 1], [2, 2]])
    clean, gradient = ctc(pred, target, np.arange(40) < np.array([[40], [20], [40]]))
    pred[1, 30] = np.nan  # past its end
    mask = np.arange(40) < np.array([[40], [20], [40]])
    value, found = ctc(pred, target, mask, zero_infinity=zero_infinity)
    assert value == clean
    assert np.array_equal(found, gradient)
    pred[1, 7, 2] = np.nan
    value, found = ctc(pred, target, mask, zero_infinity=zero_infinity)
    assert np.isnan(value)
    assert np.array_equal(found[[0, 2]], gradient[[0, 2]])
    assert np.isnan(found[1, :20]).all()
    assert not found[1, 20:].any()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"lengths": [3]}, "lengths"),
        ({"lengths": [3, 5]}, "lengths"),
        ({"lengths": [-1, 2]}, "lengths"),
        ({"lengths": np.broadcast_to(np.int64(1), (2, 2**40))}, "lengths"),
        ({"blank": 3}, "blank"),
        ({"blank": -1}, "blank"),
        ({"blank": None}, "blank"),
        ({"pred": np.zeros((2, 4))}, "pred"),
        ({"pred": np.zeros((2, 4, 0))}, "pred"),
        ({"pred": np.zeros((2, 4, 3), complex)}, "pred"),
        ({"pred": None}, "pred"),
    ],
)
def test_what_labels_cannot_be_read_from(given: dict[str, Any], name: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"ctc_labels: {name}"):
        ctc_labels(**({"pred": np.zeros((2, 4, 3))} | given))
