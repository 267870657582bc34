"""The training loop, its data, callbacks and history."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn.training import Callback, Training, cross_entropy, mse, schedules
from fusedrnn.training.criterion import Criterion
from fusedrnn.training.data import make_samples
from fusedrnn.training.loop import judged

Array = NDArray[Any]


def line() -> tuple[Array, Array]:
    """Samples of a linear function of two variables, 37 of them."""
    x = np.random.default_rng(0).standard_normal((37, 2))
    return x, x @ [[2.0], [-3.0]] + 0.5


def ragged() -> tuple[list[Array], list[Array]]:
    """Sequences of 0 to 6 steps, and their running sums."""
    rng = np.random.default_rng(1)
    x = [rng.standard_normal((n, 2)) for n in (4, 0, 6, 1, 3, 5, 2)]
    return x, [np.cumsum(sequence.sum(axis=1, keepdims=True), axis=0) for sequence in x]


def padded(sequences: list[Array], steps: int, fill: float = 0.0) -> Array:
    array = np.full((len(sequences), steps, *sequences[0].shape[1:]), fill)
    for row, sequence in zip(array, sequences, strict=True):
        row[: len(sequence)] = sequence
    return array


def bits(model: fr.Layer) -> bytes:
    return b"".join(array.tobytes() for array in model.params.values())


class Recorder(Callback):
    """Write down what is called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.rates: list[float] = []

    def on_train_begin(self, training: Training) -> None:
        self.calls.append("begin")

    def on_epoch_begin(self, training: Training) -> None:
        self.calls.append(f"epoch {training.epoch}")

    def on_step_begin(self, training: Training) -> None:
        self.calls.append(f"step {training.step}")
        self.rates.append(training.optimizer.lr)

    def on_epoch_end(self, training: Training) -> None:
        self.calls.append("epoch end")

    def on_train_end(self, training: Training) -> None:
        self.calls.append("end")


# ---------------------------------------------------------------------------------------------------------- training


def test_a_line_is_learned() -> None:
    x, y = line()
    model = fr.Linear(2, 1, dtype="float64", seed=1)
    history = fr.fit(
        model, x, y, optimizer=lambda m: fr.Adam(m, lr=0.1), epochs=80, batch_size=8, seed=2, progress=False
    )
    assert np.max(np.abs(model.params["weight"] - [[2.0, -3.0]])) <= 1e-3
    assert history.epochs == 80 and history["loss"][-1] <= 1e-5 * history["loss"][0]
    assert set(history) == {"loss", "lr", "seconds"} and history.stopped == ""


def test_one_epoch_is_the_loop_written_out() -> None:
    x, y = line()
    model, manual = fr.Linear(2, 1, dtype="float64", seed=1), fr.Linear(2, 1, dtype="float64", seed=1)
    history = fr.fit(model, x, y, optimizer="sgd", epochs=1, batch_size=10, clip_norm=0.5, seed=3, progress=False)
    optimizer = fr.SGD(manual)
    order = np.random.default_rng(3).permutation(37)
    total = 0.0
    for start in range(0, 37, 10):
        rows = order[start : start + 10]
        manual.zero_grad()
        pred, tape = manual.forward(x[rows])
        value, d_pred = mse(pred, y[rows])
        manual.backward(tape, d_pred)
        fr.clip_grad_norm(manual, 0.5)
        optimizer.step()
        total += value * len(rows)
    assert bits(model) == bits(manual)
    assert history["loss"] == [total / 37]


def test_the_same_seed_gives_the_same_bits() -> None:
    x, y = line()
    results = []
    for seed in (5, 5, 6):
        model = fr.Sequential(fr.Linear(2, 8, seed=1), fr.Activation("tanh"), fr.Dropout(0.3), fr.Linear(8, 1, seed=2))
        fr.fit(model, x, y, epochs=3, batch_size=8, seed=seed, progress=False)
        results.append(bits(model))
    assert results[0] == results[1] != results[2]


def test_validation_is_judged_in_inference_mode() -> None:
    x, y = line()
    model = fr.Sequential(fr.Linear(2, 1, dtype="float64", seed=1), fr.Dropout(0.9, seed=1))
    history = fr.fit(
        model, x, y, epochs=2, batch_size=8, validation_data=(x[:7], y[:7]), optimizer="sgd", progress=False
    )
    assert len(history["val_loss"]) == 2
    assert history["val_loss"][-1] == mse(model(x[:7]), y[:7])[0]
    assert abs(judged(model, [make_samples(x, y)], Criterion(mse), 5).value - mse(model(x), y)[0]) <= 1e-14


