"""Predict the next seven days' temperature in Seattle with GRUs, and compare with what the calendar knows.

A network reads the weather of 14 days (highest and lowest temperature, rain, wind) and says seven numbers at once: how
much warmer or colder than usual the next days will be. What is usual is a smooth yearly curve, fitted to the days that
it learns from. The forecast is the mean of five networks. They learn from two years first, and the third says how many
epochs are enough; then they learn from all three. The fourth year judges. Four units are enough to remember what three
years can teach: with more, the half years before the fourth were predicted worse.

    python examples/forecast_temperature.py             # some seconds; draws examples/output/forecast_temperature.png
    python examples/forecast_temperature.py --quick
    python examples/forecast_temperature.py --seed 1    # other initial weights

The exit code is not 0 if the GRUs do not beat "as on the same day a year ago" and the season's curve.
Data: daily weather of Seattle, 2012 to 2015, measured by NOAA, from the package vega-datasets.
"""

from __future__ import annotations

import csv
import sys
import textwrap
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import BLUE, GREEN, INK, ORANGE, STYLE, TRUTH, make_parser, print_kernels, save_figure

import fusedrnn as fr

Array = NDArray[Any]
COLUMNS = ("temp_max", "temp_min", "precipitation", "wind")
AHEAD, BACK, YEAR = 7, 14, 365
CHOOSE, JUDGE = 2 * YEAR + 1, 3 * YEAR + 1  # the first days of the third and of the fourth year; 2012 was a leap year
COLOURS, LINES = (BLUE, ORANGE, GREEN, INK), ("-", "-", "-", ":")


def read_weather() -> tuple[Array, Array]:
    """Return dates, and a row a day: highest and lowest temperature in °C, logarithm of the rain, wind."""
    rows = list(csv.DictReader((files("vega_datasets") / "_data" / "seattle-weather.csv").read_text().splitlines()))
    values = np.array([[float(row[name]) for name in COLUMNS] for row in rows])
    values[:, 2] = np.log1p(values[:, 2])
    return np.array([row["date"].replace("/", "-") for row in rows], "datetime64[D]"), values


def unusual(values: Array, known: int) -> tuple[Array, Array, Array]:
    """Return what is usual on each day (two waves a year), the scale of the rest, and the rest divided by it.

    All are fitted to the first ``known`` days.
    """
    angle = 2 * np.pi * np.arange(len(values)) / 365.25
    waves = np.stack([np.ones(len(values)), *(f(k * angle) for k in (1, 2) for f in (np.sin, np.cos))], axis=1)
    curve: Array = waves @ np.linalg.lstsq(waves[:known], values[:known], rcond=None)[0]
    scale = (values - curve)[:known].std(axis=0)
    return curve, scale, ((values - curve) / scale).astype(np.float32)


def windows(rest: Array, first: int, last: int) -> tuple[Array, Array, Array]:
    """Return the days (N, 7) to predict, first <= day < last, and x (N, 14, 4) and y (N, 7) for them."""
    days = np.arange(first, last - AHEAD + 1)[:, np.newaxis] + np.arange(AHEAD)
    return days, rest[days[:, :1] - BACK + np.arange(BACK)], rest[days, 0]


def train(learn: tuple[Array, ...], epochs: int, seed: np.random.SeedSequence, **stop: Any) -> tuple[Any, int]:
    """Return a network and the best number of epochs."""
    weights, head, order = seed.generate_state(3).tolist()
    model = fr.models.SequenceToVector(fr.GRU(len(COLUMNS), 4, seed=weights), AHEAD, seed=head)
    history = fr.fit(
        model,
        *learn,
        optimizer=lambda model: fr.AdamW(model, lr=3e-3, weight_decay=0.3),
        epochs=epochs,
        batch_size=32,
        clip_norm=1.0,
        seed=order,
        **stop,
    )
    return model, history.best_epoch + 1


def root_mean_square(errors: Array, axis: Any = None) -> Any:
    """Return the root mean square error."""
    return np.sqrt(np.mean(np.square(errors), axis=axis))


