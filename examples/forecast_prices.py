"""Predict a real share price one day ahead with an LSTM, and compare it honestly with "tomorrow = today".

The network reads the daily returns of the last days and predicts, at each of them, the return of the day after: the
target is the input shifted by one day. Returns (differences of the logarithm of the price) are about as large in 2000
as in 2013, which prices are not. Weights and scale come from the earliest days alone; later days decide when to stop,
the last ones judge.

    python examples/forecast_prices.py             # trains, prints, saves examples/output/forecast_prices.png
    python examples/forecast_prices.py --quick     # a few seconds

Data: daily closing prices adjusted for splits and dividends, public domain, from the package bokeh-sampledata.
"""

from __future__ import annotations

import csv
import gzip
import sys
import textwrap
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from shared import BLUE, ORANGE, STYLE, TRUTH, make_parser, print_kernels, save_figure

import fusedrnn as fr

Array = NDArray[Any]


def read_prices(ticker: str) -> tuple[Array, Array]:
    """Return dates and adjusted closing prices, oldest first."""
    with as_file(files("bokeh_sampledata") / "_data" / "stocks.csv.gz") as path, gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["Ticker"] == ticker]
    return np.array([row["Date"] for row in rows], "datetime64[D]"), np.array([float(row["Adj Close"]) for row in rows])


def windows(returns: Array, first: int, last: int, days: int) -> tuple[Array, Array]:
    """Return x and y, each (samples, days, 1): y is x a day later and ends on the days first, ..., last - 1."""
    runs = sliding_window_view(returns[first - days : last], days)[..., np.newaxis]
    return runs[:-1], runs[1:]


class Test(NamedTuple):
    """The days that judge, one element a day."""

    date: Array
    today: Array  # the price known when the forecast is made; the naive forecast
    forecast: Array
    actual: Array


def report(test: Test) -> None:
    """Print the comparison with the naive forecast, and what follows from it."""
    predicted, moves = np.log(test.forecast / test.today), np.log(test.actual / test.today)
    errors = {
        "return, %": (100 * (moves - predicted), 100 * moves),
        "price, $": (test.actual - test.forecast, test.actual - test.today),
    }
    print(f"\n{len(moves)} test days, {test.date[0]} to {test.date[-1]}      LSTM   tomorrow = today")
    for name, (lstm, naive) in errors.items():
        print(f"  {name:9} root mean square error {np.sqrt(np.mean(lstm**2)):10.4f} {np.sqrt(np.mean(naive**2)):18.4f}")
        print(f"  {name:9} mean absolute error    {np.mean(np.abs(lstm)):10.4f} {np.mean(np.abs(naive)):18.4f}")
    moved = moves != 0
    right, up = np.mean((predicted > 0) == (moves > 0), where=moved), np.mean(moves > 0, where=moved)
    print(f"  direction right                  {right:10.1%}       {up:.1%} ('up')")

    gain = moves**2 - (moves - predicted) ** 2
    t = gain.mean() / (gain.std(ddof=1) / np.sqrt(len(gain)))  # Diebold & Mariano 1995
    verdict = (
        f"On days that it never saw its squared error is {abs(gain.mean()) / np.mean(moves**2):.2%} "
        f"{'below' if t > 0 else 'above'} that of 'tomorrow = today' (t = {t:+.1f}), which is "
        f"{'no more than chance' if abs(t) < 2 else 'more than chance: do not count on it elsewhere'}. A daily price "
        "is nearly a random walk, so the best forecast is close to today's price: the LSTM predicts moves of about "
        f"{predicted.std():.1%}, the real ones are about {moves.std():.1%}. That its curve hugs the price says "
        "nothing; yesterday's price does so too."
    )
    print("\nWhat the LSTM learnt\n" + textwrap.fill(verdict, 100, initial_indent="  ", subsequent_indent="  "))


