"""What the estimators read: ragged sequences, texts, labels of any kind, weights; and what they refuse by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import fusedrnn as fr
from fusedrnn.data import Labels, Scaler, Vocabulary
from fusedrnn.sklearn import RecurrentClassifier, RecurrentRegressor, SequenceAutoencoderTransformer, load

SMALL: dict[str, Any] = {"hidden_size": 10, "random_state": 0}
RNG = np.random.default_rng(3)
RAGGED = [RNG.normal(size=(steps, 2)) for steps in RNG.integers(1, 15, 60)]
SUMS = np.array([each[:, 0].sum() for each in RAGGED])
TEXTS = ["what a good film", "so good", "bad, bad, bad", "what a bad film"] * 8
OPINIONS = ["good", "good", "bad", "bad"] * 8
SERIES = 40 + 7 * np.sin(np.arange(160) / 3)
WINDOWS, NEXT = sliding_window_view(SERIES, 13)[:, :-1], SERIES[12:]


def as_lists(sequences: list[Any]) -> list[Any]:
    return [each.tolist() for each in sequences]


def as_objects(sequences: list[Any]) -> Any:
    objects = np.empty(len(sequences), object)
    objects[:] = sequences
    return objects


@pytest.mark.parametrize("form", [list, tuple, as_objects, pd.Series, as_lists])
def test_ragged_data_in_any_form(form: Any) -> None:
    """The same predictions to the bit, whatever holds the sequences and whichever are predicted together."""
    model = RecurrentRegressor(epochs=3, **SMALL).fit(form(RAGGED), SUMS)
    expected = RecurrentRegressor(epochs=3, **SMALL).fit(RAGGED, SUMS).predict(RAGGED)
    assert np.array_equal(model.predict(form(RAGGED)), expected)
    assert np.array_equal(model.predict(form(RAGGED[7:9])), expected[7:9])
    assert model.window_shape_ == (None, 2) and model.n_features_in_ == 2
    assert np.array_equal(model.predict(np.stack(RAGGED[4:5])), expected[4:5])


def test_the_padding_of_a_batch_is_no_data() -> None:
    """The model sees each sequence as it is, on the scale of the valid steps."""
    model = RecurrentRegressor(epochs=2, **SMALL).fit(RAGGED, SUMS)
    rows = np.concatenate(RAGGED)
    assert np.allclose(model.x_scaler_.mean, rows.mean(axis=0)) and np.allclose(model.x_scaler_.scale, rows.std(axis=0))
    alone = model.model_(model.x_scaler_.transform(RAGGED[3]).astype(np.float32)[np.newaxis])
    assert abs(model.predict(RAGGED)[3] - (alone[0, 0] * model.y_scaler_.scale + model.y_scaler_.mean)[0]) <= 1e-6


def test_ragged_data_in_searches_and_pipelines() -> None:
    scaled = FunctionTransformer(lambda x: [each / 2 for each in x])
    pipeline = make_pipeline(scaled, RecurrentRegressor(epochs=40, **SMALL))
    search = GridSearchCV(pipeline, {"recurrentregressor__cell": ["rnn", "gru"]}, cv=2).fit(RAGGED, SUMS)
    assert search.best_score_ >= 0.3 and search.predict(RAGGED[:3]).shape == (3,)
    scores = cross_val_score(RecurrentClassifier(epochs=20, **SMALL), as_objects(RAGGED), SUMS > 0, cv=2)
    assert scores.mean() >= 0.7


def test_folds_of_equal_length_are_no_special_case() -> None:
    """A fold whose sequences happen to be of one length predicts those of other lengths."""
    same = [np.ones((4, 2)), np.zeros((4, 2)), -np.ones((4, 2))]
    model = RecurrentRegressor(epochs=1, **SMALL).fit(same, [1, 2, 3])
    assert model.predict([np.ones((9, 2)), np.ones((1, 2))]).shape == (2,)
    with pytest.raises(ValueError, match="X has 3 features; expected 2, as in fit"):
        model.predict([np.ones((9, 3)), np.ones((1, 3))])


def test_an_autoencoder_of_ragged_data() -> None:
    series = [each[:, 0] for each in RAGGED]
    model = SequenceAutoencoderTransformer(3, epochs=2, dropout=0.1, **SMALL).fit(series)
    lengths = [len(each) for each in series]
    restored = model.inverse_transform(model.transform(series), lengths=lengths)
    assert [each.shape for each in restored] == [(length,) for length in lengths]
    assert model.reconstruction_error(series).shape == (60,)
    with pytest.raises(ValueError, match="lengths is None; expected the length of each sequence"):
        model.inverse_transform(model.transform(series))


@pytest.mark.parametrize("form", [list, np.array, pd.Series, pl.Series])
def test_texts(form: Any, tmp_path: Path) -> None:
    model = RecurrentClassifier("gru", epochs=15, **SMALL).fit(form(TEXTS), form(OPINIONS))
    assert model.predict(form(["good", "so bad", "GOOD unheard-of film"])).tolist() == ["good", "bad", "good"]
    assert "film" in model.vocabulary_ and model.score(TEXTS, OPINIONS) == 1
    model.save(tmp_path / "opinions")
    assert load(tmp_path / "opinions").predict(["so bad"]).tolist() == ["bad"]
    plain = fr.load(tmp_path / "opinions")  # without scikit-learn
    text, labels = plain.preprocessing["text"], plain.preprocessing["labels"]
    x, lengths = fr.pad_sequences(text.transform(["so bad", "what a good film"]))
    assert labels.inverse_transform(plain(x, lengths=lengths).argmax(axis=1)).tolist() == ["bad", "good"]
    with pytest.raises(ValueError, match="X has no texts; expected a list of str, as in fit"):
        model.predict(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([], "X is empty; expected at least one sample"),
        (["good"], "X has texts; expected windows or sequences of numbers, as in fit"),
        ("good", "X is a str; expected windows or sequences of numbers, as in fit"),
        (np.ones((5, 3)), r"X has 1 features; expected 3, as in fit; a single sequence is \[X\]"),
    ],
)
def test_what_is_no_list_of_sequences_is_named(x: Any, message: str) -> None:
    sequences = [np.random.default_rng(n).normal(size=(n, 3)) for n in (2, 3, 5, 4)]
    for model in (RecurrentClassifier(epochs=1, **SMALL), RecurrentRegressor(epochs=1, **SMALL)):
        with pytest.raises(ValueError, match=f"{type(model).__name__}: {message}"):
            model.fit(sequences, [0, 1, 1, 0]).predict(x)
    with pytest.raises(ValueError, match="y has 1 class, 'only'; expected"):
        RecurrentClassifier(epochs=1).fit(sequences, ["only"] * 4)


def test_a_table_of_texts_is_told_to_give_its_column() -> None:
    with pytest.raises(ValueError, match=r"X is a table; expected its column of texts, X\['said'\]"):
        RecurrentClassifier("gru", epochs=1, **SMALL).fit(pd.DataFrame({"said": TEXTS}), OPINIONS)


def test_texts_are_cut_as_is_wished() -> None:
    cut = [["so", "bad"], ["good"], [], ["bad"]] * 4
    opinions = RecurrentClassifier("gru", epochs=20, **SMALL).fit(cut, [0, 1, 1, 0] * 4)
    assert opinions.predict([["bad"], [], ["good", "?"]]).tolist() == [0, 1, 1] and opinions.predict([""]).tolist() == [
        1
    ]
    model = RecurrentRegressor(vocabulary=Vocabulary("character"), epochs=1, embedding_size=5, **SMALL)
    model.fit(["abc", "b"], [1.0, 2.0])
    assert model.vocabulary_.tokens == ["<unknown>", "b", "a", "c"] and model.model_.embedding.embedding_dim == 5
    assert model.vocabulary.tokens == []  # the argument has learnt nothing
    assert clone(model).vocabulary.unit == "character"


@pytest.mark.parametrize(
    "labels", [["no", "yes"], [False, True], [-1, 7], np.array(["b", "a"], object), pd.Categorical(["x", "y"])]
)
def test_labels_of_any_kind(labels: Any) -> None:
    y = np.asarray(labels)[(SUMS > 0).astype(int)]
    model = RecurrentClassifier(epochs=25, **SMALL).fit(RAGGED, y)
    predicted = model.predict(RAGGED)
    assert predicted.dtype == y.dtype and np.mean(predicted == y) >= 0.9 and set(model.classes_) == set(labels)


def test_several_outputs() -> None:
    y = np.stack((np.where(SUMS > 0, "up", "down"), np.where(np.arange(60) % 3 == 0, "a", "b")), axis=1)
    model = RecurrentClassifier(epochs=25, class_weight="balanced", **SMALL).fit(RAGGED, y)
    up, letter = model.predict_proba(RAGGED)
    assert up.shape == (60, 2) == letter.shape and np.max(np.abs(up.sum(axis=1) - 1)) <= 1e-12
    predicted = model.predict(RAGGED)
    assert np.mean(predicted[:, 0] == y[:, 0]) >= 0.9 and [list(each) for each in model.classes_] == [
        ["down", "up"],
        ["a", "b"],
    ]
    assert model.score(RAGGED, y) == np.mean((predicted == y).all(axis=1))
    with pytest.raises(ValueError, match="y has 3 outputs; expected 2"):
        model.partial_fit(RAGGED, y[:, [0, 1, 1]])
    assert model.fit(RAGGED, y[:, [0, 1, 1]]).predict(RAGGED[:2]).shape == (2, 3)
    column = pd.DataFrame({"up": y[:, 0]})
    one = RecurrentClassifier(epochs=1, **SMALL).fit(RAGGED, y[:, 0])
    assert one.score(RAGGED, column) == np.mean(one.predict(RAGGED) == y[:, 0])


def test_weights_of_samples() -> None:
    """Those of weight 0 have no influence, on the scale neither; the others count as often as they weigh."""
    x, y = np.zeros((60, 3)), np.r_[np.zeros(40), np.ones(20)]
    x[:5], weight = 1e6, np.r_[np.zeros(5), np.ones(35), np.full(20, 3.0)]
    model = RecurrentRegressor(epochs=60, batch_size=60, **SMALL).fit(x, y, sample_weight=weight)
    assert model.x_scaler_.mean.tolist() == [0] and model.x_scaler_.scale.tolist() == [1]
    assert abs(model.predict(np.zeros((1, 3)))[0] - 60 / 95) <= 0.02
    mean = model.score(x[5:], y[5:], sample_weight=weight[5:])
    assert abs(mean) <= 0.02  # a constant that is the weighted mean
    classes = RecurrentClassifier(epochs=60, batch_size=60, **SMALL).fit(x, y, sample_weight=weight)
    assert abs(classes.predict_proba(np.zeros((1, 3)))[0, 1] - 60 / 95) <= 0.03
    assert classes.score(x, y, sample_weight=weight) == pytest.approx(60 / 95)


def test_no_weights_at_all() -> None:
    for estimator in (RecurrentRegressor(), RecurrentClassifier()):
        with pytest.raises(ValueError, match=r"sample_weight is 0 for all samples|Sample weights must contain"):
            estimator.fit(RAGGED, SUMS > 0, sample_weight=np.zeros(60))


def test_validation_takes_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    from fusedrnn.sklearn import estimator

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.update(kwargs)
        return fr.fit(*args, **kwargs)

    monkeypatch.setattr(estimator, "fit", watched)
    model = RecurrentRegressor(epochs=1, validation_fraction=0.5, **SMALL)
    model.fit(RAGGED, SUMS, sample_weight=np.arange(60))
    held = seen["validation_data"][3]
    assert sorted([*held, *seen["sample_weight"]]) == list(range(60)) and len(held) == 30


def test_partial_fit_goes_on() -> None:
    """Epoch after epoch, with the scale and the classes of the first call and the moments of the optimizer."""
    model = RecurrentRegressor("gru", learning_rate=0.02, **SMALL)
    losses = [model.partial_fit(RAGGED, SUMS).history_["loss"][0] for _ in range(40)]
    assert losses[-1] <= 0.3 * losses[0] and model._optimizer.steps == 40 * 2
    mean = model.x_scaler_.mean.copy()
    model.partial_fit([100 + each for each in RAGGED], SUMS)
    assert np.array_equal(model.x_scaler_.mean, mean)
    classes = RecurrentClassifier(**SMALL).partial_fit(RAGGED[:3], ["a", "a", "a"], classes=["a", "b"])
    assert classes.partial_fit(RAGGED[:2], ["b", "b"]).classes_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="the label 'c'"):
        classes.partial_fit(RAGGED[:2], ["b", "c"])


def test_a_warm_start_goes_on() -> None:
    cold = RecurrentRegressor(epochs=4, **SMALL).fit(RAGGED, SUMS)
    warm = RecurrentRegressor(epochs=4, warm_start=True, **SMALL).fit(RAGGED, SUMS)
    assert np.array_equal(cold.predict(RAGGED), warm.predict(RAGGED))
    before = warm.history_["loss"][-1]
    assert warm.fit(RAGGED, SUMS).history_["loss"][0] <= before
    assert np.array_equal(
        cold.fit(RAGGED, SUMS).predict(RAGGED), RecurrentRegressor(epochs=4, **SMALL).fit(RAGGED, SUMS).predict(RAGGED)
    )


def test_dropout_is_before_the_head_of_one_layer() -> None:
    """One layer has nothing between; two have both."""
    for layers in (1, 2):
        model = RecurrentRegressor(num_layers=layers, dropout=0.4, epochs=1, **SMALL).fit(WINDOWS, NEXT).model_
        assert [type(each).__name__ for each in model.head] == ["Dropout", "Linear"] and model.head[0].p == 0.4
        assert model.layer.dropout == (0.4 if layers == 2 else 0)


def test_windows_of_a_series_are_validated_by_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a gap of one window, so that no sample to learn from shows the targets of those."""
    from fusedrnn.sklearn import estimator

    seen: list[Any] = []

    def watched(model: Any, x: Any, y: Any, **kwargs: Any) -> Any:
        seen.append((len(x), len(kwargs["validation_data"][0]), kwargs["validation_data"][1][-1], y[-1]))
        return fr.fit(model, x, y, **kwargs)

    monkeypatch.setattr(estimator, "fit", watched)
    options: dict[str, Any] = {"epochs": 1, "validation_fraction": 0.25, "standardize": False, **SMALL}
    RecurrentRegressor(**options).fit(WINDOWS, NEXT)
    held = len(WINDOWS) // 4
    learnt, judged, last, last_learnt = seen[-1]
    assert (learnt, judged) == (len(WINDOWS) - held - 12, held)
    assert last == np.float32(NEXT[-1]) and last_learnt == np.float32(NEXT[len(WINDOWS) - held - 13])
    RecurrentRegressor(**options).fit(WINDOWS[::4], NEXT[::4])  # a window in four: three of them are a gap
    assert seen[-1][:2] == (37 - 9 - 3, 9)
    RecurrentRegressor(validation="random", **options).fit(WINDOWS, NEXT)
    assert seen[-1][:2] == (len(WINDOWS) - held, held) and seen[-1][2] != np.float32(NEXT[-1])
    RecurrentRegressor(**options).fit(RNG.permutation(WINDOWS), NEXT)  # in no order: at random
    assert seen[-1][:2] == (len(WINDOWS) - held, held)
    with pytest.raises(ValueError, match="and 12 before them overlap with them; expected samples that are left"):
        RecurrentRegressor(epochs=1, validation_fraction=0.9, **SMALL).fit(WINDOWS[:60], NEXT[:60])
    with pytest.raises(ValueError, match=r"validation_fraction is 0\.001, none of 148 samples"):
        RecurrentRegressor(epochs=1, validation_fraction=0.001, **SMALL).fit(WINDOWS, NEXT)