def plot(dates: Array, truth: Array, days: Array, forecasts: dict[str, Array], errors: Array, path: Path) -> None:
    """Draw one forecast a week over the year that judges, and the errors (4, 7) by the days ahead."""
    import matplotlib
    from matplotlib.dates import DateFormatter, MonthLocator
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.4), layout="constrained")
        above, below = figure.subplots(2, 1, height_ratios=[1.3, 1])
        above.set_title("Highest temperature, and every seventh day a forecast, in a year that the GRUs never saw")
        above.plot(dates[JUDGE:], truth[JUDGE:], color=TRUTH, linewidth=3, label="what happened")
        for row in range(0, len(days), AHEAD):
            above.plot(dates[days[row]], forecasts["GRUs"][row], color=BLUE, linewidth=2.2)
        above.plot(dates[days[:, 0]], forecasts["as usual in this season"][:, 0], color=GREEN, linewidth=1)
        above.xaxis.set(major_locator=MonthLocator(), major_formatter=DateFormatter("%b"))
        below.set_title("Error (root mean square) one to seven days ahead")
        for name, by_day, colour, line in zip(forecasts, errors, COLOURS, LINES, strict=True):
            below.plot(np.arange(1, AHEAD + 1), by_day, line, color=colour, linewidth=2.5, label=name)
        for axes in (above, below):
            axes.yaxis.set_major_formatter("{x:g} °C")
            axes.margins(x=0.01)
        figure.legend(loc="outside lower center", ncols=5)
        save_figure(figure, path)


def main() -> None:
    """Read, train, judge, draw."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the order of the samples")
    options = parser.parse_args()

    dates, values = read_weather()
    print(
        f"Data     Seattle, {len(dates)} days; learns until {dates[CHOOSE]}, chooses until {dates[JUDGE]}, then judges"
    )
    print_kernels()
    seeds = np.random.SeedSequence(options.seed).spawn(2 if options.quick else 5)
    _, scale, rest = unusual(values, CHOOSE)
    (_, *learn), (_, *valid) = windows(rest, BACK, CHOOSE), windows(rest, CHOOSE, JUDGE)
    stop = {"validation_data": tuple(valid), "callbacks": [fr.EarlyStopping(patience=10)]}
    models, best = zip(*(train(tuple(learn), 100, seed, **stop) for seed in seeds), strict=True)
    missed = scale[0] * root_mean_square(np.mean([model(valid[0]) for model in models], axis=0) - valid[1])
    epochs = int(np.median(best))
    print(f"Chosen   {epochs} epochs; error in the third year {missed:.2f} °C")

    curve, scale, rest = unusual(values, JUDGE)
    _, *learn = windows(rest, BACK, JUDGE)
    models = [train(tuple(learn), epochs, seed)[0] for seed in seeds]
    days, unseen, _ = windows(rest, JUDGE, len(dates))
    truth, level, warmer = values[:, 0], curve[days, 0], values[:, 0] - curve[:, 0]
    pairs = [(warmer[k:JUDGE], warmer[: JUDGE - k]) for k in range(1, AHEAD + 1)]
    factors = np.array([(later @ today) / (today @ today) for later, today in pairs])  # how today's difference fades
    forecasts = {
        "GRUs": level + scale[0] * np.mean([model(unseen) for model in models], axis=0),
        "as on the same day a year ago": truth[days - YEAR],
        "as usual in this season": level,
        "today's difference from it fading": level + warmer[days[:, :1] - 1] * factors,
    }
    missed = np.stack(list(forecasts.values())) - truth[days]
    errors, overall = root_mean_square(missed, axis=1), root_mean_square(missed, axis=(1, 2))
    print(f"\nRoot mean square error in °C on {dates[JUDGE]} to {dates[-1]}, by the days ahead")
    for name, by_day, error in zip(forecasts, errors, overall, strict=True):
        print(f"  {name:34}" + "".join(f"{each:6.2f}" for each in by_day) + f"   all {error:.2f}")
    year_ago, season, simple = 1 - overall[0] / overall[1:]
    verdict = (
        f"The error of the GRUs is {year_ago:.1%} below that of a year ago (the seasonal naive forecast), {season:.1%} "
        f"below the season's, and {abs(simple):.1%} {'below' if simple > 0 else 'above'} that of the last line, a rule "
        "of seven numbers: most of what can be known from one place is that a difference fades."
    )
    print(textwrap.fill(verdict, 100) + "\n")
    plot(dates, truth, days, forecasts, errors, options.out)
    if not (year_ago >= 0.2 and season >= 0.02):
        sys.exit("FAILED: expected at least 20 % less than the same day a year ago, and 2 % less than the season")


if __name__ == "__main__":
    main()
