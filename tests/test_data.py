"""What stands before a model: scale, vocabulary, labels, and windows of a series; and that files keep them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import fusedrnn as fr
from fusedrnn.data import Labels, Scaler, Vocabulary, windows
from fusedrnn.data.preprocessor import preprocessing_from_spec
from fusedrnn.data.table import read_table

RNG = np.random.default_rng(5)
RAGGED = [RNG.normal((3.0, -50.0), (2.0, 0.1), (steps, 2)) for steps in (4, 1, 9)]


def test_the_scale_of_ragged_data_is_that_of_its_valid_steps() -> None:
    rows = np.concatenate(RAGGED)
    x, lengths = fr.pad_sequences(RAGGED)
    for scaler in (Scaler().fit(RAGGED), Scaler().fit(x, lengths), Scaler().fit(rows)):
        assert np.allclose(scaler.mean, rows.mean(axis=0), rtol=1e-12)
        assert np.allclose(scaler.scale, rows.std(axis=0), rtol=1e-12)
    scaled = scaler.transform(RAGGED)
    assert [each.shape for each in scaled] == [each.shape for each in RAGGED]
    assert np.abs(np.concatenate(scaled).mean(axis=0)).max() <= 1e-12
    padded = scaler.transform(x, lengths)
    assert np.array_equal(padded[0, :4], scaled[0]) and not padded[0, 4:].any()
    for back, each in zip(scaler.inverse_transform(scaled), RAGGED, strict=True):
        assert np.allclose(back, each, rtol=1e-12)


def test_a_scale_of_unknown_and_constant_values() -> None:
    x = np.array([[1.0, 7.0], [np.nan, 7.0], [5.0, 7.0]])
    scaler = Scaler().fit(x)
    assert scaler.mean is not None and scaler.mean.tolist() == [3.0, 7.0]
    assert np.array_equal(scaler.transform(x), [[-1, 0], [np.nan, 0], [1, 0]], equal_nan=True)
    series = Scaler().fit([np.arange(3.0), np.arange(5.0)])
    assert series.transform(np.arange(3.0)).shape == (3,) and series.transform(np.float32([1, 2])).dtype == np.float32
    flat = Scaler().fit(np.full(9, 0.1))
    assert not flat.transform(np.full(9, 0.1)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Scaler().transform([1.0]), "has learnt nothing yet; call fit first"),
        (lambda: Scaler().fit([np.ones((3, 2)), np.ones((3, 1))]), r"data has \[1, 2\] features"),
        (lambda: Scaler().fit([1.0, np.inf]), "infinite values"),
        (lambda: Scaler().fit([[np.nan, 1.0]]), "feature 0 of data has no known value"),
        (lambda: Scaler().fit(np.ones((3, 2))).transform(np.ones((3, 4))), r"shape \(3, 4\); expected .* \(..., 2\)"),
        (lambda: Scaler().fit(RAGGED, [4, 1, 9]), "got lengths together with a list"),
        (lambda: Scaler().fit(np.ones((3, 2)), [1, 1, 1]), r"shape \(3, 2\) with lengths"),
        (lambda: Vocabulary("letter"), "unit is 'letter'"),
        (lambda: Vocabulary(specials=("<unknown>",)), "tokens that differ"),
        (lambda: Vocabulary(specials=("<end>",), max_size=1), "max_size leaves room"),
        (lambda: Vocabulary().transform(["a"]), "has learnt nothing yet"),
        (lambda: Vocabulary().fit(["a"]).inverse_transform([[2]]), r"goes from 2 to 2; expected 0 <= token < 2"),
        (lambda: Labels().fit([]), "there is no label"),
        (lambda: Labels().fit([1.0, np.nan]), "one is NaN"),
        (lambda: Labels().fit(["a", "c"]).transform(["b"]), "the label 'b'; expected one of those of fit: 'a', 'c'"),
        (lambda: Labels().fit(["a", "c"]).inverse_transform([2]), "expected 0 <= class < 2"),
    ],
)
def test_wrong_values(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary().fit("one text"), "data is a str; expected a list of texts"),
        (lambda: Vocabulary().fit(["a", 3]), r"data\[1\] is an int"),
        (lambda: Vocabulary(specials="<end>"), "specials is '<end>'"),
        (lambda: Labels().fit([object()]), "a label is an object"),
    ],
)
def test_wrong_types(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call()


def test_a_vocabulary_of_words() -> None:
    vocabulary = Vocabulary(lower=True, specials=("<end>",))
    x = vocabulary.fit_transform(["The cat, the dog.", "Don't!"])
    assert vocabulary.tokens == ["<unknown>", "<end>", "the", "!", ",", ".", "cat", "dog", "don't"]
    assert [each.tolist() for each in x] == [[2, 6, 4, 2, 7, 5], [8, 3]] and x[0].dtype == np.int64
    assert [each.tolist() for each in vocabulary.transform(["THE bird", "", ["cat", "<end>"]])] == [[2, 0], [], [6, 1]]
    assert vocabulary.inverse_transform(x) == ["the cat , the dog .", "don't !"]
    assert vocabulary["<end>"] == 1 and vocabulary["bird"] == 0 and "cat" in vocabulary and len(vocabulary) == 9


def test_a_vocabulary_of_characters_has_a_size() -> None:
    vocabulary = Vocabulary("character", max_size=3).fit(["abbccc"])
    assert vocabulary.tokens == ["<unknown>", "c", "b"]
    assert vocabulary.inverse_transform(vocabulary.transform(["cab"])) == ["c<unknown>b"]
    assert Vocabulary("character", min_count=3).fit(["abbccc"]).tokens == ["<unknown>", "c"]


@pytest.mark.parametrize(
    "names",
    [["sun", "rain", "sun"], [True, False, True], [3, -1, 3], [0.5, 0.25, 0.5], np.array(["b", "a", "b"], object)],
)
def test_labels_of_any_kind_come_back(names: Any) -> None:
    labels = Labels()
    numbers = labels.fit_transform(names)
    assert numbers.tolist() == [1, 0, 1] and numbers.dtype == np.int64 and len(labels) == 2
    restored = labels.inverse_transform(numbers)
    assert restored.tolist() == list(names) and restored.dtype == np.asarray(names).dtype
    again = Labels.from_config(json.loads(json.dumps(labels.config())))
    assert again == labels and again.classes is not None and again.classes.dtype == restored.dtype


def test_labels_of_time_steps() -> None:
    labels = Labels()
    assert [each.tolist() for each in labels.fit_transform([["noun", "verb"], ["verb"]])] == [[0, 1], [1]]
    assert [each.tolist() for each in labels.inverse_transform([[1], [0, 1]])] == [["verb"], ["noun", "verb"]]


def test_a_file_keeps_the_preprocessing(tmp_path: Path) -> None:
    model = fr.Sequential(fr.Linear(2, 3, seed=0))
    model.preprocessing = {
        "scaler": Scaler().fit(RAGGED),
        "text": Vocabulary("character", specials=("<end>",), max_size=9).fit(["été \N{SNOWMAN}"]),
        "labels": Labels().fit(["a", "b"]),
    }
    model.save(tmp_path / "a")
    loaded = fr.load(tmp_path / "a")
    loaded.save(tmp_path / "b")  # a model that was loaded keeps it, too
    for other in (loaded, fr.load(tmp_path / "b")):
        assert other.preprocessing == model.preprocessing
        scaler = other.preprocessing["scaler"]
        assert isinstance(scaler, Scaler) and np.array_equal(
            scaler.transform(RAGGED[2]), model.preprocessing["scaler"].transform(RAGGED[2])
        )
    assert fr.Linear(1, 1).preprocessing == {}
    with pytest.raises(
        TypeError, match=r"preprocessing\['scale'\] is a float; expected one of Labels, Scaler, Vocabulary"
    ):
        model.preprocessing = {"scale": 1.0}  # type: ignore[dict-item]
        model.save(tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], "preprocessing is a list"),
        ({"a": {"class": "Scaler"}}, "'a' is malformed"),
        ({"a": {"class": "Popen", "config": {}}}, "unknown class 'Popen'"),
        ({"a": {"class": "Scaler", "config": {"mean": [0], "scale": [0]}}}, "mean and scale are malformed"),
        ({"a": {"class": "Scaler", "config": {"mean": [0]}}}, "KeyError"),
        ({"a": {"class": "Labels", "config": {"classes": ["a"], "dtype": "<U100000000"}}}, "classes are malformed"),
        ({"a": {"class": "Labels", "config": {"classes": [[1]], "dtype": "|O"}}}, "there is no label"),
        ({"a": {"class": "Labels", "config": {"classes": [None], "dtype": "|O"}}}, "neither text nor a number"),
        ({"a": {"class": "Vocabulary", "config": {"tokens": ["a", "a"]}}}, "a token occurs twice"),
        ({"a": {"class": "Vocabulary", "config": {"tokens": [1]}}}, "tokens is malformed"),
        ({"a": {"class": "Vocabulary", "config": {"tokens": [], "unit": 3, "path": "/"}}}, "TypeError"),
    ],
)
def test_a_file_is_not_trusted(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preprocessing_from_spec(spec)


def test_windows_of_arrays() -> None:
    series = np.arange(20.0).reshape(10, 2)
    x, y = windows(series, 3, 2)
    assert x.shape == (6, 3, 2) and y.shape == (6, 2, 2)
    for index in range(6):
        assert np.array_equal(x[index], series[index : index + 3])
        assert np.array_equal(y[index], series[index + 3 : index + 5])
    assert np.shares_memory(x, y) and not x.flags.writeable
    x, y = windows(series, 4, target=1, stride=3)
    assert x.shape == (2, 4, 2) and y.tolist() == [[9.0], [15.0]]
    x, y = windows(range(6), 2, 2)  # type: ignore[arg-type]
    assert x.shape == (3, 2, 1) and y.tolist() == [[2, 3], [3, 4], [4, 5]]
    x, y = windows([series, -series[:6]], 3, 2, target=[1, 0])
    assert x.shape == (8, 3, 2) and np.array_equal(y[6], -series[3:5, ::-1])


def test_windows_of_tables() -> None:
    table = pd.DataFrame({"load": np.arange(8.0), "hot": np.arange(8) % 2 == 0}, pd.date_range("2021", periods=8))
    x, y = windows(table, 3, 2, target="load")
    assert x[0].tolist() == [[0, 1], [1, 0], [2, 1]] and y[0].tolist() == [3, 4]
    other = pl.DataFrame({"when": table.index.to_numpy(), "load": table.load.to_numpy(), "hot": table.hot.to_numpy()})
    for each in (other, table.reset_index(names="when"), table.reset_index(drop=True)[["load", "hot"]]):
        got = windows(each, 3, 2, target="load")
        assert np.array_equal(got[0], x) and np.array_equal(got[1], y)
    assert windows(table["load"], 3)[0].shape == (5, 3, 1) == windows(other["load"], 3)[0].shape
    nullable = table.assign(load=table.load.astype("Int64"))
    assert np.array_equal(windows(nullable, 3, 2)[0], x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(index=t.index[3]), "2021-01-03.* is followed by 2021-01-05"),
        (lambda t: t.assign(a=["x"] * 8), "series has the column 'a' of dtype .*; expected numbers"),
        (lambda t: t.assign(a=[1.0] * 5 + [np.nan] * 3), "series has nan in row 5 of column 'a', 3 in all"),
        (lambda t: t.assign(a=pd.array([1, None] * 4, "Int64")), "series has nan in row 1 of column 'a', 4 in all"),
        (lambda t: t.assign(a=t.index, b=t.index), "series has times in the columns a, b"),
        (lambda t: t.iloc[:4], r"series has 4 rows; expected at least window \+ horizon = 3 \+ 2"),
        (lambda t: t.set_axis(list("abcdefgh")), "expected times or evenly spaced numbers"),
        (lambda t: t.set_axis([0, 1, 2, 3, 4, 5, 6, 8]), "6 is followed by 8"),
    ],
)
def test_wrong_tables(change: Any, message: str) -> None:
    table = pd.DataFrame({"load": np.arange(8.0)}, pd.date_range("2021-01-01", periods=8))
    with pytest.raises(ValueError, match=message):
        windows(change(table), 3, 2)


@pytest.mark.parametrize(
    "index",
    [
        pd.date_range("2020-01-31", periods=30, freq="ME", name="month"),
        pd.date_range("2020-01-01", periods=30, freq="h", tz="Europe/Berlin"),
        pd.date_range("2020-01-01", periods=30, freq="W-THU"),
        pd.bdate_range("2020-01-01", periods=30),
        pd.period_range("2020-01", periods=30, freq="Q"),
        pd.timedelta_range("0s", periods=30, freq="7s"),
        pd.RangeIndex(5, 95, 3),
        pd.Index(np.arange(30) * 0.5, name="seconds"),
    ],
    ids=lambda index: f"{type(index).__name__}-{index.name or index.dtype}",
)
def test_the_index_goes_on(index: Any) -> None:
    """A table of 24 rows says the index of the next 6, known from a longer one."""
    table = read_table("f", "X", pd.DataFrame({"a": np.arange(24.0)}, index[:24]))
    for stripped in (table, read_table("f", "X", pd.DataFrame({"a": np.arange(24.0)}, _without_frequency(index[:24])))):
        following = stripped.following("f", 6)
        pd.testing.assert_index_equal(following, index[24:], exact="equiv")
        series = stripped.like(np.arange(6.0)[:, np.newaxis], [0], following)
        assert series.name == "a" and series.index.equals(index[24:])


def _without_frequency(index: Any) -> Any:
    return pd.DatetimeIndex(index, freq=None) if isinstance(index, pd.DatetimeIndex) else index


@pytest.mark.parametrize(
    "times",
    [
        pl.date_range(pl.date(2020, 1, 31), pl.date(2022, 6, 30), "1mo", eager=True),
        pl.date_range(pl.date(2020, 1, 5), pl.date(2022, 6, 30), "1mo", eager=True),
        pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 2, 5), "1h", eager=True),
    ],
    ids=["ends of months", "fifths", "hours"],
)
def test_the_times_of_polars_go_on(times: Any) -> None:
    table = read_table("f", "X", pl.DataFrame({"when": times[:24], "a": np.arange(24.0)}))
    made = table.like(np.arange(6.0)[:, np.newaxis], [0], table.following("f", 6))
    expected = times[24:30]
    assert made["when"].dtype == times.dtype and made["a"].to_list() == list(range(6))
    assert made["when"].to_list() == expected.to_list()


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_a_scaler_of_any_size(size: float) -> None:
    """Squares of deviations would be 0 or infinite, and the feature constant or scaled to 0."""
    data = np.random.default_rng(7).normal(3, 2, (50, 3)) * [1, size, 1]
    with np.errstate(under="ignore"):
        scaled = Scaler().fit(data).transform(data)
    np.testing.assert_allclose(scaled[:, 1].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(scaled[:, 1].std(), 1, rtol=1e-12)
