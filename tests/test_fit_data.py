"""Data as ``fit`` takes it: padded a batch at a time, judged at the start, cut so that little is padding."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.models import SequenceToVector
from fusedrnn.training import evaluate, predict
from fusedrnn.training.batching import pieces
from scripts import run_python

Array = NDArray[Any]
fit = partial(fr.fit, progress=False, seed=0, epochs=1)
RNG = np.random.default_rng(0)


class Watched(fr.Linear):
    """Count the time steps that go through, padding included, and the calls."""

    def forward(self, x: Any) -> Any:
        self.__dict__.setdefault("shapes", []).append(x.shape[:2])
        return super().forward(x)


def steps(model: fr.Layer) -> int:
    return sum(batch * time for batch, time in model.__dict__["shapes"])


# ------------------------------------------------------------------------------------------------------------- padding


def test_one_long_sequence_does_not_inflate_the_others() -> None:
    """500 sequences of 20 to 199 steps and one of 20,000: 55,000 valid steps."""
    lengths = [*RNG.integers(20, 200, 500).tolist(), 20_000]
    x = [np.ones((n, 1), np.float32) for n in lengths]
    y = [np.ones((n, 1), np.float32) for n in lengths]
    valid = sum(lengths)
    for bucketed, share in ((True, 1.1), (False, 2.0)):
        model = Watched(1, 1)
        fit(model, x, y, batch_size=32, bucket_by_length=bucketed)
        assert valid <= steps(model) <= share * valid, bucketed


def test_pieces_of_a_batch_are_one_step() -> None:
    lengths = [*RNG.integers(5, 9, 30).tolist(), 3000]
    x = [RNG.standard_normal((n, 2)) for n in lengths]
    y = [RNG.standard_normal((n, 1)) for n in lengths]
    model, plain = Watched(2, 1, dtype="float64", seed=1), fr.Linear(2, 1, dtype="float64", seed=1)
    fit(model, x, y, batch_size=31, optimizer="sgd")
    assert len(model.__dict__["shapes"]) == 2
    flat_x, flat_y = np.concatenate(x), np.concatenate(y)
    fit(plain, flat_x, flat_y, batch_size=len(flat_x), optimizer="sgd")
    assert np.max(np.abs(model.params["weight"] - plain.params["weight"])) <= 1e-15


def test_memory_is_that_of_the_data_and_a_batch() -> None:
    """8,000 texts of 20 to 199 tokens and one of 200,000 are 8 MiB; padded together they were 12 GiB."""
    code = """
        import resource
        import numpy as np
        import fusedrnn as fr
        rng = np.random.default_rng(0)
        lengths = [*rng.integers(20, 200, 8000).tolist(), 200_000]
        x = [rng.integers(0, 50, n) for n in lengths]
        y = rng.integers(0, 2, len(x))
        model = fr.models.SequenceToVector(fr.GRU(2, 2, seed=0), 2, embedding=fr.Embedding(50, 2, seed=1), seed=2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fr.fit(model, x, y, loss="cross_entropy", epochs=1, batch_size=64, bucket_by_length=True, progress=False)
        fr.training.evaluate(model, x, y, loss="cross_entropy", batch_size=64)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    assert int(run_python(code).stdout) <= 400 << 10  # KiB; the 200,000 steps alone take 140 MiB with their tape


def test_pieces_hold_every_sample_once() -> None:
    for _ in range(50):
        lengths = [RNG.integers(0, 10 ** RNG.integers(1, 5), 40) for _ in range(int(RNG.integers(1, 3)))]
        chosen = RNG.permutation(40)[: int(RNG.integers(1, 40))]
        cut = pieces(lengths, chosen, 0.05)
        assert sorted(np.concatenate(cut)) == sorted(chosen)
        padded = sum(len(piece) * sum(int(each[piece].max()) for each in lengths) for piece in cut)
        assert padded <= len(chosen) * sum(int(each[chosen].max()) for each in lengths)


# ---------------------------------------------------------------------------------------------------------- half padded


def test_half_padded_data_is_refused_at_the_start() -> None:
    """Whether such a batch fits would depend on which samples meet in it."""
    lengths = (3, 1, 4, 2)
    lists = [RNG.standard_normal((n, 2)) for n in lengths]
    padded = np.zeros((4, 4, 2))
    labels, padded_labels = [np.zeros(n, int) for n in lengths], np.zeros((4, 4), int)
    tokens = [np.zeros(n, int) for n in lengths]
    cases: list[tuple[Any, Any, str, str]] = [
        (lists, padded, "mse", r"x is a list of sequences of unequal length and y an array of shape \(4, 4, 2\)"),
        (padded, lists, "mse", r"y is a list of sequences of unequal length and x an array of shape \(4, 4, 2\)"),
        (lists, padded_labels, "cross_entropy", r"x is a list .* and y an array of shape \(4, 4\); expected both as"),
        (padded, labels, "cross_entropy", "y is a list .* and x an array"),
        (padded_labels, tokens, "cross_entropy", "y is a list .* and x an array"),
    ]
    for x, y, loss, match in cases:
        for batch_size in (1, 2, 4):
            model = fr.Sequential(fr.Linear(2, 2, seed=1))
            before = model.state_dict()
            with pytest.raises(ValueError, match=f"fit: {match}"):
                fit(model, x, y, loss=loss, batch_size=batch_size)
            with pytest.raises(ValueError, match=f"fit: validation_data: {match}"):
                fit(model, np.ones((2, 2)), np.ones((2, 2)), validation_data=(x, y), loss=loss, batch_size=batch_size)
            assert all(np.array_equal(model.params[name], array) for name, array in before.items())


def test_vectors_of_ragged_sequences_are_no_half_padded_data() -> None:
    x = [RNG.standard_normal((n, 2)) for n in (3, 1, 4, 2)]
    model = fr.models.SequenceToVector(fr.GRU(2, 3, seed=1), 4, seed=2)
    history = fit(model, x, RNG.standard_normal((4, 4)), batch_size=2)
    assert history.epochs == 1


# -------------------------------------------------------------------------------------------------------- kinds of data


def objects(items: list[Any]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def test_arrays_of_objects_are_lists() -> None:
    x = [RNG.standard_normal((n, 2)) for n in (3, 1, 4)]
    y = [sequence[:, :1] for sequence in x]
    models = [fr.Linear(2, 1, seed=1) for _ in range(2)]
    fit(models[0], x, y, batch_size=2)
    fit(models[1], objects(x), objects(y), batch_size=2)
    assert np.array_equal(models[0].params["weight"], models[1].params["weight"])
    labels = objects([1, 0, 1])
    fit(fr.Linear(2, 2), np.ones((3, 2)), labels, loss="cross_entropy", batch_size=2)
    with pytest.raises(TypeError, match=r"fit: x is an array of objects of shape \(3, 2\); expected numbers"):
        fit(fr.Linear(2, 1), np.ones((3, 2)).astype(object), np.ones((3, 1)), batch_size=2)
    with pytest.raises(TypeError, match="fit: y has dtype"):
        fit(fr.Linear(2, 2), np.ones((2, 2)), objects(["a", "b"]), loss="cross_entropy", batch_size=2)


def test_booleans_are_targets() -> None:
    x, y = RNG.standard_normal((8, 2)), RNG.random((8, 1)) < 0.5
    losses = [
        fit(fr.Linear(2, 1, seed=1), x, target, loss="binary_cross_entropy", metrics="accuracy", batch_size=3)
        for target in (y, y.astype(float))
    ]
    assert losses[0]["loss"] == losses[1]["loss"] and losses[0]["accuracy"] == losses[1]["accuracy"]
    pred = fr.Linear(2, 1, seed=1)(x)
    bce = fr.training.binary_cross_entropy
    assert bce(pred, y)[0] == bce(pred, y.astype(float))[0] == bce(pred, y.tolist())[0]
    fit(fr.Linear(2, 2, seed=1), x, y[:, 0], loss="cross_entropy", batch_size=3)
    with pytest.raises(TypeError, match="fit: x has dtype bool"):
        fit(fr.Linear(2, 1), np.ones((3, 2), bool), np.ones((3, 1)), batch_size=2)


# ------------------------------------------------------------------------------------------------------ validation data


def test_a_source_is_validation_data() -> None:
    x, y = RNG.standard_normal((9, 2)), RNG.standard_normal((9, 1))
    parts = [(x[:4], y[:4]), (x[4:], y[4:])]
    results = []
    for data in ((x, y), [x, y], parts, lambda epoch: iter(parts), tuple_of(parts)):
        model = fr.Linear(2, 1, dtype="float64", seed=1)
        history = fit(model, x, y, epochs=2, batch_size=4, validation_data=data, metrics="mae")
        results.append((history["val_loss"], history["val_mae"]))
        assert abs(history["val_loss"][1] - np.mean((model(x) - y) ** 2)) <= 1e-14
    assert np.allclose(results, results[0], rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match="fit: validation_data is an iterator, which cannot start again"):
        fit(fr.Linear(2, 1), x, y, batch_size=4, validation_data=iter(parts))
    with pytest.raises(ValueError, match="fit: validation_data: x has 4 and y has 5 samples"):
        fit(fr.Linear(2, 1), x, y, batch_size=4, validation_data=[(x[:4], y[:5])])


def tuple_of(parts: list[Any]) -> Any:
    """Return an iterable that is neither a list nor a function."""

    class Loader:
        def __iter__(self) -> Any:
            return iter(parts)

    return Loader()


@pytest.mark.parametrize("where", ["random", "last"])
def test_a_share_of_the_samples_is_held_out(where: str) -> None:
    x = np.arange(10.0)[:, None]
    y = np.where(x >= 7, 100.0, 0.0)  # the last three
    model = fr.Linear(1, 1, bias=False, dtype="float64", seed=1)
    model.params["weight"][...] = 0
    history = fit(
        *(model, x, y), validation_data=0.3, validation=where, batch_size=3, optimizer=lambda m: fr.SGD(m, lr=0.0)
    )
    if where == "last":
        assert history["val_loss"] == [1e4] and history["loss"] == [0.0]
    else:
        assert abs(history["val_loss"][0] * 3 + history["loss"][0] * 7 - 3e4) <= 1e-9
        assert fit(model, x, y, validation_data=0.3, batch_size=3, optimizer=lambda m: fr.SGD(m, lr=0.0)) != {}
    for share in (0.01, 0.99):
        with pytest.raises(ValueError, match="expected at least one on either side"):
            fit(model, x, y, validation_data=share, batch_size=3)
    with pytest.raises(ValueError, match="fit: validation is 'first'; expected 'random' or 'last'"):
        fit(model, x, y, validation_data=0.3, validation="first", batch_size=3)
    with pytest.raises(ValueError, match="fit: validation_data is a share with a source"):
        fit(model, [(x, y)], validation_data=0.3, batch_size=3)


# -------------------------------------------------------------------------------------------------- models and inputs


def test_inputs_are_counted_before_the_first_step() -> None:
    model = fr.models.EncoderDecoder(fr.GRU(2, 3, seed=1), fr.GRU(2, 3, seed=2), 2, seed=3)
    x, y = np.ones((2, 4, 2)), np.ones((2, 4, 2))
    for data in ((x, y), ([(x, y)],), ([x, y[:, :3]], y), ([x, y], y)):
        with pytest.raises(ValueError, match=r"fit: x is one input, but EncoderDecoder reads source, inputs; exp"):
            fit(model, *data, batch_size=2)
    with pytest.raises(ValueError, match="evaluate: x is one input, but EncoderDecoder reads source, inputs"):
        evaluate(model, x, y)
    with pytest.raises(ValueError, match="predict: x is one input, but EncoderDecoder reads source, inputs"):
        predict(model, x)
    for judge in (evaluate, lambda model, x, y: predict(model, x)):
        with pytest.raises(ValueError, match=r"x is one input, but .*; expected a tuple \(source, inputs\)"):
            judge(model, [x, y[:, :3]], y)
    with pytest.raises(ValueError, match="fit: x is a tuple of 2, but Linear reads x; expected one array, x"):
        fit(fr.Linear(2, 1), (x, x), y, batch_size=2)


# -------------------------------------------------------------------------------------------------------------- predict


def test_predictions_in_batches_are_those_of_one_call() -> None:
    x = [RNG.standard_normal((n, 2)) for n in (3, 1, 6, 0, 4)]
    tagger = fr.models.SequenceToSequence(fr.GRU(2, 3, seed=1), 4, seed=2)
    padded, lengths = fr.pad_sequences(x)
    whole = tagger(padded, lengths)
    for size in (1, 2, 9):
        found = predict(tagger, x, batch_size=size)
        assert isinstance(found, list) and [len(row) for row in found] == [3, 1, 6, 0, 4]
        assert all(np.array_equal(row, whole[i, : len(row)]) for i, row in enumerate(found))
        assert np.array_equal(predict(tagger, padded, lengths=lengths, batch_size=size), whole)
    vector = fr.models.SequenceToVector(fr.GRU(2, 3, seed=1), 4, seed=2)
    assert np.array_equal(predict(vector, x, batch_size=2), vector(padded, lengths))
    layer = fr.LSTM(2, 3, seed=1)
    assert np.array_equal(predict(layer, padded, batch_size=2), layer(padded)[0])
    with pytest.raises(TypeError, match="predict: model is an int; expected a Layer"):
        predict(3, x)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("loss", "outputs", "y", "match"),
    [
        ("cross_entropy", 2, np.eye(2)[[0, 1, 0, 1]], r"the shape of pred, \(4, 2\); .*: target\.argmax\(axis=-1\)"),
        ("cross_entropy", 2, np.array([0.0, 1, 0, 1]), r"target has dtype float64; .*: target\.astype\(int\)"),
        ("cross_entropy", 2, np.array([[0], [1], [0], [1]]), r"shape \(4, 1\); .* = \(4,\): target\[\.\.\., 0\]"),
        ("cross_entropy", 2, np.array(["a", "b", "a", "b"]), "y has dtype <U1; .*: fusedrnn.data.Labels turns labels"),
        ("mse", 1, np.zeros(4), r"shape \(4,\); expected \(pred.shape\) = \(4, 1\): target\[\.\.\., None\]"),
        ("binary_cross_entropy", 1, np.zeros(4, bool), r"target\[\.\.\., None\]"),
        ("mse", 2, np.zeros((4, 3)), r"shape \(4, 3\); expected \(pred.shape\) = \(4, 2\)$"),
    ],
)
def test_errors_know_the_usual_mistakes_with_targets(loss: str, outputs: int, y: Any, match: str) -> None:
    model = SequenceToVector(fr.GRU(2, 3, seed=0), outputs, seed=1)
    for metrics in ((), "accuracy"):
        with pytest.raises((ValueError, TypeError), match=match):
            fr.fit(model, np.ones((4, 5, 2)), y, loss=loss, metrics=metrics, epochs=1, batch_size=4, progress=False)


@pytest.mark.parametrize(
    ("loss", "outputs", "y", "hint"),
    [
        ("cross_entropy", 2, np.zeros(4, int), True),
        ("mse", 1, np.zeros(4), True),
        ("mse", 3, np.zeros((4, 3)), True),
        ("mse", 3, np.zeros((4, 2)), False),
    ],
)
def test_one_target_for_a_model_that_predicts_at_each_step(loss: str, outputs: int, y: Any, hint: bool) -> None:
    model = fr.Sequential(fr.GRU(2, 3, seed=0), fr.Linear(3, outputs, seed=1))
    with pytest.raises(ValueError, match="target has shape") as error:
        fr.fit(model, np.ones((4, 5, 2)), y, loss=loss, epochs=1, batch_size=4, progress=False)
    assert str(error.value).endswith("for one target a sequence make it a SequenceToVector") == hint