def test_classes_are_learned() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 6, (60, 3))
    labels = (tokens.sum(axis=1) > 7).astype(int)
    model = fr.Sequential(fr.Embedding(6, 4, seed=1), fr.Linear(4, 2, seed=2))

    def loss(pred: Array, target: Array, mask: Any = None) -> tuple[float, Array]:
        value, grad = cross_entropy(pred.mean(axis=1), target)
        return value, np.repeat(grad[:, np.newaxis] / 3, 3, axis=1).astype(pred.dtype)

    history = fr.fit(
        model,
        tokens,
        labels.tolist(),
        loss=loss,
        optimizer=fr.Adam(model, lr=0.1),
        epochs=30,
        batch_size=16,
        progress=False,
    )
    assert history["loss"][-1] <= 0.2


def test_progress_is_shown_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    x, y = line()
    fr.fit(fr.Linear(2, 1), x, y, epochs=2, batch_size=8, validation_data=(x, y), progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "10/10" in err and "val_loss=" in err and "epoch=2" in err and "step/s" in err
    fr.fit(fr.Linear(2, 1), x, y, epochs=2, batch_size=8, progress=False)
    assert capfd.readouterr() == ("", "")


# --------------------------------------------------------------------------------------------------------- sequences


def test_ragged_samples_are_padded() -> None:
    x, y = ragged()
    samples = make_samples(x, y)
    assert samples.x.shape == (7, 6, 2) and samples.y.shape == (7, 6, 1)
    assert samples.lengths is not None and samples.lengths.tolist() == [4, 0, 6, 1, 3, 5, 2]
    assert np.array_equal(samples.x, padded(x, 6))
    first = next(samples.batches(2))
    assert first.x.shape == (2, 4, 2) and first.y.shape == (2, 4, 1)
    labels = make_samples(x, list(range(7)))
    assert next(labels.batches(2)).y.tolist() == [0, 1]
    equal = make_samples([np.ones((3, 2))] * 4, np.ones(4))
    assert equal.lengths is None and equal.x.shape == (4, 3, 2)


def test_padding_does_not_count() -> None:
    x, y = ragged()
    results = []
    for fill in (0.0, np.nan):
        model = fr.Sequential(fr.Linear(2, 3, seed=1), fr.Linear(3, 1, seed=2))
        history = fr.fit(
            model,
            padded(x, 7, fill),
            padded(y, 7, fill),
            lengths=[len(sequence) for sequence in x],
            epochs=2,
            batch_size=3,
            seed=1,
            progress=False,
        )
        results.append((bits(model), history["loss"]))
    assert results[0] == results[1]
    flat = fr.Sequential(fr.Linear(2, 3, seed=1), fr.Linear(3, 1, seed=2))
    expected = judged(flat, [make_samples(np.concatenate(x), np.concatenate(y))], Criterion(mse), 100).value
    for batch_size in (3, 7):
        assert abs(judged(flat, [make_samples(x, y)], Criterion(mse), batch_size).value - expected) <= 1e-6


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_recurrent_models_learn_from_ragged_and_padded_samples_alike(name: str) -> None:
    x, y = ragged()
    lengths = [len(sequence) for sequence in x]
    losses = []
    for data in ((x, y, None), (padded(x, 9, np.nan), padded(y, 9, np.nan), lengths)):
        model = fr.Sequential(
            getattr(fr, name)(2, 8, dtype="float64", seed=1), fr.Linear(8, 1, dtype="float64", seed=2)
        )
        history = fr.fit(
            model,
            data[0],
            data[1],
            lengths=data[2],
            optimizer=lambda m: fr.Adam(m, lr=0.02),
            clip_norm=5.0,
            epochs=60,
            batch_size=3,
            validation_data=data if data[2] else data[:2],
            seed=4,
            progress=False,
        )
        losses.append(history["val_loss"])
    assert losses[0][-1] <= 0.1 * losses[0][0]
    assert np.allclose(losses[0], losses[1], rtol=1e-6, atol=0)


def test_a_recurrent_layer_alone_is_judged_by_y() -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 2))
    results = []
    for _ in range(2):
        model = fr.LSTM(2, 3, num_layers=2, dropout=0.4, seed=1)
        history = fr.fit(model, x, np.full((5, 4, 3), 0.3), epochs=20, batch_size=2, seed=1, progress=False)
        results.append(bits(model))
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert results[0] == results[1]


# --------------------------------------------------------------------------------------------------------- callbacks


