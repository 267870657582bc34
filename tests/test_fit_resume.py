"""A run that ends early, of whatever cause, goes on from its file to the same bits."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.training import Callback, Training, schedules
from scripts import run_python

Array = NDArray[Any]
RNG = np.random.default_rng(0)
X = [RNG.standard_normal((n, 2)).astype("float32") for n in RNG.integers(1, 9, 23)]
Y = [sequence.cumsum(axis=0)[:, :1] for sequence in X]


class Interrupt(Callback):
    """End the run in the middle of an epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, training: Training) -> None:
        if training.step == self.step:
            raise KeyboardInterrupt


def make(seed: int = 1) -> fr.Layer:
    layers = fr.GRU(2, 5, 2, dropout=0.3, seed=seed), fr.Dropout(0.2, seed=seed + 1)
    return fr.models.SequenceToSequence(fr.Sequential(*layers), 1, seed=seed + 2)


def callbacks() -> list[Callback]:
    return [
        fr.training.AverageWeights(0.8),
        fr.EarlyStopping(4),
        fr.training.ReduceOnPlateau(0.5, patience=1, min_delta=0.05),
        fr.SpectralNormLimit(0.9),
    ]


RUNS: dict[str, dict[str, Any]] = {
    "adam": {},
    "sgd": {"optimizer": lambda m: fr.SGD(m, lr=0.05, momentum=0.9), "bucket_by_length": True, "clip_norm": 1.0},
    "held out at random": {"validation_data": 0.25, "accumulate": 2},
    "schedule": {"callbacks": lambda: [fr.LearningRate(schedules.cosine(0.1, 30), every="step")]},
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("step", [0, 9, 14])
def test_an_interrupted_run_goes_on_to_the_same_bits(name: str, step: int, tmp_path: Path) -> None:
    options = {"epochs": 5, "batch_size": 4, "seed": 3, "progress": False, **RUNS[name]}
    made = options.pop("callbacks", callbacks)
    path, fit = tmp_path / "run.ckpt", partial(fr.fit, x=X, y=Y, **options)
    whole, broken, resumed = make(), make(), make()
    first = fit(whole, callbacks=made())
    with pytest.raises(KeyboardInterrupt):
        fit(broken, callbacks=[Interrupt(step), *made()], resume=path)
    assert path.exists() == (step > 0)
    if path.exists():
        resumed = make(7)  # other weights: all comes from the file
    history = fit(resumed, callbacks=made(), resume=path)
    assert_same(resumed, whole, history, first)
    again = fit(make(9), callbacks=made(), resume=path)
    assert again.epochs == history.epochs  # nothing is left to do


def test_a_run_without_a_seed_goes_on_as_it_began(tmp_path: Path) -> None:
    """The samples that are held out at random, and the order of the others, come from the file."""
    options: dict[str, Any] = {"batch_size": 4, "validation_data": 0.25, "progress": False}
    begun, path = tmp_path / "begun", tmp_path / "run"
    fr.fit(make(), X, Y, epochs=1, resume=begun, **options)
    results = []
    for epochs in ((4,), (2, 3, 4)):
        path.write_bytes(begun.read_bytes())
        model = make(8)
        for count in epochs:
            history = fr.fit(model, X, Y, epochs=count, resume=path, **options)
        results.append((model, history))
    assert_same(results[0][0], results[1][0], results[0][1], results[1][1])


def assert_same(model: fr.Layer, other: fr.Layer, history: fr.History, first: fr.History) -> None:
    for name, array in model.params.items():
        assert array.tobytes() == other.params[name].tobytes(), name
    assert {k: v for k, v in history.items() if k != "seconds"} == {k: v for k, v in first.items() if k != "seconds"}
    assert history.stopped == first.stopped


def test_more_epochs_go_on_where_fewer_ended(tmp_path: Path) -> None:
    path, options = tmp_path / "run.ckpt", {"batch_size": 4, "seed": 3, "progress": False}
    whole, parts = make(), make()
    first = fr.fit(whole, X, Y, epochs=5, **options)
    for epochs in (1, 2, 5):
        history = fr.fit(parts, X, Y, epochs=epochs, resume=path, **options)
        assert history.epochs == epochs
    assert_same(parts, whole, history, first)


def test_a_stopped_run_stays_stopped(tmp_path: Path) -> None:
    class Worse(Callback):
        def on_epoch_end(self, training: Training) -> None:
            training.values["val_loss"] = float(training.epoch)

    options: dict[str, Any] = {"epochs": 9, "batch_size": 9, "seed": 3, "progress": False, "resume": tmp_path / "run"}
    model, resumed = make(), make(5)
    first = fr.fit(model, X, Y, callbacks=[Worse(), fr.EarlyStopping(2)], **options)
    history = fr.fit(resumed, X, Y, callbacks=[Worse(), fr.EarlyStopping(2)], **options)
    assert_same(resumed, model, history, first)
    assert first.epochs == 3 and first.stopped == "no improvement in 2 epochs"


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """SIGKILL in the middle of the third epoch, in a process of its own; the same call again finishes the run."""
    path = tmp_path / "run.ckpt"
    code = """
        import os, signal
        import numpy as np
        import fusedrnn as fr

        class Kill(fr.training.Callback):
            def on_step_begin(self, training):
                if training.step == 7 and os.environ["KILL"]:
                    os.kill(os.getpid(), signal.SIGKILL)

        x = np.random.default_rng(0).standard_normal((12, 5, 2))
        model = fr.models.SequenceToSequence(fr.LSTM(2, 3, seed=1), 1, seed=2)
        resume = os.environ["RESUME"] or None
        fr.fit(model, x, x[..., :1], epochs=4, batch_size=4, seed=0, resume=resume, callbacks=Kill(), progress=False)
        print(sum(float(a.sum(dtype=float)) for a in model.params.values()).hex())
    """
    killed = run_python(code, check=False, KILL="1", RESUME=str(path))
    assert killed.returncode == -signal.SIGKILL and path.exists()
    resumed, whole = (run_python(code, KILL="", RESUME=resume).stdout for resume in (str(path), ""))
    assert resumed == whole != ""


@pytest.mark.parametrize("listed", [False, True])
def test_a_source_that_starts_again_can_be_resumed(listed: bool, tmp_path: Path) -> None:
    def batches(epoch: int) -> Iterator[Any]:
        for start in range(0, 20, 5):
            yield X[start : start + 5], Y[start : start + 5]

    source: Any = list(batches(0)) if listed else batches
    options: dict[str, Any] = {"batch_size": 9, "seed": 3, "progress": False}
    whole, resumed = make(), make()
    first = fr.fit(whole, source, epochs=3, **options)
    fr.fit(resumed, source, epochs=2, resume=tmp_path / "run", **options)
    history = fr.fit(resumed, source, epochs=3, resume=tmp_path / "run", **options)
    assert_same(resumed, whole, history, first)
    with pytest.raises(ValueError, match="fit: resume is given with an iterator, which cannot start again"):
        fr.fit(resumed, iter(batches(0)), epochs=3, resume=tmp_path / "run", **options)


def test_files_of_other_runs_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "seed": 3, "progress": False, "resume": path}
    fr.fit(make(), X, Y, **options)
    content = path.read_bytes()
    model = make(4)
    before = model.state_dict()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"batch_size": 5}, "was written with batch_size 4; expected the same, got 5"),
        ({"optimizer": "sgd"}, 'was written with optimizer "Adam"; expected the same, got "SGD"'),
        ({"x": X[:9], "y": Y[:9]}, "was written with samples 23; expected the same, got 9"),
        ({"accumulate": 3}, "was written with accumulate 1"),
        ({"loss": "mae"}, 'was written with loss "mse"; expected the same, got "mae"'),
        ({"x": [X[0] + 1e-6, *X[1:]]}, "was written with data"),
        ({"y": [*Y[:-1], -Y[-1]]}, "was written with data"),
        ({"sample_weight": np.ones(len(X))}, "was written with data"),
    ]
    for change, match in cases:
        with pytest.raises(ValueError, match=f"fit: resume: .*run.ckpt {match}"):
            fr.fit(model, **{"x": X, "y": Y, **options, **change})
    with pytest.raises(ValueError, match="has the state of a EarlyStopping; expected callbacks EarlyStopping"):
        fr.fit(make(), X, Y, **{**options, "resume": tmp_path / "stops", "callbacks": fr.EarlyStopping()})
        fr.fit(make(), X, Y, **{**options, "resume": tmp_path / "stops"})
    with pytest.raises(ValueError, match="was written with model"):
        fr.fit(fr.Linear(2, 1), X, Y, **options)
    wider = fr.models.SequenceToSequence(fr.Sequential(fr.GRU(2, 5, 2, dropout=0.3), fr.Dropout(0.2)), 2)
    differ = [f'{{"head.weight": [{n}, 5], "head.bias": [{n}]}}' for n in (1, 2)]
    with pytest.raises(ValueError, match=re.escape(f"with model {differ[0]}; expected the same, got {differ[1]}")):
        fr.fit(wider, X, [each.repeat(2, axis=1) for each in Y], **options)
    damage: list[tuple[bytes, str]] = [
        (content[:-3], "its tensors take|a shape that is none"),
        (b"", "expected a whole safetensors file"),
        (
            content[:-3] + bytes([content[-3] ^ 1]) + content[-2:],
            "was changed after it was written: its che",
        ),
    ]
    for changed, match in damage:
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=match):
            fr.fit(model, X, Y, **options)
    model.save(path)
    with pytest.raises(ValueError, match="does not hold the state of a run; expected a file that fit"):
        fr.fit(model, X, Y, **options)
    with pytest.raises(IsADirectoryError, match=r"fit: resume is .*, a folder; expected a file in it"):
        fr.fit(model, X, Y, **{**options, "resume": tmp_path})
    with pytest.raises(FileNotFoundError, match=r"fit: resume is .*, but there is no folder"):
        fr.fit(model, X, Y, **{**options, "resume": tmp_path / "none" / "run"})
    assert all(np.array_equal(model.params[name], array) for name, array in before.items())


def test_what_is_not_finite_survives_a_file(tmp_path: Path) -> None:
    class Record(Callback):
        def on_epoch_end(self, training: Training) -> None:
            training.history["odd"] = [math.nan, math.inf, -math.inf, 0.1 + 0.2]

    options: dict[str, Any] = {"batch_size": 9, "seed": 3, "progress": False, "resume": tmp_path / "run"}
    fr.fit(make(), X, Y, epochs=1, callbacks=Record(), **options)
    history = fr.fit(make(), X, Y, epochs=1, callbacks=Record(), **options)
    assert math.isnan(history["odd"][0]) and history["odd"][1:] == [math.inf, -math.inf, 0.1 + 0.2]


def test_the_bar_goes_on_as_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for epochs in (1, 3):
        fr.fit(make(), X, Y, epochs=epochs, batch_size=12, seed=0, resume=tmp_path / "run")
    err = capfd.readouterr().err
    assert "2/2" in err and "6/6" in err and "2/6" in err and "0/6" not in err
