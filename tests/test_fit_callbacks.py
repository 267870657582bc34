"""Callbacks that watch recorded values: in which direction, from when on, and what they write where."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.training import Callback, Training, schedules

Array = NDArray[Any]
X, Y = np.ones((6, 2)), np.ones((6, 1))
fit = partial(fr.fit, progress=False, seed=0, batch_size=6)


def f1(pred: Array, target: Array, mask: Any = None) -> float:
    return float(pred.mean())


def val_rmse(pred: Array, target: Array, mask: Any = None) -> float:
    return 1.0


class Script(Callback):
    """Let the epochs have these values, and the bias tell which epoch it was."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name, self.scripted = name, values

    def on_epoch_end(self, training: Training) -> None:
        training.values[self.name] = self.scripted[training.epoch]
        training.model.params["bias"][:] = training.epoch


# --------------------------------------------------------------------------------------------------------------- mode


@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 3)])
def test_the_best_epoch_of_a_metric_is_kept_in_its_direction(mode: str, best: int, tmp_path: Path) -> None:
    script = Script("f1", [0.3, 0.8, math.nan, 0.1, 0.2])
    model, path = fr.Linear(2, 1), tmp_path / "best.safetensors"
    stop = fr.EarlyStopping(3, monitor="f1", mode=mode)
    keep = fr.Checkpoint(path, monitor="f1", mode=mode)
    history = fit(model, X, Y, epochs=5, callbacks=(script, keep, stop), metrics=f1)
    assert model.params["bias"][0] == best == fr.load(path).params["bias"][0]
    assert history.epochs == 5 and (history.stopped != "") == (mode == "max")


@pytest.mark.parametrize("make", [fr.EarlyStopping, partial(fr.Checkpoint, "x"), fr.training.ReduceOnPlateau])
def test_a_metric_without_a_known_direction_needs_one(make: Any) -> None:
    for name in ("f1", "val_f1", "r2"):
        with pytest.raises(
            ValueError, match=f"monitor is '{name}', which may be better when .* expected mode='min' or"
        ):
            make(monitor=name)
        make(monitor=name, mode="max")
    with pytest.raises(ValueError, match="mode is 'up'; expected 'min', 'max' or None"):
        make(monitor="loss", mode="up")
    with pytest.raises(TypeError, match="monitor is 3; expected the name"):
        make(monitor=3)


@pytest.mark.parametrize(
    ("name", "higher"),
    [("loss", False), ("val_loss", False), ("val_mae", False), ("perplexity", False), ("top_5_accuracy", True)],
)
def test_directions_that_are_known(name: str, higher: bool) -> None:
    for mode, better in ((None, higher), ("max", True), ("min", False)):
        stop = fr.EarlyStopping(monitor=name, mode=mode)
        steps = [stop.improves(SimpleNamespace(values={name: value})) for value in (0.5, 0.6, 0.4)]  # type: ignore[arg-type]
        assert steps == [True, better, not better]


def test_what_is_watched_is_known_before_the_first_step(tmp_path: Path) -> None:
    class Untouched(fr.Linear):
        def forward(self, x: Any) -> Any:
            raise AssertionError

    cases: list[tuple[Callback, dict[str, Any], str]] = [
        (
            fr.EarlyStopping(monitor="val_accuracy"),
            {"metrics": "accuracy"},
            "EarlyStopping: monitor is 'val_accuracy'; expected one of loss, lr, seconds, accuracy$",
        ),
        (
            fr.EarlyStopping(monitor="val_loss"),
            {},
            "EarlyStopping: monitor is 'val_loss'; expected one of loss, lr, seconds$",
        ),
        (fr.Checkpoint(tmp_path / "{mae}"), {}, "Checkpoint: path has {mae}; expected one of epoch, loss, lr, seconds"),
        (fr.Checkpoint(tmp_path / "{0}"), {}, r"Checkpoint: path has \{0\}; expected one of epoch"),
        (fr.Checkpoint(tmp_path / "no" / "m"), {}, "Checkpoint: path is .*, but there is no folder"),
    ]
    for callback, given, match in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=match):
            fit(Untouched(2, 1), X, Y, epochs=1, callbacks=callback, **given)
    with pytest.raises(ValueError, match=r"Checkpoint: path is .a\{.: "):
        fr.Checkpoint("a{")
    # A callback of one's own may record the value that a later one watches.
    fit(fr.Linear(2, 1), X, Y, epochs=1, callbacks=[Script("f1", [1.0]), fr.EarlyStopping(monitor="f1", mode="max")])
    with pytest.raises(ValueError, match="EarlyStopping: monitor is 'f1'; expected one of loss"):
        fit(
            fr.Linear(2, 1), X, Y, epochs=1, callbacks=[fr.EarlyStopping(monitor="f1", mode="max"), Script("f1", [1.0])]
        )


