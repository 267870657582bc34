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


@pytest.mark.parametrize("wrong", [math.nan, -1.0, math.inf])
@pytest.mark.parametrize("make", [fr.EarlyStopping, fr.training.ReduceOnPlateau, lambda **o: fr.Checkpoint("m", **o)])
def test_an_improvement_is_a_number(make: Any, wrong: float) -> None:
    with pytest.raises(ValueError, match=r"min_delta is .*; expected a number >= 0"):
        make(min_delta=wrong)


def test_the_best_epoch_is_that_of_the_value_that_is_watched(tmp_path: Path) -> None:
    """EarlyStopping restores its weights, so the table and the figure have to name the same one."""
    stop, keep = fr.EarlyStopping(monitor="f1", mode="max"), fr.Checkpoint(tmp_path / "m", monitor="loss")
    plateau = fr.training.ReduceOnPlateau(monitor="lr")
    for callbacks, watched in [
        ([plateau, stop, keep], ("f1", True)),
        ([keep, stop], ("loss", False)),
        ([fr.EarlyStopping(), keep], None),
        ([plateau], None),
    ]:
        history = fit(fr.Linear(2, 1), X, Y, epochs=1, callbacks=callbacks, metrics=f1)
        assert history.watched == watched
    history = fr.training.History()
    for loss, score in ((3.0, 0.1), (1.0, 0.2), (2.0, 0.9), (4.0, math.nan)):
        history.record({"loss": loss, "val_loss": loss, "f1": score})
    assert history.best_epoch == 1
    history.watched = "f1", True
    assert history.best_epoch == 2 and str(history).splitlines()[1].split()[:2] == ["best", "3"]
    history.watched = "f1", False
    assert history.best_epoch == 0
    history.watched = "unrecorded", False
    assert history.best_epoch == 1


def test_what_a_callback_adds_to_the_values_is_recorded(tmp_path: Path) -> None:
    """Of the epochs after it too, so that the best epoch is the one whose weights were kept."""

    class Recall(Callback):
        def on_epoch_end(self, training: Training) -> None:
            training.model.params["bias"][:] = training.epoch
            training.values["note"] = "no number"  # type: ignore[assignment]
            if training.epoch > 0:
                training.values["recall"] = [0.0, 0.2, 0.9, 0.4][training.epoch]

    options: dict[str, Any] = {"metrics": f1, "resume": tmp_path / "run.ckpt"}
    model = fr.Linear(2, 1)
    fit(model, X, Y, epochs=2, callbacks=[Recall()], **options)
    stop = fr.EarlyStopping(3, monitor="recall", mode="max")
    with pytest.raises(ValueError, match="monitor is 'recall'"):  # a callback of fit's own in front records nothing
        fit(model, X, Y, epochs=4, callbacks=[stop, Recall()], **options)
    history = fit(model, X, Y, epochs=4, callbacks=[Recall(), fr.training.CSVLogger(tmp_path / "c")], **options)
    np.testing.assert_array_equal(history["recall"], [math.nan, 0.2, 0.9, 0.4])
    assert "note" not in history and len(history["f1"]) == len(history["loss"]) == 4
    model = fr.Linear(2, 1)
    history = fit(model, X, Y, epochs=1, callbacks=[Recall()], metrics=f1)
    assert "recall" not in history
    history = fit(
        model,
        X,
        Y,
        epochs=4,
        callbacks=[Script("score", [0.1, 0.9, 0.2, 0.3]), fr.EarlyStopping(4, monitor="score", mode="max")],
        metrics=f1,
    )
    assert history["score"] == [0.1, 0.9, 0.2, 0.3]
    assert history.best_epoch == 1 == model.params["bias"][0]


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


def test_callbacks_print_what_they_were_made_with() -> None:
    told = "EarlyStopping(patience=3, min_delta=0.0, restore_best=True, monitor='val_f1', mode='max')"
    assert repr(fr.EarlyStopping(3, monitor="val_f1", mode="max")) == told
    assert repr(Script("f1", [0.5])) == "Script(name='f1')" and repr(Callback()) == "Callback()"


