"""A regressor on tables: its own windows, validation and scale; forecasts that continue the index; what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fusedrnn as fr
from fusedrnn.sklearn import RecurrentRegressor, load

HOURS = np.arange(480)
WEEKEND = HOURS // 24 % 7 >= 5
LOAD = 50 + 10 * np.sin(2 * np.pi * HOURS / 24) - 8 * WEEKEND
TABLE = pd.DataFrame({"load": LOAD, "weekend": WEEKEND}, pd.date_range("2024-01-01", periods=480, freq="h"))
PAST, AHEAD = TABLE.iloc[:432], TABLE.iloc[432:]
SMALL: dict[str, Any] = {"hidden_size": 12, "random_state": 0, "cell": "gru"}


@pytest.fixture(scope="module")
def forecaster() -> RecurrentRegressor:
    model = RecurrentRegressor(window=48, horizon=24, target="load", known="weekend", epochs=15, **SMALL)
    return model.fit(PAST)


def test_a_forecast_continues_the_table(forecaster: RecurrentRegressor) -> None:
    """Known columns are read over the horizon: the first weekend after Friday costs no error."""
    forecast = forecaster.forecast(known=AHEAD)
    assert isinstance(forecast, pd.Series) and forecast.name == "load"
    pd.testing.assert_index_equal(forecast.index, AHEAD.index[:24])
    assert np.max(np.abs(forecast - AHEAD["load"][:24])) <= 3
    further = forecaster.forecast(48, known=AHEAD)
    assert further.index.equals(AHEAD.index) and np.allclose(further[:24], forecast)
    assert np.max(np.abs(further - AHEAD["load"])) <= 4
    short = forecaster.forecast(3, known=AHEAD)
    assert len(short) == 3 and np.array_equal(short, forecast[:3])
    assert forecaster.feature_names_in_.tolist() == ["load", "weekend"] and forecaster.n_features_in_ == 2


def test_what_is_known_matters_where_it_is(forecaster: RecurrentRegressor) -> None:
    """A weekend in hours 12 to 23 moves these, and not much of what is before; its rows are found by their times."""
    usual = AHEAD.assign(weekend=False)
    changed = usual.assign(weekend=np.arange(48) >= 12)
    first, second = forecaster.forecast(known=usual), forecaster.forecast(known=changed)
    assert np.array_equal(first[:12], second[:12]) and np.all(second[13:] < first[13:] - 2)
    shuffled = changed.sample(frac=1, random_state=0)
    assert np.array_equal(forecaster.forecast(known=shuffled), second)
    unknown = changed.assign(load=np.nan)[["load", "weekend"]]
    assert np.array_equal(forecaster.forecast(known=unknown), second)


def test_predictions_and_score_of_a_table(forecaster: RecurrentRegressor) -> None:
    made = forecaster.predict(TABLE.iloc[300:])
    assert made.shape == (180 - 48 - 24 + 1, 24)
    assert np.allclose(made[432 - 300 - 48], forecaster.forecast(known=AHEAD), atol=1e-5)
    truth = np.lib.stride_tricks.sliding_window_view(LOAD[348:], 24)
    r2 = 1 - np.square(made - truth).mean(axis=0) / truth.var(axis=0)
    assert forecaster.score(TABLE.iloc[300:]) == pytest.approx(r2.mean(), abs=1e-6) and r2.mean() >= 0.9


@pytest.mark.parametrize("known", [(), "hot"])
def test_the_form_of_a_table_does_not_matter(known: Any) -> None:
    """The same bits from pandas with an index or a column of times, polars and NumPy; the forecast has its form."""
    frame = pd.DataFrame({"a": np.sin(HOURS / 3)[:90], "b": np.cos(HOURS / 4)[:90], "hot": HOURS[:90] % 5 == 0})
    days = pd.date_range("2021-03-01", periods=95, name="day")
    future = {"hot": np.arange(90, 95) % 5 == 0}
    options: dict[str, Any] = {"window": 10, "horizon": 5, "target": ["a", "b"], "known": known, "epochs": 1, **SMALL}

    def made(table: Any, ahead: Any, **changed: Any) -> Any:
        model = RecurrentRegressor(**{**options, **changed}).fit(table)
        return model.forecast(known=ahead if known else None)

    plain = made(frame, pd.DataFrame(future, index=range(90, 95)))
    assert plain.index.equals(pd.RangeIndex(90, 95)) and list(plain.columns) == ["a", "b"]
    indexed = made(frame.set_index(days[:90]), pd.DataFrame(future, days[90:]))
    assert indexed.index.equals(days[90:]) and np.array_equal(indexed, plain)
    column = made(frame.assign(day=days[:90]), pd.DataFrame({**future, "day": days[90:]}))
    assert column["day"].tolist() == days[90:].tolist() and np.array_equal(column[["a", "b"]], plain)
    polars = made(
        pl.DataFrame(frame).with_columns(pl.Series("day", days[:90])), pl.DataFrame({**future, "day": days[90:]})
    )
    assert polars["day"].to_list() == days[90:].to_pydatetime().tolist() and polars.columns == ["day", "a", "b"]
    assert np.array_equal(polars[["a", "b"]].to_numpy(), plain)
    untimed = made(pl.DataFrame(frame), pl.DataFrame(future))
    assert untimed.columns == ["a", "b"] and np.array_equal(untimed.to_numpy(), plain)
    numbered = {"target": [0, 1], "known": [2] if known else ()}
    array = made(frame.to_numpy(float), np.array(future["hot"], float), **numbered)
    assert array.shape == (5, 2) and np.array_equal(array, plain)


@pytest.mark.parametrize("series", [LOAD, TABLE["load"], pl.Series("load", LOAD), LOAD.tolist()])
def test_one_series(series: Any) -> None:
    model = RecurrentRegressor(window=24, horizon=6, epochs=1, **SMALL).fit(series)
    forecast = model.forecast(9)
    assert type(forecast) is (np.ndarray if isinstance(series, list) else type(series)) and len(forecast) == 9
    assert model.predict(series).shape == (480 - 24 + 1, 6)
    assert np.array_equal(model.predict(series)[-1], np.asarray(forecast)[:6])
    assert np.allclose(np.asarray(model.forecast(6, series[:100])), model.predict(series)[100 - 24], atol=1e-5)


@pytest.mark.parametrize("standardize", ["auto", True])
def test_the_scale_is_inside(standardize: Any) -> None:
    """Units change nothing but the numbers: a model of kilowatts says what one of watts says."""
    options: dict[str, Any] = {"window": 24, "horizon": 6, "epochs": 2, "standardize": standardize, **SMALL}
    one = RecurrentRegressor(**options).fit(LOAD)
    other = RecurrentRegressor(**options).fit(1000 * LOAD + 5e5)
    assert np.allclose(other.forecast(), 1000 * one.forecast() + 5e5, rtol=1e-5)
    assert np.allclose(one.x_scaler_.mean, LOAD.mean()) and np.allclose(one.y_scaler_.scale, LOAD.std())


def test_a_series_may_drift(tmp_path: Path) -> None:
    """Measured from the level of each window, a trend goes on; from the mean of all, the forecast stays behind."""
    months = np.arange(260)
    series = 5.0 * months + 20 * np.sin(2 * np.pi * months / 12)
    errors = {}
    for standardize in ("auto", "window", True):
        model = RecurrentRegressor(window=24, horizon=12, epochs=30, standardize=standardize, **SMALL).fit(series[:200])
        errors[standardize] = np.abs(model.forecast(60) - series[200:]).max()
    assert errors["auto"] == errors["window"] <= 25 and errors[True] >= 60
    model = RecurrentRegressor(window=24, horizon=12, epochs=1, **SMALL).fit(series)
    moved = model.predict(series + 1e4) - model.predict(series)  # the level is all that moved, but for float32
    assert np.max(np.abs(moved - 1e4)) <= 0.01
    model.save(tmp_path / "file")
    assert np.array_equal(load(tmp_path / "file").forecast(30), model.forecast(30))


def test_the_last_rows_validate_with_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedrnn.sklearn import estimator

    seen: dict[str, Any] = {}

    def watched(model: Any, x: Any, **kwargs: Any) -> Any:
        for name, source in (("learnt", x), ("judged", kwargs["validation_data"])):
            seen[name] = np.concatenate([y for _, y in source(0)])
        return fr.fit(model, x, **kwargs)

    monkeypatch.setattr(estimator, "fit", watched)
    rows = np.arange(200.0)
    model = RecurrentRegressor(window=20, horizon=3, validation_fraction=0.25, epochs=1, standardize=False, **SMALL)
    model.fit(rows)
    samples = 200 - 20 - 3 + 1
    held = samples // 4
    assert seen["judged"].ravel().min() == samples - held + 20 and seen["judged"].max() == 199
    assert len(seen["learnt"]) == samples - held - 20
    assert seen["learnt"].max() < seen["judged"].min() - 1  # targets that learn are none that validate
    assert "val_loss" in model.history_


def test_windows_are_made_a_batch_at_a_time() -> None:
    """They overlap: all at once they would be window times the table, 40 MB here."""
    import tracemalloc

    rows = np.sin(np.arange(20_000) / 9)
    model = RecurrentRegressor("rnn", 2, window=500, horizon=2, epochs=1, batch_size=1000, validation_fraction=0.1)
    tracemalloc.start()
    try:
        model.fit(rows).predict(rows)
        assert tracemalloc.get_traced_memory()[1] <= 20e6
    finally:
        tracemalloc.stop()


def test_weights_of_rows() -> None:
    """Half of the rows are another series; those that do not count do not teach."""
    rows = np.r_[np.zeros(100), np.ones(100)]
    model = RecurrentRegressor(window=3, horizon=1, epochs=60, standardize=False, **SMALL)
    model.fit(rows, sample_weight=np.r_[np.zeros(100), np.ones(100)])
    assert abs(model.predict(np.zeros(3))[0, 0] - 1) <= 0.05
    first = np.r_[np.ones(100), np.zeros(100)]
    noise = rows + np.sin(np.arange(200) ** 2)
    assert model.score(noise, sample_weight=first) != model.score(noise)
    assert model.score(noise, sample_weight=np.ones(200)) == pytest.approx(model.score(noise))
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\); expected \(rows,\) = \(200,\)"):
        model.fit(rows, sample_weight=np.ones(3))


def test_searches_go_forward_in_time() -> None:
    model = RecurrentRegressor(window=24, horizon=6, target="load", epochs=2, **SMALL)
    search = GridSearchCV(model, {"hidden_size": [4, 12]}, cv=TimeSeriesSplit(3)).fit(TABLE)
    assert search.best_params_["hidden_size"] in (4, 12) and len(search.best_estimator_.forecast()) == 6
    assert search.best_estimator_.forecast().index[0] == pd.Timestamp("2024-01-21")


def test_more_rows_later() -> None:
    """partial_fit learns from new rows, and the forecast goes on from them."""
    model = RecurrentRegressor(window=24, horizon=6, target="load", epochs=2, **SMALL).fit(TABLE.iloc[:240])
    mean = model.x_scaler_.mean.tolist()
    model.partial_fit(TABLE.iloc[200:])
    assert model.x_scaler_.mean.tolist() == mean and model.forecast().index[0] == pd.Timestamp("2024-01-21")
    assert clone(model).window == 24


@pytest.mark.parametrize(
    "index",
    [
        pd.date_range("2024", periods=60, freq="h", tz="Europe/Berlin"),
        pd.date_range("2020-01-31", periods=60, freq="ME", name="month"),
        pd.period_range("2020", periods=60, freq="W"),
        pd.RangeIndex(10, 190, 3),
        pd.Index(np.arange(60) / 4),
    ],
    ids=lambda index: type(index).__name__,
)
def test_a_file_keeps_where_the_series_ends(index: Any, tmp_path: Path) -> None:
    series = pd.Series(LOAD[:60], index, name="load")
    model = RecurrentRegressor(window=12, horizon=3, epochs=1, **SMALL).fit(series)
    model.save(tmp_path / "file")
    pd.testing.assert_series_equal(load(tmp_path / "file").forecast(), model.forecast())


def test_a_file_keeps_a_table_of_polars(tmp_path: Path) -> None:
    table = pl.DataFrame({"day": pl.date_range(pl.date(2024, 1, 1), pl.date(2024, 2, 29), eager=True), "x": LOAD[:60]})
    for each in (table, table.with_columns(pl.col("day").cast(pl.Datetime("ms")))):
        model = RecurrentRegressor(window=12, horizon=3, epochs=1, **SMALL).fit(each)
        model.save(tmp_path / "file")
        assert load(tmp_path / "file").forecast().equals(model.forecast())
        assert model.forecast()["day"].dtype == each["day"].dtype


MONTHS = TABLE[:120].set_axis(pd.date_range("2000", periods=120, freq="MS"))


def options(**changed: Any) -> RecurrentRegressor:
    return RecurrentRegressor(**{"window": 24, "horizon": 6, "target": "load", "epochs": 1, **SMALL, **changed})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: options().fit(TABLE, LOAD), "y is given together with window=; expected None"),
        (lambda: options(window=0).fit(TABLE), "window is 0; expected a positive integer"),
        (lambda: options(horizon=0).fit(TABLE), "horizon is 0"),
        (
            lambda: options(standardize="all").fit(TABLE),
            "standardize is 'all'; expected 'auto', True, False or 'window'",
        ),
        (lambda: RecurrentRegressor(standardize="window").fit([[1, 2]], [3]), "or 'window' with window="),
        (lambda: options(target="power").fit(TABLE), "target is 'power'; expected a column: 'load', 'weekend'"),
        (lambda: options(known="holiday").fit(TABLE), "known is 'holiday'; expected a column"),
        (lambda: options(known="load").fit(TABLE), "expected a target that is not known ahead"),
        (lambda: options().fit(TABLE.iloc[:29]), r"X has 29 rows; expected at least window \+ horizon = 24 \+ 6"),
        (lambda: options().fit(TABLE.drop(index=TABLE.index[7])), "2024-01-01 06:00:00 is followed by 2024-01-01 08"),
        (lambda: options().fit(MONTHS.drop(index=MONTHS.index[100])), r"2008-04-01 .* followed by 2008-06-01 .*'MS'"),
        (lambda: options().fit(MONTHS.drop(index=MONTHS.index[2])), r"2000-02-01 .* followed by 2000-04-01 .*'MS'"),
        (lambda: options().fit(TABLE.sample(frac=1, random_state=0)), "goes back in time"),
        (lambda: options().fit(TABLE.assign(load=np.nan)), "X has nan in row 0 of column 'load'"),
        (lambda: options().fit(TABLE.assign(sky="blue")), "the column 'sky' of dtype"),
        (lambda: options().fit(np.ones((40, 2, 2))), r"X has shape \(40, 2, 2\); expected a series"),
        (lambda: options(target=0).fit([np.ones(40), np.ones(50)]), "X is a list of series; expected one"),
        (lambda: options(target=0).fit([PAST, AHEAD]), "X is a list of series; expected one"),
        (lambda: options(target=0).fit(np.ones((0, 2))), "at least one row"),
        (lambda: make_pipeline(StandardScaler(), options()).fit(TABLE), "target is 'load'; expected a column: numbers"),
        (
            lambda: options().fit(TABLE).forecast(7),
            "steps is 7; expected at most horizon = 6, as 1 columns are",
        ),
        (lambda: options().fit(TABLE).forecast(0), "steps is 0"),
        (lambda: options().fit(TABLE).forecast(known=TABLE), "known is given, but there are no such columns"),
        (lambda: options().fit(TABLE).forecast(X=TABLE.iloc[:9]), "X has 9 rows; expected at least window = 24"),
        (
            lambda: options().fit(TABLE).predict(TABLE.iloc[:23]),
            "X has 23 rows; expected at least 24, for one prediction",
        ),
        (lambda: options().fit(TABLE).predict(TABLE[["load"]]), "X has load; expected load, weekend, as in fit"),
        (lambda: options().fit(TABLE).score(TABLE, LOAD), "y is given together with window="),
        (lambda: options(known="weekend").fit(PAST).forecast(), "known is None; expected the next 6 rows of weekend"),
        (lambda: options(known="weekend").fit(PAST).forecast(known=AHEAD[["load"]]), "known has no column 'weekend'"),
        (lambda: options(known="weekend").fit(PAST).forecast(known=PAST), "known has no row for 2024-01-19"),
        (
            lambda: options(known="weekend").fit(PAST).forecast(known=np.ones(5)),
            "known has 5 rows; expected at least",
        ),
        (lambda: options(known="weekend").fit(PAST).forecast(known=np.ones((6, 2))), "known has 2 columns; expected 1"),
        (
            lambda: RecurrentRegressor(epochs=1).fit([[1, 2], [2, 3]], [3, 4]).forecast(2, known=[1]),
            "X of fit was no table",
        ),
    ],
)
def test_wrong_tables(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_time_that_goes_back_and_names_that_come_twice_are_refused() -> None:
    """The newest row first would be a forecast of the past; of two columns the first would be the target."""
    values = np.random.default_rng(6).normal(size=(30, 2))
    times = pd.date_range("2024", periods=30, freq="h")
    model = RecurrentRegressor(window=4, hidden_size=3, epochs=1)
    for index in (times, times.to_period("h"), pd.RangeIndex(30), pd.Index(np.arange(30) * 0.5)):
        table = pd.DataFrame(values, index, columns=["a", "b"])
        model.fit(table)
        with pytest.raises(ValueError, match=r"goes back in time: .*sort it"):
            model.fit(table[::-1])
    frame = pl.DataFrame({"t": times.to_numpy(), "a": values[:, 0]})
    model.fit(frame)
    with pytest.raises(ValueError, match="goes back in time"):
        model.fit(frame[::-1])
    with pytest.raises(ValueError, match="X has two columns 'a'"):
        model.fit(pd.DataFrame(values, times, columns=["a", "a"]))


def test_columns_keep_their_labels(tmp_path: Path) -> None:
    """Of several levels, and numbers: in the forecast as in the table, also from a file."""
    model = RecurrentRegressor(window=24, horizon=3, epochs=1, **SMALL)
    several = TABLE.set_axis(pd.MultiIndex.from_tuples([("load", "mean"), ("day", "off")]), axis=1)
    forecast = clone(model).set_params(target=("load", "mean"), known=[("day", "off")]).fit(several)
    ahead = several[-6:].set_axis(pd.date_range("2024-01-21", periods=6, freq="h"))
    made = forecast.forecast(known=ahead)
    assert made.name == ("load", "mean") and forecast.feature_names_in_[0] == "('load', 'mean')"
    both = clone(model).fit(several)
    assert both.forecast().columns.equals(several.columns)
    both.save(tmp_path / "model")
    assert load(tmp_path / "model").forecast().columns.equals(several.columns)
    numbered = TABLE.set_axis([3, 7], axis=1)
    assert clone(model).fit(numbered).forecast().columns.tolist() == [3, 7]
    timed = several.rename_axis("when").reset_index()
    assert clone(model).fit(timed).forecast().columns.equals(timed.columns)


def test_a_query_of_polars_is_collected() -> None:
    frame = pl.from_pandas(TABLE.reset_index(names="hour"))
    model = RecurrentRegressor(window=24, horizon=3, target="load", known="weekend", epochs=1, **SMALL)
    eager, lazy = clone(model).fit(frame), clone(model).fit(frame.lazy())
    known = frame[-6:].with_columns(pl.col("hour") + pl.duration(hours=6))
    assert eager.forecast(known=known).equals(lazy.forecast(known=known.lazy()))
    x, y = fr.data.windows(frame.lazy(), 24, 3)
    assert x.shape == (454, 24, 2) and y.shape == (454, 3, 2)
    with pytest.raises(ValueError, match="X is a table with the columns"):
        RecurrentRegressor(epochs=1).fit(frame.drop("hour").lazy(), LOAD)