# ---------------------------------------------------------------------------------------------------------------- files


def test_names_in_the_path_of_a_checkpoint_are_filled_in(tmp_path: Path) -> None:
    keep = fr.Checkpoint(tmp_path / "m-{epoch:02d}-{val_loss:.2f}.safetensors", best_only=False)
    script = Script("val_loss", [1.0, 0.125])
    fit(fr.Linear(2, 1), X, Y, epochs=2, validation_data=(X, Y), callbacks=[script, keep])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m-01-1.00.safetensors", "m-02-0.12.safetensors"]
    assert fr.load(tmp_path / "m-02-0.12.safetensors").params["bias"][0] == 1


# ---------------------------------------------------------------------------------------------------------------- rates


def test_the_rate_falls_on_a_plateau() -> None:
    class Rates(Callback):
        def __init__(self) -> None:
            self.rates: list[float] = []

        def on_epoch_end(self, training: Training) -> None:
            self.rates.append(training.optimizer.lr)

    rates, script = Rates(), Script("val_loss", [5, 4, 4, 4, 4, 3, 3, 3, 3])
    plateau = fr.training.ReduceOnPlateau(factor=0.5, patience=2, min_lr=0.2)
    history = fit(
        fr.Linear(2, 1), X, Y, epochs=9, optimizer=lambda m: fr.SGD(m, lr=0.7), callbacks=[script, plateau, rates]
    )
    assert rates.rates == [0.7, 0.7, 0.7, 0.35, 0.35, 0.35, 0.35, 0.2, 0.2]
    assert history["lr"] == [0.7, *rates.rates[:-1]]
    for wrong in ({"factor": 1.0}, {"min_lr": -1.0}, {"patience": 0}):
        with pytest.raises(ValueError, match=f"ReduceOnPlateau: {next(iter(wrong))} is"):
            fr.training.ReduceOnPlateau(**wrong)  # type: ignore[arg-type]


def test_a_rate_is_no_schedule() -> None:
    with pytest.raises(
        TypeError, match=r"LearningRate: schedule is 0.1; expected a function .*schedules.constant\(0.1\)"
    ):
        fr.LearningRate(0.1)  # type: ignore[arg-type]
    fr.LearningRate(schedules.constant(0.1))


# -------------------------------------------------------------------------------------------------------------- history


def test_a_history_prints_its_best_and_last_epochs() -> None:
    history = fr.History()
    for loss, val in ((3.0, 2.0), (2.5, 1.25), (2.0, 1.5)):
        history.record({"loss": loss, "lr": 1e-3, "val_loss": val})
    history.stopped = "no <b> more"
    assert str(history).splitlines() == [
        "      epoch  loss     lr  val_loss",
        "best      2   2.5  0.001      1.25",
        "last      3     2  0.001       1.5",
        "3 epochs; stopped: no <b> more",
    ]
    html = history._repr_html_()
    assert "<th>val_loss</th>" in html and "<td>1.25</td>" in html and "no &lt;b&gt; more" in html
    assert str(fr.History()).splitlines()[-1] == "0 epochs"
    nothing = fr.History()
    nothing.record({"loss": math.nan})
    nothing.record({"loss": math.nan})
    assert nothing.best_epoch == -1 and "best" not in str(nothing)