def test_no_forecast_behind_a_scaler() -> None:
    """The scaler scales windows but not y, so that a forecast would be put back on another scale."""
    behind = make_pipeline(StandardScaler(), RecurrentRegressor(epochs=1, **SMALL)).fit(WINDOWS, NEXT)
    for call in (lambda: behind[-1].forecast(5), lambda: behind[-1].forecast(5, WINDOWS[:2])):
        with pytest.raises(ValueError, match="forecast needs windows in fit that continue each other, with y what"):
            call()
    inside = RecurrentRegressor(epochs=60, **SMALL).fit(WINDOWS, NEXT)
    assert np.max(np.abs(inside.forecast(5) - (40 + 7 * np.sin(np.arange(160, 165) / 3)))) <= 1.5


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (RNG.permutation(WINDOWS), NEXT),
        (WINDOWS, NEXT[::-1]),
        (WINDOWS, RNG.permutation(NEXT)),
        (WINDOWS - WINDOWS.mean(axis=1, keepdims=True), NEXT),
        (RNG.normal(size=(50, 6)), RNG.normal(size=50)),
        (WINDOWS[:1], NEXT[:1]),
    ],
)
def test_no_forecast_of_what_is_no_series(x: Any, y: Any) -> None:
    with pytest.raises(ValueError, match="continue each other"):
        RecurrentRegressor(epochs=1, **SMALL).fit(x, y).forecast(3)


