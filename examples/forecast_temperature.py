"""Predict the next seven days' temperature in Seattle with a GRU, and compare with what the calendar knows.

The network reads the weather of 14 days (highest and lowest temperature, rain, wind) and says seven numbers at once:
how much warmer or colder than usual the next days will be. What is usual, a smooth yearly curve, is fitted to the days
that it learns from: the first two years. The third year decides when to stop, the fourth judges.

    python examples/forecast_temperature.py             # a few seconds; draws examples/output/forecast_temperature.png
    python examples/forecast_temperature.py --quick

The exit code is not 0 if the GRU does not beat "as on the same day a year ago" and the season's curve.
Data: daily weather of Seattle, 2012 to 2015, measured by NOAA, from the package vega-datasets.
"""

from __future__ import annotations

import argparse
import csv
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from forecast_prices import INK, NAIVE, STYLE, TRUTH
from numpy.typing import NDArray

import fusedrnn as fr

Array = NDArray[Any]
COLUMNS = ("temp_max", "temp_min", "precipitation", "wind")
AHEAD, BACK, YEAR = 7, 14, 365
LEARN, STOP = 2 * YEAR + 1, 3 * YEAR + 1  # the first days not to learn from, to judge
COLOURS, LINES = ("#1F5FA8", NAIVE, "#3C8D5A", INK), ("-", "-", "-", ":")


def read_weather() -> tuple[Array, Array]:
    """Return dates, and a row a day: highest and lowest temperature in °C, logarithm of the rain, wind."""
    rows = list(csv.DictReader((files("vega_datasets") / "_data" / "seattle-weather.csv").read_text().splitlines()))
    values = np.array([[float(row[name]) for name in COLUMNS] for row in rows])
    values[:, 2] = np.log1p(values[:, 2])
    return np.array([row["date"].replace("/", "-") for row in rows], "datetime64[D]"), values


def usual(values: Array) -> Array:
    """Return what is usual on each day: two waves a year, fitted to the days to learn from."""
    angle = 2 * np.pi * np.arange(len(values)) / 365.25
    waves = np.stack([np.ones(len(values)), *(f(k * angle) for k in (1, 2) for f in (np.sin, np.cos))], axis=1)
    curve: Array = waves @ np.linalg.lstsq(waves[:LEARN], values[:LEARN], rcond=None)[0]
    return curve


def windows(anomaly: Array, first: int, last: int) -> tuple[Array, Array, Array]:
    """Return the days (N, 7) to predict, first <= day < last, and x (N, 14, 4) and y (N, 7) for them."""
    days = np.arange(first, last - AHEAD + 1)[:, np.newaxis] + np.arange(AHEAD)
    return days, anomaly[days[:, :1] - BACK + np.arange(BACK)], anomaly[days, 0]


def plot(dates: Array, truth: Array, days: Array, forecasts: dict[str, Array], errors: Array, path: Path) -> None:
    """Draw one forecast a week over the year that judges, and the errors (4, 7) by the days ahead."""
    import matplotlib
    from matplotlib.dates import DateFormatter, MonthLocator
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.4), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=[1.3, 1])
        above.set_title("Highest temperature, and every seventh day a forecast, in a year that the GRU never saw")
        above.plot(dates[STOP:], truth[STOP:], color=TRUTH, linewidth=3, label="what happened")
        for row in range(0, len(days), AHEAD):
            above.plot(dates[days[row]], forecasts["GRU"][row], color=COLOURS[0], linewidth=2.2)
        above.plot(dates[days[:, 0]], forecasts["as usual in this season"][:, 0], color=COLOURS[2], linewidth=1)
        above.xaxis.set(major_locator=MonthLocator(), major_formatter=DateFormatter("%b"))
        below.set_title("Error (root mean square) by the days ahead")
        for name, by_day, colour, line in zip(forecasts, errors, COLOURS, LINES, strict=True):
            below.plot(np.arange(1, AHEAD + 1), by_day, line, color=colour, linewidth=2.5, label=name)
        for axes in (above, below):
            axes.yaxis.set_major_formatter("{x:g} °C")
            axes.margins(x=0.01)
        figure.legend(loc="outside lower center", ncols=5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    print(f"\nPlot     {path}")


def main() -> None:
    """Read, train, judge, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train less")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "output" / "forecast_temperature.png")
    options = parser.parse_args()

    dates, values = read_weather()
    curve = usual(values)
    scale = (values - curve)[:LEARN].std(axis=0)
    anomaly = ((values - curve) / scale).astype(np.float32)
    config = fr.config()
    print(f"Data     Seattle, {len(dates)} days; learns until {dates[LEARN]}, stops by the days until {dates[STOP]}")
    print(f"Kernels  fusedrnn {config['version']}, {config['isa']}, threads: {config['threads']}")

    (_, x, y), (_, *valid) = windows(anomaly, BACK, LEARN), windows(anomaly, LEARN, STOP)
    model = fr.models.SequenceToVector(fr.GRU(4, 8, seed=0), AHEAD, seed=1)
    fit: dict[str, Any] = {"epochs": 15 if options.quick else 100, "batch_size": 32, "seed": 2}
    fit |= {"optimizer": lambda model: fr.AdamW(model, lr=3e-3, weight_decay=0.3), "clip_norm": 1.0}
    fr.fit(model, x, y, validation_data=tuple(valid), callbacks=[fr.EarlyStopping(patience=10)], **fit)

    days, unseen, _ = windows(anomaly, STOP, len(dates))
    truth, level, warmer = values[:, 0], curve[days, 0], values[:, 0] - curve[:, 0]
    pairs = [(warmer[k:LEARN], warmer[: LEARN - k]) for k in range(1, AHEAD + 1)]
    factors = np.array([(later @ today) / (today @ today) for later, today in pairs])  # how today's difference fades
    forecasts = {
        "GRU": level + model(unseen) * scale[0],
        "as on the same day a year ago": truth[days - YEAR],
        "as usual in this season": level,
        "today's difference from it fading": level + warmer[days[:, :1] - 1] * factors,
    }
    squares = np.square(np.stack(list(forecasts.values())) - truth[days])
    errors, overall = np.sqrt(squares.mean(axis=1)), np.sqrt(squares.mean(axis=(1, 2)))
    print(f"\nRoot mean square error in °C on {dates[STOP]} to {dates[-1]}, by the days ahead")
    for name, by_day, error in zip(forecasts, errors, overall, strict=True):
        print(f"  {name:34}" + "".join(f"{each:6.2f}" for each in by_day) + f"   all {error:.2f}")
    plot(dates, truth, days, forecasts, errors, options.out)
    year_ago, season, simple = 1 - overall[0] / overall[1:]
    print(
        f"The GRU's error is {year_ago:.1%} below that of a year ago (the seasonal naive forecast), {season:.1%} below"
    )
    print(
        f"the season's and {simple:.1%} below that of the last line, a rule with seven numbers: that says most of it."
    )
    if not (year_ago >= 0.2 and season >= 0.05):
        sys.exit("FAILED: expected at least 20 % less than the same day a year ago, and 5 % less than the season")


if __name__ == "__main__":
    main()
