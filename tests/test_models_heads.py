"""A model with several outputs: its gradients, and training with a loss for each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.models import Heads, SequenceToSequence, SequenceToVector

RNG = np.random.default_rng(1)
TOKENS = [RNG.integers(0, 9, n) for n in (5, 3, 7, 1, 4, 6, 2, 5, 3, 4)]
Y: dict[str, Any] = {
    "tag": [RNG.integers(0, 4, len(each)) for each in TOKENS],
    "mood": RNG.integers(0, 2, len(TOKENS)),
    "size": RNG.standard_normal((len(TOKENS), 3)),
}
LOSS = {"tag": "cross_entropy", "mood": "cross_entropy", "size": "mse"}
POOLING = {"mood": "last", "size": "mean"}
HEADS = {"tag": 4, "mood": 2, "size": 3}


def layer() -> fr.Layer:
    return fr.LSTM(6, 5, bidirectional=True, dtype="float64", seed=1)


def embedding() -> fr.Embedding:
    return fr.Embedding(9, 6, dtype="float64", seed=2)


def make(**given: Any) -> Heads:
    return Heads(layer(), HEADS, **{"pooling": POOLING, "embedding": embedding(), "seed": 3} | given)


def alone(model: Heads, name: str) -> Any:
    """Return a model of one output with the same weights."""
    kind: Any = SequenceToVector if name in POOLING else SequenceToSequence
    options = {"pooling": POOLING[name]} if name in POOLING else {}
    made = kind(layer(), HEADS[name], embedding=embedding(), **options)
    made.load_state_dict(model.state_dict(), strict=False, rename={name: "head"})
    return made


def padded() -> tuple[Any, Any]:
    return fr.pad_sequences(TOKENS)


def test_each_output_is_that_of_a_model_alone() -> None:
    model, (x, lengths) = make(), padded()
    outputs = model(x, lengths)
    assert list(outputs) == list(HEADS) == list(model.output_names)
    trained, _ = model.forward(x, lengths)
    for name, y in outputs.items():
        assert y.tobytes() == alone(model, name)(x, lengths).tobytes() == trained[name].tobytes(), name


def test_resets_reach_the_layer() -> None:
    model, (x, lengths) = make(), padded()
    resets = np.random.default_rng(6).random(x.shape) < 0.3
    outputs = model(x, lengths, resets=resets)
    for name, y in outputs.items():
        assert y.tobytes() == alone(model, name)(x, lengths, resets=resets).tobytes(), name
    assert np.any(outputs["mood"] != model(x, lengths)["mood"])


@pytest.mark.parametrize("names", [["tag"], ["mood"], ["size", "tag"], ["mood", "size"], list(HEADS)])
def test_gradients_are_the_sums_of_those_of_models_alone(names: list[str]) -> None:
    model, (x, lengths) = make(), padded()
    outputs, tape = model.forward(x, lengths)
    dy = {name: np.random.default_rng(4).standard_normal(outputs[name].shape) for name in names}
    assert model.backward(tape, dy) is None
    total = {name: np.zeros_like(grad) for name, grad in model.grads.items()}
    for name in names:
        one = alone(model, name)
        _, tape = one.forward(x, lengths)
        one.backward(tape, dy[name])
        for key, grad in one.grads.items():
            total[key.replace("head.", f"{name}.")] += grad
    for key, grad in model.grads.items():
        assert np.max(np.abs(grad - total[key])) <= 1e-12, key


def test_the_gradient_of_vectors() -> None:
    model, x = make(embedding=None), np.random.default_rng(5).standard_normal((3, 4, 6))
    outputs, tape = model.forward(x)
    dx = model.backward(tape, outputs)

    def value(x: Any) -> float:
        return 0.5 * sum(float(np.square(y).sum()) for y in model(x).values())

    for at in ((0, 0, 0), (1, 3, 5), (2, 1, 2)):
        step = np.zeros_like(x)
        step[at] = 1e-6
        assert abs(dx[at] - (value(x + step) - value(x - step)) / 2e-6) <= 1e-8


def test_the_loss_is_the_weighted_sum_of_the_means() -> None:
    """Whatever the batches, and the labels of each output count for themselves."""
    model, weights = make(), {"tag": 0.5, "size": 2.0}
    singly = {
        name: fr.evaluate(alone(model, name), TOKENS, Y[name], loss=LOSS[name], batch_size=10)["loss"] for name in HEADS
    }
    for size in (1, 3, 10):
        found = fr.evaluate(
            model,
            TOKENS,
            Y,
            loss=LOSS,
            loss_weights=weights,
            metrics={"tag": ["accuracy"], "size": "mae"},
            batch_size=size,
        )
        assert list(found) == ["loss", "tag_loss", "mood_loss", "size_loss", "tag_accuracy", "size_mae"]
        assert all(abs(found[f"{name}_loss"] - value) <= 1e-12 for name, value in singly.items())
        assert abs(found["loss"] - (0.5 * singly["tag"] + singly["mood"] + 2 * singly["size"])) <= 1e-12


def gradient(x: Any, y: Any, batch_size: int, **options: Any) -> dict[str, Any]:
    """Return by how much an epoch of SGD moves the weights, slowly enough for the gradient not to change."""
    model = make()
    before = model.state_dict()
    fr.fit(
        *(model, x, y),
        **{"loss": LOSS, "optimizer": lambda m: fr.SGD(m, lr=1e-7), "epochs": 1, "seed": 1} | options,
        batch_size=batch_size,
        progress=False,
    )
    return {name: (before[name] - array) / 1e-7 for name, array in model.params.items()}


def test_a_step_is_the_sum_of_the_steps_of_models_alone() -> None:
    weights = {"tag": 0.25, "mood": 3.0}
    found = gradient(TOKENS, Y, 10, loss_weights=weights)
    total: dict[str, Any] = {}
    for name in HEADS:
        one = alone(make(), name)
        before = one.state_dict()
        options: dict[str, Any] = {"epochs": 1, "batch_size": 10, "progress": False}
        fr.fit(one, TOKENS, Y[name], loss=LOSS[name], optimizer=lambda m: fr.SGD(m, lr=1e-7), **options)
        for key, array in one.params.items():
            key = key.replace("head.", f"{name}.")
            step = weights.get(name, 1.0) * (before[key.replace(f"{name}.", "head.")] - array) / 1e-7
            total[key] = total.get(key, 0) + step
    for key, value in found.items():
        assert np.max(np.abs(value - total[key])) <= 1e-6, key


@pytest.mark.parametrize("batch_size", [1, 3])
def test_small_batches_give_the_gradient_of_one_large_one(batch_size: int) -> None:
    whole, parts = gradient(TOKENS, Y, 10), gradient(TOKENS, Y, batch_size)
    steps = math.ceil(10 / batch_size)
    if 10 % batch_size == 0:
        for key, value in parts.items():
            assert np.max(np.abs(value / steps - whole[key])) <= 1e-5, key
    together = gradient(TOKENS, Y, batch_size, accumulate=steps)
    for key, value in together.items():
        assert np.max(np.abs(value - whole[key])) <= 1e-6, key


def test_sources_weights_of_samples_and_classes() -> None:
    x, _ = padded()
    lengths = np.array([len(each) for each in TOKENS])
    tags = np.full(x.shape, -100)
    for row, each in zip(tags, Y["tag"], strict=True):
        row[: len(each)] = each
    y = Y | {"tag": tags}
    plain = gradient(x, y, 10, lengths=lengths)
    for key, value in gradient([(x, y, lengths)], None, 10).items():
        assert np.max(np.abs(value - plain[key])) <= 1e-6, key
    halves = [
        (x[half], {name: each[half] for name, each in y.items()}, lengths[half]) for half in (slice(5), slice(5, 10))
    ]
    made = gradient(lambda epoch: iter(halves), None, 10)
    assert all(np.isfinite(value).all() for value in made.values())
    twice = np.ones(10)
    twice[3] = 2.0
    longer = [*TOKENS, TOKENS[3]], {name: [*each, each[3]] for name, each in Y.items()}
    for weight in (twice, dict.fromkeys(HEADS, twice)):
        weighted = gradient(TOKENS, Y, 10, sample_weight=weight)
        for key, value in gradient(*longer, 11).items():
            assert np.max(np.abs(value - weighted[key])) <= 1e-5, key
    assert np.any(gradient(TOKENS, Y, 10, class_weight={"mood": "balanced"})["mood.weight"] != plain["mood.weight"])


def test_a_whole_run(tmp_path: Path) -> None:
    """Training, validation, callbacks that watch one output, resuming, files, predictions."""
    stop = fr.EarlyStopping(patience=50, monitor="val_tag_accuracy")
    options: dict[str, Any] = {
        **{"loss": LOSS, "metrics": {"tag": "accuracy"}, "batch_size": 3, "seed": 5, "progress": False},
        **{"validation_data": (TOKENS, Y), "optimizer": lambda m: fr.Adam(m, lr=2e-2)},
    }
    model = make()
    history = fr.fit(model, TOKENS, Y, epochs=60, callbacks=stop, **options)
    expected = ["loss", "lr", "seconds", "tag_loss", "mood_loss", "size_loss", "tag_accuracy", "val_loss"]
    assert (
        list(history)[:8] == expected and "val_mood_loss" in history and history.watched == ("val_tag_accuracy", True)
    )
    assert history["loss"][-1] < 0.3 * history["loss"][0] and max(history["val_tag_accuracy"]) > 0.95
    assert abs(sum(history[f"val_{name}_loss"][7] for name in HEADS) - history["val_loss"][7]) <= 1e-12
    whole, resumed = make(), make()
    first = fr.fit(whole, TOKENS, Y, epochs=4, **options)
    fr.fit(resumed, TOKENS, Y, epochs=2, resume=tmp_path / "run", **options)
    second = fr.fit(resumed, TOKENS, Y, epochs=4, resume=tmp_path / "run", **options)
    assert first["tag_loss"] == second["tag_loss"]
    assert all(resumed.params[name].tobytes() == array.tobytes() for name, array in whole.params.items())
    with pytest.raises(ValueError, match="was written with data"):
        fr.fit(resumed, TOKENS, Y | {"size": -Y["size"]}, epochs=9, resume=tmp_path / "run", **options)
    model.save(tmp_path / "model")
    loaded = fr.load(tmp_path / "model")
    made, again = fr.training.predict(model, TOKENS, batch_size=4), fr.training.predict(loaded, TOKENS)
    assert [each.shape for each in made["tag"]] == [(len(each), 4) for each in TOKENS]
    assert made["mood"].shape == (10, 2) and made["size"].shape == (10, 3)
    assert all(np.array_equal(a, b) for a, b in zip(made["tag"], again["tag"], strict=True))
    table = str(model)
    assert all(f"{name} (Linear)" in table for name in HEADS) and "(B, T, 4) (B, 2) (B, 3)" in table


def test_unknown_targets_and_values_that_are_not_finite() -> None:
    y = Y | {"size": Y["size"].copy()}
    y["size"][2] = np.nan
    options: dict[str, Any] = {"loss": LOSS, "epochs": 1, "batch_size": 4, "progress": False}
    with pytest.raises(FloatingPointError, match=r"y\['size'\] of sample 2 has NaN or infinity"):
        fr.fit(make(), TOKENS, y, **options)
    assert np.isfinite(fr.fit(make(), TOKENS, y, ignore_nan=True, **options)["loss"]).all()


def test_a_frozen_layer_below_heads_that_learn() -> None:
    model = make()
    model.freeze("layer", "embedding")
    before = model.state_dict()
    fr.fit(model, TOKENS, Y, loss=LOSS, epochs=1, batch_size=4, progress=False)
    changed = {name.split(".")[0] for name, array in model.params.items() if np.any(array != before[name])}
    assert changed == set(HEADS)


def batches(**y: Any) -> Iterator[Any]:
    yield TOKENS, y


def test_a_tuple_stands_for_the_outputs_in_their_order() -> None:
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "progress": False, "seed": 1}
    weights = {name: np.linspace(0.5, 1.5, 10) for name in HEADS}
    metrics = {"tag": ["accuracy"], "mood": ["accuracy"], "size": ["mae", "mse"]}
    factors = {"tag": 1.0, "mood": 0.5, "size": 2.0}
    expected = fr.fit(
        make(), TOKENS, Y, loss=LOSS, loss_weights=factors, metrics=metrics, sample_weight=weights, **options
    )
    model = make()
    found = fr.fit(
        model,
        TOKENS,
        tuple(Y[name] for name in HEADS),
        loss=[LOSS[name] for name in HEADS],
        loss_weights=[factors[name] for name in HEADS],
        metrics=[metrics[name] for name in HEADS],
        sample_weight=tuple(weights.values()),
        **options,
    )
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in found if name != "seconds")
    values = fr.training.evaluate(model, TOKENS, [Y[name] for name in HEADS], loss=tuple(LOSS.values()))
    assert values == fr.training.evaluate(model, TOKENS, Y, loss=LOSS)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y": (Y["tag"], Y["mood"])}, "fit: y is a tuple of 2; expected a dict with the model's outputs .*, or one"),
        ({"y": Y["mood"]}, r"fit: y is .*; expected a dict with the model's outputs 'tag', 'mood', 'size'"),
        ({"y": {"tag": Y["tag"]}}, "fit: y has 'tag'; expected the model's outputs 'tag', 'mood', 'size'"),
        ({"loss": {"tag": "mse"}}, "fit: loss has 'tag'; expected the model's outputs"),
        (
            {"loss_weights": {"tags": 1.0}},
            "fit: loss_weights is .*; expected a dict with some of the outputs tag, mood",
        ),
        ({"loss_weights": {"tag": -1.0}}, "fit: loss_weights is .*; expected numbers >= 0"),
        ({"loss_weights": dict.fromkeys(HEADS, 0)}, "of which not all are 0"),
        ({"metrics": {"tags": "accuracy"}}, "fit: metrics is .*; expected a dict with some of the outputs"),
        ({"sample_weight": {"tags": np.ones(10)}}, "fit: sample_weight has 'tags'; expected some of tag, mood, size"),
        ({"y": Y | {"mood": Y["mood"][:9]}}, r"fit: x has 10 and y\['mood'\] has 9 samples"),
        ({"stateful": 3}, "fit: stateful is set with several outputs"),
        (
            {"callbacks": fr.EarlyStopping(monitor="val_mood_loss")},
            "EarlyStopping: monitor is 'val_mood_loss'; expected one",
        ),
        ({"model": fr.GRU(6, 5)}, "fit: loss is a dict, but GRU has one output"),
        ({"model": fr.GRU(6, 5), "loss": "mse"}, "fit: y is a dict, but the model has one output"),
        (
            {"model": fr.GRU(6, 5), "loss": "mse", "y": Y["size"], "loss_weights": {}},
            "loss_weights is given, but GRU has one",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], match: str) -> None:
    given = {"model": make(), "x": TOKENS, "y": Y, "loss": LOSS} | change
    model = given["model"]
    before = model.state_dict()
    with pytest.raises((ValueError, TypeError), match=match):
        fr.fit(**given, epochs=1, batch_size=4, progress=False)
    assert all(np.array_equal(model.params[name], array) for name, array in before.items())


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"heads": {}}, "Heads: heads is .*; expected a dict with at least one head"),
        ({"heads": [3]}, "Heads: heads is .*; expected a dict with at least one head"),
        ({"heads": {"a.b": 3}}, "Heads: a head is named 'a.b'; expected the name of a Python variable"),
        ({"heads": {"layer": 3}}, "Heads: a head is named 'layer'"),
        ({"heads": {"a": fr.GRU(5, 2)}}, "Heads: head is .*; expected layers without a state"),
        ({"heads": {"a": 0}}, "out_features is 0"),
        ({"pooling": {"b": "mean"}}, "Heads: pooling is .*; expected a dict from some of a to 'last', 'mean', 'max'"),
        ({"pooling": {"a": "sum"}}, "Heads: pooling is"),
    ],
)
def test_a_model_that_cannot_be_made(given: dict[str, Any], match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        Heads(fr.GRU(3, 5), **{"heads": {"a": 2}} | given)


def test_gradients_that_do_not_fit() -> None:
    model, (x, lengths) = make(), padded()
    outputs, tape = model.forward(x, lengths)
    for dy, match in [
        (outputs["tag"], r"Heads: dy is .*; expected a dict of some of tag, mood, size"),
        ({}, "Heads: dy is empty"),
        ({"tags": outputs["tag"]}, "Heads: dy is 'tags'"),
        ({"mood": outputs["tag"]}, "Linear: dy has shape"),
    ]:
        with pytest.raises(ValueError, match=match):
            model.backward(tape, dy)


def test_other_models_and_diagnostics() -> None:
    model, x = make(embedding=None), np.random.default_rng(5).standard_normal((3, 4, 6))
    for make_model in (lambda: fr.Sequential(model, fr.Linear(4, 2)), lambda: SequenceToSequence(model, 3)):
        with pytest.raises(
            TypeError, match=r"is Heads with several outputs; expected one|is Heads\(.*'tag': Linear\(.*with one output"
        ):
            make_model()
    flow = fr.diagnostics.gradient_flow(model, x)
    assert len(flow) and "layer" in str(list(flow))
    with pytest.raises(TypeError, match="gradient_flow: target is given, but Heads has several outputs"):
        fr.diagnostics.gradient_flow(model, x, target=x)
