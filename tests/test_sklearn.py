"""The scikit-learn estimators: scikit-learn's own checks, and what they are for."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from fusedrnn.sklearn import RecurrentClassifier, RecurrentRegressor, SequenceAutoencoderTransformer

SMALL: dict[str, Any] = {"hidden_size": 12, "random_state": 0}
SERIES = 40 + 7 * np.sin(np.arange(160) / 3)
WINDOWS, NEXT = sliding_window_view(SERIES, 13)[:, :-1], SERIES[12:]


# Training draws samples into batches: one that counts twice is not twice there. (As of scikit-learn's own MLPs.)
UNEQUAL = "check_sample_weight_equivalence_on_dense_data"

CHECKS = [
    pytest.param(
        estimator, check, marks=[pytest.mark.xfail(reason="batches")] if check.func.__name__ == UNEQUAL else []
    )
    for each in (
        RecurrentRegressor(epochs=30, hidden_size=16, random_state=0),
        RecurrentClassifier(epochs=20, hidden_size=16, random_state=0),
        SequenceAutoencoderTransformer(3, epochs=2, hidden_size=8, random_state=0),
    )
    for estimator, check in estimator_checks_generator(each)
    if check.func.__name__ != "check_array_api_input"  # needs an environment variable before scipy is imported
]


@pytest.mark.parametrize(
    ("estimator", "check"), CHECKS, ids=lambda value: getattr(getattr(value, "func", value), "__name__", "").strip("_")
)
@pytest.mark.filterwarnings("ignore")
def test_the_conventions_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def waves(samples: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Slow and fast waves with two features, and their names."""
    rng = np.random.default_rng(1)
    labels = rng.choice(["slow", "fast"], samples, p=[0.7, 0.3])
    rate = np.where(labels == "slow", 0.3, 0.8)[:, np.newaxis]
    phase = np.arange(15) * rate + rng.uniform(0, 6, (samples, 1))
    return np.stack((np.sin(phase), 100 + 5 * np.cos(phase)), axis=2) + rng.normal(0, 0.1, (samples, 15, 2)), labels


@pytest.fixture(scope="module")
def regressor() -> RecurrentRegressor:
    return RecurrentRegressor(epochs=60, **SMALL).fit(WINDOWS, NEXT)


def test_a_forecast_continues_the_series(regressor: RecurrentRegressor) -> None:
    future = 40 + 7 * np.sin(np.arange(160, 180) / 3)
    forecast = regressor.forecast(20)
    assert forecast.shape == (20,)
    assert np.sqrt(np.mean((forecast - future) ** 2)) <= 0.3 * np.std(future)
    assert abs(forecast[0] - regressor.predict(SERIES[np.newaxis, -12:])[0]) <= 1e-5
    two = regressor.forecast(5, WINDOWS[:2])
    assert two.shape == (2, 5) and np.max(np.abs(two[:, 0] - regressor.predict(WINDOWS[:2]))) <= 1e-9


def test_forecasts_of_several_values_and_features() -> None:
    next_three = sliding_window_view(SERIES, 15)
    model = RecurrentRegressor(epochs=30, **SMALL).fit(next_three[:, :12], next_three[:, 12:])
    assert model.predict(WINDOWS[:4]).shape == (4, 3)
    forecast = model.forecast(7)
    assert forecast.shape == (7,)
    assert np.max(np.abs(forecast[:3] - model.predict(SERIES[np.newaxis, -12:])[0])) <= 1e-5
    assert np.max(np.abs(forecast[3:6] - model.predict(np.r_[SERIES[-9:], forecast[:3]][np.newaxis])[0])) <= 1e-4

    both = np.stack((SERIES, -SERIES / 7), axis=1)
    windows = sliding_window_view(both, 13, axis=0).swapaxes(1, 2)
    model = RecurrentRegressor(epochs=30, **SMALL).fit(windows[:, :-1], windows[:, -1])
    assert model.forecast(6).shape == (6, 2) and model.forecast(6, windows[:3, 1:]).shape == (3, 6, 2)
    with pytest.raises(ValueError, match="forecast needs y with the next values of all 2 features; it had 1"):
        RecurrentRegressor(epochs=1, **SMALL).fit(windows[:, :-1], windows[:, -1, 0]).forecast(3)


def test_classes_of_windows() -> None:
    x, labels = waves(160)
    model = RecurrentClassifier("gru", epochs=15, **SMALL).fit(x[:120], labels[:120])
    assert model.score(x[120:], labels[120:]) >= 0.95
    probabilities = model.predict_proba(x[120:])
    assert probabilities.shape == (40, 2) and np.max(np.abs(probabilities.sum(axis=1) - 1)) <= 1e-12
    assert list(model.classes_) == ["fast", "slow"]
    assert np.array_equal(model.predict(x[120:]), model.classes_[probabilities.argmax(axis=1)])


