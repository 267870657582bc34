"""Layers that are frozen keep their weights, and cost nothing where nothing in front of them learns."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr

Array = NDArray[Any]
RNG = np.random.default_rng(0)
fit = partial(fr.fit, progress=False, seed=0, epochs=2, batch_size=4)
X, Y = RNG.standard_normal((8, 5, 2)), RNG.standard_normal((8, 5, 1))


class Counted(fr.GRU):
    """Count the calls of forward and backward."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        vars(self)["forwards"] = vars(self).get("forwards", 0) + 1
        return super().forward(*args, **kwargs)

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        vars(self)["backwards"] = vars(self).get("backwards", 0) + 1
        return super().backward(*args, **kwargs)


def counts(layer: fr.Layer) -> tuple[int, int]:
    return vars(layer).get("forwards", 0), vars(layer).get("backwards", 0)


def sequential() -> fr.Layer:
    return fr.Sequential(fr.Linear(2, 3, seed=1), Counted(3, 4, seed=2), fr.Linear(4, 1, seed=3))


def tagger() -> fr.Layer:
    return fr.models.SequenceToSequence(Counted(2, 4, seed=2), 1, seed=3)


def vector() -> fr.Layer:
    return fr.models.SequenceToVector(Counted(2, 4, seed=2), 1, pooling="mean", seed=3)


CASES: dict[str, tuple[Any, tuple[str, ...], Any]] = {
    "Sequential": (sequential, ("0", "1"), Y),
    "SequenceToSequence": (tagger, ("layer",), Y),
    "SequenceToVector": (vector, ("layer",), Y[:, 0]),
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("name", CASES)
def test_a_frozen_bottom_costs_nothing_and_stays(name: str, optimizer: str) -> None:
    make, names, y = CASES[name]
    model = make()
    model.freeze(*names)
    before = model.state_dict()
    frozen = model.frozen_names()
    fit(model, X, y, optimizer=optimizer, clip_norm=0.5)
    counted = next(layer for layer in model.layers() if isinstance(layer, Counted))
    assert counts(counted) == (0, 0)
    for key, array in model.params.items():
        assert np.array_equal(array, before[key]) == (key in frozen), key
    # What learns does so as behind features that were computed beforehand.
    head = list(model.layers())[-1]
    features = make()
    features.load_state_dict(before)
    alone = list(features.layers())[-1]
    if name != "SequenceToVector":
        body = fr.Sequential(*[layer for layer in list(features.children().values())[:-1]])
        fit(alone, body(X), y, optimizer=optimizer, clip_norm=0.5)
        for key, array in head.params.items():
            assert np.max(np.abs(array - alone.params[key])) <= 1e-6, key
    model.unfreeze()
    fit(model, X, y)
    assert counts(counted)[1] > 0 and not model.frozen_names()
    assert all(np.any(array != before[key]) for key, array in model.params.items() if array.any())


def test_a_frozen_layer_above_one_that_learns_passes_the_gradient_on() -> None:
    model, plain = sequential(), sequential()
    model.freeze("2")
    for each in (model, plain):
        pred, tape = each.forward(X)
        each.backward(tape, np.ones_like(pred))
    for key in ("0.weight", "1.weight_hh_l0"):
        assert np.array_equal(model.grads[key], plain.grads[key])
    assert not model.grads["2.weight"].any() and plain.grads["2.weight"].any()
    fit(model, X, Y)
    assert np.array_equal(model.params["2.weight"], plain.params["2.weight"])


def test_a_model_that_is_frozen_as_a_whole_still_gives_the_gradient_of_its_input() -> None:
    model, plain = sequential(), sequential()
    model.trainable = False
    results = []
    for each in (model, plain):
        pred, tape = each.forward(X)
        results.append(each.backward(tape, np.ones_like(pred)))
    assert np.array_equal(*results) and model.frozen_names() == model.params.keys()
    assert not fr.Sequential(fr.Linear(2, 2)).frozen_names()


def test_a_frozen_dropout_layer_still_drops() -> None:
    model = fr.Sequential(Counted(2, 3, 2, dropout=0.5, seed=1), fr.Linear(3, 1, seed=2))
    model.freeze("0")
    first, second = model.forward(X)[0], model.forward(X)[0]
    assert np.any(first != second)
    fit(model, X, Y)
    assert counts(model[0])[1] == 0


def test_a_frozen_encoder_and_embedding() -> None:
    source, inputs = RNG.integers(0, 6, (8, 4)), RNG.integers(0, 6, (8, 3))
    model = fr.models.EncoderDecoder(
        Counted(3, 4, seed=1),
        fr.GRU(3, 4, seed=2),
        6,
        source_embedding=fr.Embedding(6, 3, seed=3),
        target_embedding=fr.Embedding(6, 3, seed=4),
        attention="dot",
        start=0,
        end=1,
        seed=5,
    )
    model.freeze("source_embedding", "encoder")
    before = model.state_dict()
    fit(model, (source, inputs), inputs, loss="cross_entropy")
    assert counts(model.encoder) == (0, 0)
    same = {key for key, array in model.params.items() if np.array_equal(array, before[key])}
    assert same == model.frozen_names() and "source_embedding.weight" in same and "encoder.bias_hh_l0" in same


def test_clipping_looks_at_what_learns_alone() -> None:
    model = fr.Sequential(fr.Linear(2, 2, seed=1), fr.Linear(2, 1, seed=2))
    for grad in model.grads.values():
        grad.fill(3.0)
    model.freeze("0")
    assert fr.clip_grad_norm(model, 100.0) == pytest.approx(3 * np.sqrt(3))
    fr.clip_grad_value(model, 1.0)
    assert model.grads["0.weight"][0, 0] == 3 and model.grads["1.weight"][0, 0] == 1


def test_names_of_layers_to_freeze() -> None:
    model = fr.Sequential(tagger(), fr.Linear(1, 1))
    model.freeze("0.l*")
    assert {name.rpartition(".")[0] for name in model.frozen_names()} == {"0.layer"}
    model.freeze("0.head")
    assert not model[0].trainable  # all inside it is frozen
    with pytest.raises(
        ValueError, match=r"Sequential: no layer is named 'head'; expected one of 0, 0\.layer, 0\.head, 1"
    ):
        model.freeze("head")
    with pytest.raises(TypeError, match="Linear: trainable is 1; expected True or False"):
        model[1].trainable = 1  # type: ignore[assignment]


def test_the_states_of_a_frozen_layer_are_carried() -> None:
    """What stands in front of the head is the whole sequence's, whatever the segments."""
    model, plain = tagger(), tagger()
    model.freeze("layer")
    losses = [
        fit(each, X, Y, stateful=2, epochs=1, optimizer=lambda m: fr.SGD(m, lr=0.0))["loss"] for each in (model, plain)
    ]
    assert losses[0] == losses[1]
    flow = fr.diagnostics.gradient_flow(model, X)
    assert len(flow) == 1


def test_a_summary_counts_what_is_frozen() -> None:
    model = fr.Sequential(fr.LSTM(2, 3), fr.Linear(3, 1))
    assert "frozen" not in str(model.summary()) and model.summary().num_frozen == 0
    model.freeze("0")
    last = str(model.summary()).splitlines()[-2:]
    assert [line.split() for line in last] == [["total", "88"], ["frozen", "84"]]
    assert "frozen" in model._repr_html_()