def test_a_rate_is_no_schedule() -> None:
    with pytest.raises(
        TypeError, match=r"LearningRate: schedule is 0.1; expected a function .*schedules.constant\(0.1\)"
    ):
        fr.LearningRate(0.1)  # type: ignore[arg-type]
    fr.LearningRate(schedules.constant(0.1))


# ------------------------------------------------------------------------------------------------------------- averages


class Judged(Callback):
    """Collect the weights at the end of each epoch."""

    def __init__(self) -> None:
        self.seen: list[Array] = []
        self.own: list[Array] = []

    def on_step_begin(self, training: Training) -> None:
        self.own.append(training.model.params["weight"].copy())

    def on_epoch_end(self, training: Training) -> None:
        self.seen.append(training.model.params["weight"].copy())


def test_the_average_is_judged_and_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 2)), rng.standard_normal((12, 1))
    plain, averaged = (fr.Linear(2, 1, dtype="float64", seed=1) for _ in range(2))
    steps, judged = Judged(), Judged()
    options: dict[str, Any] = {"epochs": 3, "batch_size": 4, "optimizer": lambda m: fr.SGD(m, lr=0.1)}
    first = partial(fr.fit, progress=False, seed=0)
    first(plain, x, y, callbacks=steps, **options)
    keep = fr.Checkpoint(tmp_path / "m", best_only=False)
    average = fr.training.AverageWeights(0.7)
    history = first(averaged, x, y, callbacks=[average, judged, keep], validation_data=(x, y), **options)
    own = [*steps.own, plain.params["weight"]]
    mean, means = own[0], []
    for t, weights in enumerate(own[1:], 1):
        keeps = min(0.7, (1 + t) / (10 + t))
        mean = keeps * mean + (1 - keeps) * weights
        means.append(mean)
    assert np.allclose(judged.own, steps.own, rtol=1e-14)  # training goes on with its own weights
    assert np.allclose(judged.seen, means[2::3], rtol=1e-14)
    assert np.allclose(averaged.params["weight"], means[-1], rtol=1e-14)
    assert np.array_equal(fr.load(tmp_path / "m").params["weight"], averaged.params["weight"])
    assert abs(history["val_loss"][-1] - np.mean((averaged(x) - y) ** 2)) <= 1e-14
    with pytest.raises(ValueError, match="AverageWeights: decay is 1; expected a number in"):
        fr.training.AverageWeights(1)


def test_the_best_average_is_restored() -> None:
    class Values(Callback):
        def on_epoch_end(self, training: Training) -> None:
            training.values["val_loss"] = [1.0, 0.0, 2.0, 3.0][training.epoch]

    judged, model = Judged(), fr.Linear(2, 1, seed=1)
    stop = fr.EarlyStopping(9, monitor="val_loss")
    fit(model, X, Y, epochs=4, callbacks=[fr.training.AverageWeights(0.5), Values(), stop, judged])
    assert np.array_equal(model.params["weight"], judged.seen[1])


# -------------------------------------------------------------------------------------------------------------- loggers


def test_values_are_written_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("an older one\n")
    options: dict[str, Any] = {"resume": tmp_path / "run", "metrics": "mae"}
    fit(fr.Linear(2, 1, seed=1), X, Y, epochs=2, callbacks=fr.training.CSVLogger(path), **options)
    history = fit(fr.Linear(2, 1, seed=1), X, Y, epochs=3, callbacks=fr.training.CSVLogger(path), **options)
    head, *rows = (line.split(",") for line in path.read_text().splitlines())
    assert head == ["epoch", "loss", "lr", "seconds", "mae"]
    assert [row[0] for row in rows] == ["1", "2", "3"] and [float(row[1]) for row in rows] == history["loss"]
    with pytest.raises(FileNotFoundError):
        fit(fr.Linear(2, 1), X, Y, epochs=1, callbacks=fr.training.CSVLogger(tmp_path / "no" / "log.csv"))