def test_class_weights_count() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(200, 4)), np.r_[np.zeros(180, int), np.ones(20, int)]  # nothing to learn but the prior
    plain = RecurrentClassifier(epochs=8, learning_rate=3e-3, **SMALL).fit(x, labels).predict_proba(x)[:, 1].mean()
    balanced = RecurrentClassifier(epochs=8, learning_rate=3e-3, class_weight="balanced", **SMALL).fit(x, labels)
    assert plain <= 0.25 and 0.35 <= balanced.predict_proba(x)[:, 1].mean() <= 0.65


@pytest.mark.parametrize("rare", [20, 4])
def test_rare_classes_count_alike_whatever_the_batch(rare: int) -> None:
    """X says nothing, so that balanced classes are as probable: 0.5, as of a logistic regression, also at 1 %."""
    x, labels = np.zeros((400, 3)), np.r_[np.ones(rare, int), np.zeros(400 - rare, int)]
    for batch_size, epochs in ((400, 60), (32, 20), (8, 10)):
        model = RecurrentClassifier(epochs=epochs, batch_size=batch_size, class_weight="balanced", **SMALL)
        assert abs(model.fit(x, labels).predict_proba(x[:1])[0, 1] - 0.5) <= 0.08, batch_size
    by_hand = RecurrentClassifier(epochs=20, class_weight={0: 1, 1: (400 - rare) / rare}, **SMALL).fit(x, labels)
    assert abs(by_hand.predict_proba(x[:1])[0, 1] - 0.5) <= 0.08


def test_unusual_windows_are_restored_badly() -> None:
    x, labels = waves(200)
    usual, unusual = x[labels == "slow"], x[labels == "fast"]
    model = SequenceAutoencoderTransformer(4, epochs=25, **SMALL).fit(usual[:90])
    errors = model.reconstruction_error(np.concatenate((usual[90:], unusual)))
    assert roc_auc_score(np.r_[np.zeros(len(usual) - 90), np.ones(len(unusual))], errors) >= 0.9
    codes = model.transform(usual)
    assert codes.shape == (len(usual), 4) and model.get_feature_names_out()[0].endswith("0")
    restored = model.inverse_transform(codes)
    squares = ((restored - usual) / model.x_scaler_.scale) ** 2
    assert restored.shape == usual.shape
    assert np.max(np.abs(squares.mean(axis=(1, 2)) - model.reconstruction_error(usual))) <= 1e-4
    assert model.score(usual) == -model.reconstruction_error(usual).mean()


def test_pipelines_and_grids() -> None:
    pipeline = make_pipeline(StandardScaler(), RecurrentRegressor(epochs=8, **SMALL))
    search = GridSearchCV(pipeline, {"recurrentregressor__cell": ["rnn", "gru"]}, cv=2)
    search.fit(WINDOWS, NEXT)
    assert search.best_params_["recurrentregressor__cell"] in ("rnn", "gru") and search.predict(WINDOWS).shape == (148,)
    codes = make_pipeline(SequenceAutoencoderTransformer(3, epochs=2, **SMALL), RecurrentRegressor(epochs=2, **SMALL))
    assert codes.fit(WINDOWS, NEXT).predict(WINDOWS).shape == (148,)


def test_copies(regressor: RecurrentRegressor) -> None:
    expected = regressor.predict(WINDOWS)
    for other in (pickle.loads(pickle.dumps(regressor)), copy.deepcopy(regressor)):
        assert np.array_equal(other.predict(WINDOWS), expected) and np.array_equal(
            other.forecast(3), regressor.forecast(3)
        )
    fresh = clone(regressor)
    with pytest.raises(NotFittedError):
        fresh.forecast(3)
    assert np.array_equal(fresh.fit(WINDOWS, NEXT).predict(WINDOWS), expected)


def test_early_stopping_holds_samples_back() -> None:
    model = RecurrentRegressor(epochs=200, validation_fraction=0.2, patience=2, learning_rate=0.05, **SMALL)
    history = model.fit(WINDOWS, NEXT).history_
    assert "val_loss" in history and history.epochs < 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "cnn"}, "cell is 'cnn'; expected one of 'rnn', 'lstm', 'gru'"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentRegressor(**options).fit(WINDOWS, NEXT)


def test_wrong_windows(regressor: RecurrentRegressor) -> None:
    with pytest.raises(ValueError, match="X has 11 features"):
        regressor.predict(WINDOWS[:, 1:])
    with pytest.raises(ValueError, match=r"X has shape \(148, 12, 2\); expected \(samples, 12\), as in fit"):
        regressor.predict(np.stack((WINDOWS, WINDOWS), axis=2))
    with pytest.raises(ValueError, match=r"X has shape .*; expected .* or with a third axis"):
        RecurrentRegressor().fit(np.ones((5, 4, 3, 2)), np.ones(5))
    with pytest.raises(ValueError, match="at least 2 classes"):
        RecurrentClassifier().fit(WINDOWS, np.zeros(148, int))


def test_a_label_that_comes_late_names_the_remedy() -> None:
    model = RecurrentClassifier(epochs=1, **SMALL).partial_fit(np.zeros((4, 3, 1)), list("abab"))
    with pytest.raises(ValueError, match=r"RecurrentClassifier: y has the label 'c'; .* first call of partial_fit"):
        model.partial_fit(np.zeros((2, 3, 1)), list("cc"))