def test_forecasts_of_several_series_and_strides() -> None:
    two = np.concatenate((WINDOWS[:70], 1 - WINDOWS[70:]))
    following = np.r_[NEXT[:70], 1 - NEXT[70:]]
    model = RecurrentRegressor(epochs=1, **SMALL).fit(two, following)  # one seam between two series
    assert model.forecast(3).shape == (3,)
    model = RecurrentRegressor(epochs=1, **SMALL).fit(WINDOWS[::3].astype(np.float32), NEXT[::3])
    assert model.forecast(3).shape == (3,)
    with pytest.raises(ValueError, match="X was a list"):
        RecurrentRegressor(epochs=1, **SMALL).fit(RAGGED, SUMS).forecast(3)


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(RNG.normal(size=(40, 3)), columns=["wind", "rain", "sun"]),
        pd.DataFrame(RNG.normal(size=(40, 3)), columns=["x1", "x2", "y1"]),
        pd.DataFrame(RNG.normal(size=(40, 3)), index=pd.date_range("2020", periods=40)),
        pl.DataFrame(RNG.normal(size=(40, 3)), schema=["wind", "rain", "sun"]),
    ],
)
def test_a_table_is_no_windows(table: Any) -> None:
    """Its columns were read as time steps of one quantity, silently."""
    for estimator in (RecurrentRegressor(), RecurrentClassifier(), SequenceAutoencoderTransformer()):
        with pytest.raises(ValueError, match="each row would be read as 3 time steps of one quantity"):
            estimator.fit(table, np.arange(40) % 2)
    RecurrentRegressor(epochs=1, **SMALL).fit(table.to_numpy(), np.arange(40))