def test_callbacks_are_called_in_order() -> None:
    x, y = line()
    recorder = Recorder()
    rate = fr.LearningRate(schedules.exponential(1e-3, 0.5))
    history = fr.fit(fr.Linear(2, 1), x, y, epochs=2, batch_size=20, callbacks=(rate, recorder), progress=False)
    assert recorder.calls == [
        *["begin", "epoch 0", "step 0", "step 1", "epoch end", "epoch 1", "step 2", "step 3", "epoch end", "end"]
    ]
    assert recorder.rates == [1e-3, 1e-3, 5e-4, 5e-4] and history["lr"] == [1e-3, 5e-4]
    each_step = fr.LearningRate(schedules.step_decay(1.0, 1, 0.5), every="step")
    fr.fit(fr.Linear(2, 1), x, y, epochs=1, batch_size=20, callbacks=(each_step, recorder), progress=False)
    assert recorder.rates[-2:] == [1.0, 0.5]
    with pytest.raises(ValueError, match="LearningRate: every is 'batch'"):
        fr.LearningRate(schedules.constant(1), every="batch")


class Script(Callback):
    """Let the model and its validation loss follow a script."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def on_epoch_end(self, training: Training) -> None:
        training.values["val_loss"] = self.losses[training.epoch]
        training.model.params["bias"][:] = training.epoch


def test_early_stopping_restores_the_best_weights(tmp_path: Path) -> None:
    x, y = line()
    losses = [5.0, 4.0, 3.95, math.nan, 3.9, 1.0]
    for restore, bias in ((True, 1.0), (False, 4.0)):
        model = fr.Linear(2, 1)
        stop = fr.EarlyStopping(patience=3, min_delta=0.2, restore_best=restore)
        path = tmp_path / f"{restore}.safetensors"
        keep = fr.Checkpoint(path)
        history = fr.fit(model, x, y, epochs=6, batch_size=37, callbacks=(Script(losses), keep, stop), progress=False)
        assert history.epochs == 5 and history.stopped == "no improvement in 3 epochs"
        assert model.params["bias"][0] == bias
        assert fr.load(path).params["bias"][0] == 4.0


def test_checkpoints_of_every_epoch_and_unknown_monitors(tmp_path: Path) -> None:
    x, y = line()
    path = tmp_path / "m.safetensors"
    every = fr.Checkpoint(path, best_only=False)
    fr.fit(fr.Linear(2, 1), x, y, epochs=3, batch_size=37, callbacks=(Script([1, 2, 3]), every), progress=False)
    assert fr.load(path).params["bias"][0] == 2.0
    with pytest.raises(ValueError, match="EarlyStopping: monitor is 'accuracy'; expected one of loss"):
        fr.fit(
            fr.Linear(2, 1),
            x,
            y,
            epochs=1,
            batch_size=37,
            callbacks=[fr.EarlyStopping(monitor="accuracy")],
            progress=False,
        )


def test_an_interrupt_loses_nothing() -> None:
    class Interrupt(Callback):
        def on_step_begin(self, training: Training) -> None:
            if training.epoch == 2 and training.step == 5:
                raise KeyboardInterrupt

    x, y = line()
    recorder = Recorder()
    model = fr.Linear(2, 1)
    best = fr.EarlyStopping(patience=9)
    with pytest.raises(KeyboardInterrupt) as caught:
        fr.fit(model, x, y, epochs=9, batch_size=20, callbacks=(Interrupt(), recorder, best), progress=False)
    history = caught.value.history  # type: ignore[attr-defined]
    assert history.epochs == 2 and history.stopped == "interrupted" and recorder.calls[-1] == "end"


class Failing(Recorder):
    """Fail where it is told to, after writing it down; all of a test write into one list."""

    def __init__(self, name: str, calls: list[str], fails: str = "") -> None:
        super().__init__()
        self.name, self.shared, self.fails = name, calls, fails

    def on_train_begin(self, training: Training) -> None:
        self._note("begin")

    def on_train_end(self, training: Training) -> None:
        self._note("end")

    def _note(self, what: str) -> None:
        self.shared.append(f"{what} {self.name}")
        if what == self.fails:
            raise OSError(f"{what} {self.name}")


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (("end", "", "end"), ["begin a", "begin b", "begin c", "end a", "end b", "end c"]),
        (("", "begin", ""), ["begin a", "begin b", "end a", "end b"]),
        (("end", "begin", ""), ["begin a", "begin b", "end a", "end b"]),
    ],
)
def test_what_began_ends_whatever_other_callbacks_raise(fails: tuple[str, ...], expected: list[str]) -> None:
    calls: list[str] = []
    callbacks = [Failing(name, calls, fail) for name, fail in zip("abc", fails, strict=True)]
    with pytest.raises(OSError):
        fr.fit(fr.Linear(2, 1), *line(), epochs=1, batch_size=40, callbacks=callbacks, progress=False)
    assert calls == expected


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("rate", [-1.0, math.nan, None, "fast"])
def test_a_schedule_returns_a_learning_rate(rate: Any) -> None:
    model = fr.Linear(2, 1)
    before = bits(model)
    schedule = fr.LearningRate(lambda step: 0.1 if step == 0 and rate == "fast" else rate)
    match = rf"LearningRate: schedule returned {rate!r} for epoch {int(rate == 'fast')}; expected a number >= 0"
    with pytest.raises(ValueError, match=match):
        fr.fit(model, *line(), epochs=2, batch_size=40, callbacks=[schedule], progress=False)
    assert (bits(model) == before) == (rate != "fast")


def test_a_history_is_plain_numbers() -> None:
    schedule = fr.LearningRate(lambda step: np.float32(0.5))  # type: ignore[arg-type, return-value]
    history = fr.fit(fr.Linear(2, 1), *line(), epochs=1, batch_size=8, callbacks=[schedule], progress=False)
    assert json.loads(json.dumps(history))["lr"] == [0.5]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "fit: epochs is 0"),
        ({"batch_size": -1}, ValueError, "fit: batch_size is -1"),
        ({"batch_size": 2.5}, TypeError, "fit: batch_size is 2.5"),
        ({"loss": "l2"}, ValueError, "loss is 'l2'"),
        ({"optimizer": "adamax"}, ValueError, "optimizer is 'adamax'"),
        ({"loss": ["mse"]}, ValueError, r"loss is \['mse'\]; expected a callable or one of mse"),
        ({"optimizer": None}, TypeError, "optimizer is a NoneType; expected an Optimizer, a callable"),
        ({"clip_norm": 0}, ValueError, "fit: clip_norm is 0; expected a positive number"),
        ({"clip_norm": -1.0}, ValueError, "fit: clip_norm is -1"),
        ({"clip_norm": math.nan}, ValueError, "fit: clip_norm is nan"),
        ({"clip_norm": "1"}, TypeError, "fit: clip_norm is '1'; expected a number"),
        ({"x": np.ma.masked_equal(np.zeros((37, 2)), 0)}, TypeError, "fit: x is a MaskedArray with masked elements"),
        ({"y": np.zeros((36, 1))}, ValueError, "fit: x has 37 and y has 36 samples"),
        ({"y": np.zeros(37)}, ValueError, r"mse: target has shape"),
        ({"x": np.zeros((37, 2), complex)}, TypeError, "fit: x has dtype complex128"),
        ({"y": ["a"] * 37}, TypeError, "fit: y has dtype"),
        ({"x": 3.0}, ValueError, r"fit: x has shape \(\)"),
        ({"x": np.zeros((0, 2)), "y": np.zeros((0, 1))}, ValueError, "fit: x has 0 samples; expected at least one"),
        ({"validation_data": 1.5}, ValueError, r"fit: validation_data is 1.5; expected a share .* in \(0, 1\)"),
        ({"validation_data": "x"}, TypeError, "fit: validation_data is a str; expected"),
        ({"validation_data": (np.ones((2, 2)),)}, ValueError, "fit: validation_data has 1 parts; expected"),
        (
            {"validation_data": (np.ones((2, 2)), np.ones((3, 1)))},
            ValueError,
            "fit: validation_data: x has 2 and y has 3 samples",
        ),
        ({"loss": "l2"}, ValueError, "fit: loss is 'l2'; expected a callable or one of mse"),
        ({"optimizer": "adamx"}, ValueError, "fit: optimizer is 'adamx'; expected one of sgd"),
        ({"metrics": "f1"}, ValueError, "fit: metric is 'f1'; expected a callable or one of accuracy"),
        ({"callbacks": 3}, TypeError, "fit: callbacks is an int; expected one or an iterable"),
        ({"callbacks": fr.EarlyStopping}, TypeError, "fit: callbacks is the class EarlyStopping; expected one"),
        ({"callbacks": [print]}, TypeError, "fit: a callback is a builtin_function_or_method; expected a fusedrnn"),
        ({"metrics": 3}, TypeError, "fit: metrics is an int; expected one or an iterable"),
        ({"seed": "a"}, TypeError, "fit: seed is 'a'; expected an integer"),
        ({"lengths": [1, 2]}, ValueError, "fit: lengths has shape"),
        ({"lengths": [1.0] * 37}, TypeError, "lengths has dtype"),
        ({"x": [np.zeros((1, 2)), np.zeros((2, 3))], "y": np.zeros(2)}, ValueError, "fit: x has samples of unlike"),
        (
            {"x": [np.zeros((1, 2)), np.zeros((2, 2))], "y": [np.zeros((2, 1)), np.zeros((1, 1))]},
            ValueError,
            r"fit: y\[0\] has 2 time steps; expected 1",
        ),
        (
            {"x": [np.zeros((1, 2)), np.zeros((2, 2))], "y": np.zeros(2), "lengths": [1, 2]},
            ValueError,
            "fit: got lengths together with ragged sequences",
        ),
    ],
)
def test_fit_checks_its_arguments(change: dict[str, Any], error: type[Exception], match: str) -> None:
    x, y = line()
    arguments: dict[str, Any] = {"x": x, "y": y, "epochs": 1, "batch_size": 8, "progress": False, **change}
    with pytest.raises(error, match=match):
        fr.fit(fr.Linear(2, 1), **arguments)


def test_one_callback_and_one_metric_need_no_list() -> None:
    x, y = line()
    recorder, options = Recorder(), {"epochs": 1, "batch_size": 40, "progress": False}
    history = fr.fit(fr.Linear(2, 1), x, y, callbacks=recorder, metrics="mae", **options)
    assert recorder.calls[0] == "begin" and "mae" in history
    assert "mse" not in fr.fit(fr.Linear(2, 1), x, y, metrics=lambda *_: 1.0, **options)


def test_models_are_evaluated_as_validation_data_is() -> None:
    x, y = ragged()
    model = fr.models.SequenceToSequence(fr.GRU(2, 3, seed=1), 1, seed=2)
    history = fr.fit(model, x, y, validation_data=(x, y), metrics="mae", epochs=1, batch_size=3, progress=False)
    result = fr.training.evaluate(model, x, y, batch_size=3, metrics="mae")
    assert result == {"loss": history["val_loss"][0], "mae": history["val_mae"][0]}
    with pytest.raises(ValueError, match="evaluate: x has 7 and y has 6 samples"):
        fr.training.evaluate(model, x, y[:6])


def test_fit_refuses_time_major_models() -> None:
    model = fr.Sequential(fr.GRU(2, 1, batch_first=False))
    with pytest.raises(ValueError, match="fit: the model has batch_first=False"):
        fr.fit(model, np.zeros((3, 4, 2)), np.zeros((3, 4, 1)), epochs=1, batch_size=2, progress=False)


def test_a_limit_of_clipping_is_refused_before_the_first_batch() -> None:
    class Untouched(fr.Linear):
        def forward(self, x: Any) -> Any:
            raise AssertionError

    for name in ("clip_norm", "clip_value"):
        with pytest.raises(ValueError, match=f"fit: {name} is 0; expected a positive number"):
            fr.fit(Untouched(2, 1), *line(), epochs=1, batch_size=8, progress=False, **{name: 0})


def test_lengths_beyond_the_data_are_refused() -> None:
    x = np.zeros((2, 4, 2))
    for wrong in ([5, 1], [-1, 1]):
        with pytest.raises(ValueError, match="lengths"):
            fr.fit(fr.Linear(2, 1), x, x[..., :1], lengths=wrong, epochs=1, batch_size=2, progress=False)


# ----------------------------------------------------------------------------------------------------------- history


def make_history(losses: list[float], val_losses: list[float] | None = None) -> fr.History:
    history = fr.History()
    for epoch, value in enumerate(losses):
        history.record({"loss": value} | ({} if val_losses is None else {"val_loss": val_losses[epoch]}))
    return history


def test_history_knows_its_best_epoch() -> None:
    assert fr.History().best_epoch == -1 and fr.History().epochs == 0
    assert make_history([3, 2, 1], [3, 1, 2]).best_epoch == 1
    assert make_history([math.nan, 2, 1]).best_epoch == 2


@pytest.mark.parametrize(
    ("losses", "val_losses", "scale"),
    [([3, 2, 1.5], [3, 1, 2], "linear"), ([100, 1, 0.1], None, "log"), ([1, math.nan], None, "linear")],
)
def test_history_plots_itself(losses: list[float], val_losses: Any, scale: str, tmp_path: Path) -> None:
    figure = make_history(losses, val_losses).plot(tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"
    (axes,) = figure.axes
    assert axes.get_yscale() == scale and axes.get_xlabel() == "epoch"
    labels = [line.get_label() for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    assert labels == ["training", "validation"][: 1 + (val_losses is not None)]
    with pytest.raises(ValueError, match="there is no finished epoch"):
        fr.History().plot()