def plot(test: Test, ticker: str, path: Path) -> None:
    """Draw truth and forecasts: all test days, the last ones enlarged, and their returns."""
    import matplotlib
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.4), layout="constrained")
        axes = figure.subplot_mosaic([["all", "all"], ["zoom", "returns"]], height_ratios=[1.1, 1])
        recent = Test(*(values[-45:] for values in test))

        above = axes["all"]
        above.set_title(f"{ticker}, predicted one day ahead on {len(test.date)} days that the network never saw")
        above.axvspan(recent.date[0], recent.date[-1], color="#F1F3F5", linewidth=0)
        above.plot(test.date, test.actual, color=TRUTH, linewidth=4)
        above.plot(test.date, test.forecast, color=BLUE, linewidth=1)
        above.yaxis.set_major_formatter("${x:.0f}")

        zoom = axes["zoom"]
        zoom.set_title("The last days enlarged: the forecasts trail by a day")
        zoom.plot(recent.date, recent.actual, color=TRUTH, linewidth=5, label="what happened")
        zoom.plot(recent.date, recent.forecast, color=BLUE, linewidth=1.6, label="LSTM")
        zoom.plot(recent.date, recent.today, ":", color=ORANGE, linewidth=2, label="tomorrow = today")
        zoom.yaxis.set_major_formatter("${x:.1f}")

        returns = axes["returns"]
        returns.set_title("The same days as returns: what there was to predict")
        returns.bar(recent.date, 100 * np.log(recent.actual / recent.today), color=TRUTH)
        returns.axhline(0, color=ORANGE, linestyle=":", linewidth=2)
        returns.plot(recent.date, 100 * np.log(recent.forecast / recent.today), color=BLUE, linewidth=1.6)
        returns.yaxis.set_major_formatter("{x:+g} %")

        for one in axes.values():
            locator = AutoDateLocator(maxticks=7)
            one.xaxis.set(major_locator=locator, major_formatter=ConciseDateFormatter(locator, show_offset=False))
            one.margins(x=0.015)
        figure.legend(*zoom.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        save_figure(figure, path)


def main() -> None:
    """Read, train, judge, draw."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--ticker", default="MSFT", choices=["AAPL", "IBM", "MSFT"])
    parser.add_argument("--days", type=int, default=60, help="that the network looks back, 5 to 250")
    options = parser.parse_args()
    if not 5 <= options.days <= 250:
        parser.error(f"--days is {options.days}; expected 5 to 250")

    dates, prices = read_prices(options.ticker)
    returns = np.diff(np.log(prices))
    learn, stop = int(0.7 * len(returns)), int(0.85 * len(returns))  # the first days not to learn from, to judge
    scale = returns[:learn].std()
    scaled = (returns / scale).astype(np.float32)
    train = windows(scaled, options.days, learn, options.days)
    valid = windows(scaled, learn + options.days - 1, stop, options.days)  # no target before `learn`
    unseen, _ = windows(scaled, stop, len(scaled), options.days)
    print(f"Data     {options.ticker}, {len(prices)} days from {dates[0]} to {dates[-1]}")
    print(f"         learns until {dates[learn]}, stops by the days until {dates[stop]}, is judged by the rest")
    print_kernels()

    model = fr.Sequential(fr.LSTM(1, 32, seed=0), fr.Linear(32, 1, seed=1))
    history = fr.fit(
        model,
        *train,
        validation_data=valid,
        optimizer=lambda model: fr.AdamW(model, lr=1e-3),
        epochs=3 if options.quick else 60,
        batch_size=64,
        clip_norm=1.0,
        callbacks=[fr.EarlyStopping(patience=10)],
        seed=2,
    )
    seconds, best = sum(history["seconds"]), history.best_epoch
    print(f"Speed    {train[0].size * history.epochs / seconds:,.0f} time steps per second in training: ", end="")
    print(f"{history.epochs} epochs of {len(train[0])} windows of {options.days} days in {seconds:.1f} s")
    print(f"Loss     training {history['loss'][0]:.3f} -> {history['loss'][-1]:.3f}; validation at best ", end="")
    print(f"{history['val_loss'][best]:.3f} (epoch {best + 1}), {np.mean(valid[1] ** 2):.3f} for 'tomorrow = today'")

    today = prices[stop:-1]
    forecast = today * np.exp(model(unseen)[:, -1, 0].astype(np.float64) * scale)
    test = Test(dates[stop + 1 :], today, forecast, prices[stop + 1 :])
    report(test)
    print()
    plot(test, options.ticker, options.out)
    if not history["loss"][-1] <= 0.99 * history["loss"][0]:
        sys.exit("FAILED: the training loss should fall by 1 % at least")


if __name__ == "__main__":
    main()