@pytest.mark.parametrize("columns", [None, ["lag_3", "lag_2", "lag_1"], ["t-2", "t-1", "t0"]])
def test_a_table_of_windows(columns: Any) -> None:
    table = pd.DataFrame(WINDOWS[:, -3:], columns=columns)
    model = RecurrentRegressor(epochs=1, **SMALL).fit(table, NEXT)
    assert model.window_shape_ == (3,) and model.predict(table).shape == (148,) and model.forecast(2).shape == (2,)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([np.ones((3, 2)), np.ones((4, 3))], r"X\[1\] has 3 features; expected 2, as X\[0\]"),
        ([np.ones((3, 2)), np.full((4, 2), np.nan)], r"X\[1\] contains NaN or infinity"),
        ([np.ones((3, 2)), np.ones((4, 2, 2))], r"X\[1\] has shape \(4, 2, 2\)"),
        ([np.ones(3), np.ones(4), np.ones(5)], "inconsistent numbers of samples"),
    ],
)
def test_wrong_sequences(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentRegressor(epochs=1, **SMALL).fit(x, [1.0, 2.0])
    with pytest.raises(ValueError, match="y is None"):
        RecurrentRegressor(epochs=1, **SMALL).fit(RAGGED)


def test_predictions_are_made_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are small where samples are long, so that memory stays bounded; the bits are the same."""
    from fusedrnn.sklearn import reading

    model = RecurrentRegressor(epochs=1, **SMALL).fit(RAGGED, SUMS)
    whole, sizes = model.predict(RAGGED), []
    monkeypatch.setattr(reading, "_STEPS_TOGETHER", 40)
    original = type(model.model_).__call__
    monkeypatch.setattr(
        type(model.model_), "__call__", lambda m, x, **k: sizes.append(x.shape[:2]) or original(m, x, **k)
    )
    assert np.array_equal(model.predict(RAGGED), whole)
    assert len(sizes) > 5 and max(batch * steps for batch, steps in sizes) <= 40 and sum(b for b, _ in sizes) == 60


@pytest.mark.parametrize(
    "estimator",
    [
        RecurrentRegressor(epochs=2, **SMALL),
        RecurrentRegressor(epochs=2, standardize=False, dropout=0.1, num_layers=2, **SMALL),
        RecurrentClassifier(epochs=2, class_weight={3: 2.0, 9: 1.0}, **SMALL),
        SequenceAutoencoderTransformer(2, epochs=2, **SMALL),
    ],
    ids=["regressor", "plain regressor", "classifier", "autoencoder"],
)
def test_a_file_keeps_the_estimator(estimator: Any, tmp_path: Path) -> None:
    x, y = WINDOWS, np.where(NEXT > 40, 9, 3)
    estimator = clone(estimator).fit(x, y if isinstance(estimator, RecurrentClassifier) else NEXT)
    estimator.save(tmp_path / "file")
    loaded = load(tmp_path / "file")
    assert type(loaded) is type(estimator) and repr(loaded) == repr(estimator)
    for method in ("predict", "predict_proba", "transform", "score_samples"):
        if hasattr(estimator, method):
            assert np.array_equal(getattr(loaded, method)(x), getattr(estimator, method)(x)), method
    assert loaded.history_ == estimator.history_ and loaded.n_features_in_ == 12
    if isinstance(estimator, RecurrentRegressor):
        assert np.array_equal(loaded.forecast(4), estimator.forecast(4))
        loaded.partial_fit(x, NEXT)
    if isinstance(estimator, RecurrentClassifier):
        assert loaded.classes_.tolist() == [3, 9] and loaded.class_weight == {3: 2.0, 9: 1.0}
    kinds = {type(each) for each in fr.load(tmp_path / "file").preprocessing.values()}
    assert kinds <= {Scaler, Labels}
    with pytest.raises(ValueError, match=r"has no estimator; fusedrnn\.load reads a model"):
        estimator.model_.save(tmp_path / "model")
        load(tmp_path / "model")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"class": "Popen", "options": {}, "fitted": {}}, "KeyError: 'Popen'"),
        ({"class": "RecurrentRegressor", "options": {"shell": 1}, "fitted": {}}, r"TypeError: .*shell"),
        ({"class": "RecurrentRegressor", "options": {}, "fitted": {"__class__": 1}}, "unknown attribute '__class__'"),
        ({"class": "RecurrentRegressor", "options": {"cell": {"code": 1}}, "fitted": {}}, "unknown kind 'code'"),
        (
            {
                "class": "RecurrentRegressor",
                "options": {"cell": {"array": [], "dtype": "<U99999999", "shape": []}},
                "fitted": {},
            },
            "array of dtype '<U99999999'",
        ),
    ],
)
def test_a_file_of_an_estimator_is_not_trusted(spec: Any, message: str, tmp_path: Path) -> None:
    from fusedrnn.serialization import write

    write(fr.Linear(1, 1), tmp_path / "file", {"estimator": spec})
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "file")


def test_balanced_classes_take_a_weight_of_two_as_two_samples() -> None:
    """Their counts are those of the weights, as in fit; classes that come again must be the same."""
    rng = np.random.default_rng(4)
    x, y, weight = rng.normal(size=(30, 4, 2)), rng.integers(0, 3, 30), rng.integers(0, 3, 30)
    twice = np.repeat(np.arange(30), weight)
    options: dict[str, Any] = {"hidden_size": 3, "epochs": 4, "random_state": 0, "batch_size": 100}
    options |= {"class_weight": "balanced", "standardize": False, "clip_norm": None}
    for labels in (y, np.stack((y, y[::-1]), axis=1)):
        weighted = RecurrentClassifier(**options).fit(x, labels, weight.astype(float))
        repeated = RecurrentClassifier(**options).fit(x[twice], labels[twice])
        np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), rtol=0, atol=1e-5)
    model = RecurrentClassifier(hidden_size=3, random_state=0).partial_fit(x, y, classes=[0, 1, 2])
    model.partial_fit(x, y, classes=[2, 1, 0])
    with pytest.raises(ValueError, match=r"classes is .*; expected those of the first call"):
        model.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"class_weight is \{1: -1\}; expected weights >= 0"):
        RecurrentClassifier(class_weight={1: -1}).fit(x, y)


def test_a_model_that_goes_on_learning_keeps_its_form() -> None:
    """Another hidden_size was ignored in silence."""
    x, y = np.random.default_rng(5).normal(size=(9, 4)), np.arange(9.0)
    model = RecurrentRegressor(hidden_size=3, epochs=1, warm_start=True).fit(x, y)
    model.set_params(epochs=2).fit(x, y)
    with pytest.raises(ValueError, match="hidden_size is 5, but was 3 of the model that goes on learning"):
        model.set_params(hidden_size=5).fit(x, y)
    assert model.set_params(warm_start=False).fit(x, y).model_.layer.hidden_size == 5


def test_a_missing_text_and_an_empty_sequence() -> None:
    """The first is an error by its place, whatever a column calls it; the second leaves the state at zero."""
    for missing in (None, np.nan):
        for texts in (["good", missing, "bad"], pd.Series(["good", missing, "bad"])):
            with pytest.raises(ValueError, match=r"RecurrentClassifier: X\[1\] is .* among texts; expected a str"):
                RecurrentClassifier().fit(texts, [1, 0, 0])
    x = [np.ones((3, 2)), np.zeros((0, 2)), np.full((2, 2), 4.0)]
    model = RecurrentRegressor(hidden_size=3, epochs=2, random_state=0).fit(x, np.arange(3.0))
    assert np.isfinite(model.predict(x)).all()


def test_windows_of_another_length_are_named_as_such() -> None:
    x = np.random.default_rng(0).standard_normal((12, 6, 2))
    model = RecurrentClassifier(epochs=1, random_state=0).fit(x, np.arange(12) % 2)
    with pytest.raises(
        ValueError, match=r"X has shape \(12, 4, 2\); expected \(samples, 6, 2\), as in fit; sequences of any"
    ):
        model.predict(x[:, :4])