def test_values_are_written_for_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.event_file_writer import EventFileWriter

    events = []
    write = EventFileWriter.add_event
    monkeypatch.setattr(EventFileWriter, "add_event", lambda self, event: (events.append(event), write(self, event)))
    history = fit(fr.Linear(2, 1), X, Y, epochs=2, callbacks=fr.training.TensorBoard(tmp_path / "runs"))
    found = [(v.tag, event.step, v.simple_value) for event in events for v in event.summary.value]
    assert [step for tag, step, _ in found if tag == "loss"] == [1, 2]
    assert np.allclose([value for tag, _, value in found if tag == "loss"], history["loss"], rtol=1e-6)
    assert list((tmp_path / "runs").iterdir())
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="TensorBoard needs tensorboardX: pip install tensorboardX"):
        fr.training.TensorBoard(tmp_path)


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


@pytest.mark.parametrize("name", ["{loss:d}.st", "{epoch!z}.st", "{epoch:{digits}}.st", "{loss:.2q}.st"])
def test_a_path_that_no_value_can_be_written_in_is_an_error_at_once(name: str) -> None:
    """Otherwise the first epoch is lost."""
    with pytest.raises(ValueError, match=r"Checkpoint: path is .*expected such as"):
        fr.Checkpoint(name)


def test_a_checkpoint_makes_the_folders_its_path_names(tmp_path: Path) -> None:
    """Those of an epoch; one that is always the same is expected to be there."""
    x, y = np.zeros((4, 3, 2)), np.zeros((4, 3, 2))

    def learn(path: Path) -> None:
        checkpoint = fr.Checkpoint(path, best_only=False)
        fr.fit(fr.GRU(2, 2, seed=0), x, y, epochs=2, batch_size=4, progress=False, callbacks=checkpoint)

    learn(tmp_path / "{epoch}" / "model.st")
    assert sorted(path.parent.name for path in tmp_path.glob("*/model.st")) == ["1", "2"]
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        learn(tmp_path / "missing" / "{epoch}" / "model.st")
    with pytest.raises(IsADirectoryError, match="a folder; expected a file in it"):
        learn(tmp_path)


def test_functions_are_judged_before_training() -> None:
    """A schedule, a metric, an optimizer and a source that cannot be called as they will be."""
    training = fr.training
    with pytest.raises(TypeError, match=r"LearningRate: schedule takes \(a, b\); expected schedule\(epoch\)"):
        training.LearningRate(lambda a, b: 0.1)  # type: ignore[misc, arg-type]
    with pytest.raises(TypeError, match=r"BatchSource: source takes \(\); expected source\(epoch\)"):
        training.BatchSource(lambda: [])  # type: ignore[misc, arg-type]
    layer = fr.Linear(2, 1, seed=0)
    before = layer.params["weight"].copy()
    given: dict[str, Any]
    for given, message in (
        ({"metrics": [lambda pred: 1.0]}, r"metric <lambda> takes \(pred\); expected <lambda>\(pred, target, mask\)"),
        ({"optimizer": lambda: 1}, r"optimizer takes \(\); expected optimizer\(layer\)"),
    ):
        with pytest.raises(TypeError, match=message):
            fr.fit(layer, np.ones((2, 2)), np.ones((2, 1)), loss="mse", epochs=1, batch_size=2, **given)
    assert np.array_equal(layer.params["weight"], before)
    assert training.LearningRate(min).schedule is min  # has no signature to judge by


def test_a_log_without_a_folder_is_refused_before_training(tmp_path: Any) -> None:
    model = fr.GRU(2, 3, seed=0)
    before = model.state_dict()
    with pytest.raises(FileNotFoundError, match=r"CSVLogger: path is .*, but there is no folder"):
        fr.fit(
            model,
            np.zeros((4, 3, 2)),
            np.zeros((4, 3, 3)),
            epochs=1,
            batch_size=2,
            callbacks=fr.training.CSVLogger(tmp_path / "none" / "log.csv"),
            progress=False,
        )
    assert all(np.array_equal(model.params[name], array) for name, array in before.items())
