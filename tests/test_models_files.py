"""Models in files, by seed, and their summaries."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn import models
from model_cases import CASES, LENGTHS, arguments, encoder_decoder, keywords
from tolerance import assert_same_bits

Array = NDArray[Any]


def adam(rate: float) -> Any:
    return lambda model: fr.Adam(model, lr=rate)


@pytest.mark.parametrize("name", CASES)
def test_models_are_saved_and_loaded(name: str, dtype: str, tmp_path: Path) -> None:
    case = CASES[name]
    model, inputs = arguments(case, dtype)
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = fr.load(path)
    assert type(loaded) is type(model) and loaded.config() == model.config()
    assert list(loaded.params) == list(model.params)
    assert_same_bits(loaded(*inputs, **keywords(case)), model(*inputs, **keywords(case)))
    assert repr(model).startswith(f"{model.op}(") and "{" not in repr(model)


def test_shared_embeddings_stay_shared(tmp_path: Path) -> None:
    table = fr.Embedding(6, 4, seed=1)
    model = models.EncoderDecoder(fr.GRU(4, 5), fr.GRU(4, 5), 6, source_embedding=table, target_embedding=table)
    model.save(tmp_path / "m.safetensors")
    loaded: Any = fr.load(tmp_path / "m.safetensors")
    assert loaded.source_embedding is loaded.decoder.embedding


def trained(model: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> list[Array]:
    """Make a step of an optimizer; return the outputs of training and of inference."""
    optimizer = fr.Adam(model, lr=0.01)
    y, tape = model.forward(*inputs, **options)
    model.backward(tape, np.ones_like(y))
    optimizer.step()
    return [y, model(*inputs, **options)]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("name", CASES)
def test_copies_are_equal_and_independent(name: str, again: Callable[[Any], Any]) -> None:
    case = CASES[name]
    model, inputs = arguments(case, "float32")
    options = keywords(case)
    before = model.state_dict()
    other = again(model)
    assert other.config() == model.config() and list(other.params) == list(model.params)
    assert other.num_parameters == model.num_parameters
    assert_same_bits(other(*inputs, **options), model(*inputs, **options))
    expected = trained(other, inputs, options)
    for key, value in model.params.items():
        assert_same_bits(value, before[key])
        assert not np.any(model.grads[key])
        assert other.grads[key].shape == value.shape
    for value, truth in zip(trained(model, inputs, options), expected, strict=True):
        assert_same_bits(value, truth)


def test_copies_keep_what_is_shared_and_the_state_of_dropout() -> None:
    table, cell = fr.Embedding(6, 4, seed=1), fr.GRU(4, 4, 2, dropout=0.5, seed=2)
    model = fr.Sequential(table, cell, cell, fr.Dropout(0.5, seed=3))
    ids = np.array([[1, 5, 2]])
    model.forward(ids)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other[1] is other[2] and other[1] is not cell
        assert other.num_parameters == model.num_parameters
        expected = [copy.deepcopy(model).forward(ids)[0] for _ in range(2)]
        assert_same_bits(other.forward(ids)[0], expected[0])
        assert np.any(other.forward(ids)[0] != expected[1])
    pair = copy.deepcopy([table, model])
    assert pair[1][0] is pair[0]
    encoder = models.EncoderDecoder(fr.GRU(4, 5), fr.GRU(4, 5), 6, source_embedding=table, target_embedding=table)
    assert copy.deepcopy(encoder).num_parameters == encoder.num_parameters


def test_models_go_to_other_processes() -> None:
    model = models.SequenceToVector(fr.LSTM(3, 5, 2, bidirectional=True, seed=1), 2, seed=2)
    x = np.random.default_rng(0).standard_normal((4, 6, 3)).astype("f4")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert_same_bits(pool.submit(model, x).result(), model(x))


def test_a_seed_means_one_set_of_weights() -> None:
    for make in (
        lambda seed: models.SequenceToSequence(fr.GRU(2, 3, seed=1), 4, seed=seed),
        lambda seed: models.SequenceToVector(fr.GRU(2, 3, seed=1), 4, seed=seed),
        lambda seed: models.VectorToSequence(fr.GRU(2, 3, seed=1), 2, vector_size=4, seed=seed),
        lambda seed: models.EncoderDecoder(
            fr.GRU(2, 3, seed=1), fr.LSTM(2, 3, seed=1), 2, attention="general", seed=seed
        ),
        lambda seed: models.SequenceAutoencoder(fr.GRU(2, 3, seed=1), fr.GRU(2, 3, seed=1), code_size=2, seed=seed),
        lambda seed: models.StackedAutoencoder((4, 3, 2), seed=seed),
    ):
        first, second, other = make(1).state_dict(), make(1).state_dict(), make(2).state_dict()
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_summaries_say_shapes_and_parameters() -> None:
    table = fr.Sequential(fr.Embedding(10, 4), fr.Bidirectional(fr.LSTM(4, 6), "concat"), fr.Linear(12, 3)).summary()
    assert [(row.name, row.depth, row.kind, row.shape, row.parameters) for row in table.rows] == [
        ("", 0, "Sequential", ("B", "T", 3), 651),
        ("0", 1, "Embedding", ("B", "T", 4), 40),
        ("1", 1, "Bidirectional", ("B", "T", 12), 576),
        ("forward", 2, "LSTM", ("B", "T", 6), 288),
        ("reverse", 2, "LSTM", ("B", "T", 6), 288),
        ("2", 1, "Linear", ("B", "T", 3), 39),
    ] or table.num_parameters != 651
    text = str(encoder_decoder("float32").summary())
    for part in ("encoder (GRU)", "(B, S, 10)", "(2, B, 6) (2, B, 6)", "attention (Attention)", "(B, T, 6)", "total"):
        assert part in text
    assert f"{encoder_decoder('float32').num_parameters:,}" in text.splitlines()[-1]


def test_print_shows_a_tree() -> None:
    """``str`` of a composite is its table, of a single layer the call that makes it; ``repr`` always is the call."""
    inner = fr.Sequential(fr.Bidirectional(fr.LSTM(4, 6), "sum"), fr.Dropout(0.5))
    model = fr.Sequential(inner, fr.Linear(6, 3))
    assert str(model).splitlines() == [
        "layer                     output shape   parameters",
        "───────────────────────────────────────────────────",
        "Sequential                (B, T, 3)             597",
        "├─ 0 (Sequential)         (B, T, 6)             576",
        "│  ├─ 0 (Bidirectional)   (B, T, 6)             576",
        "│  │  ├─ forward (LSTM)   (B, T, 6)             288",
        "│  │  └─ reverse (LSTM)   (B, T, 6)             288",
        "│  └─ 1 (Dropout)         (B, T, 6)               0",
        "└─ 1 (Linear)             (B, T, 3)              21",
        "───────────────────────────────────────────────────",
        "total                                           597",
    ]
    assert repr(model).startswith("Sequential(Sequential(Bidirectional(layer=LSTM(input_size=4, hidden_size=6,")
    assert str(model[1]) == repr(model[1]) == "Linear(in_features=6, out_features=3, bias=True, dtype='float32')"
    html = ElementTree.fromstring(model._repr_html_())
    rows = [["".join(cell.itertext()) for cell in row.iter("td")] for row in html.iter("tr")][1:]
    assert rows[0] == ["Sequential", "(B, T, 3)", "597"] and rows[-1] == ["total", "597"]
    assert [row[0] for row in rows] == [
        "Sequential", "0 (Sequential)", "0 (Bidirectional)", "forward (LSTM)", "reverse (LSTM)", "1 (Dropout)",
        "1 (Linear)", "total",
    ]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_summaries_agree_with_what_models_compute(name: str) -> None:
    """The shape in the first row is that of the outputs; every layer with parameters has a row."""
    case = CASES[name]
    model, inputs = arguments(case, "float32")
    y = model(*inputs, **keywords(case))
    table = model.summary()
    sizes = {"B": len(LENGTHS), "T": 7, "...": len(LENGTHS)}
    assert tuple(sizes.get(size, size) for size in table.rows[0].shape) == y.shape
    assert table.num_parameters == model.num_parameters == table.rows[0].parameters
    assert {row.kind for row in table.rows} == {layer.op for layer in model.layers()}
    assert len(table.rows) == len(list(model.layers()))


def test_summaries_of_single_layers_and_unknown_ones() -> None:
    class Twice(fr.Layer):
        def __init__(self) -> None:
            super().__init__()
            self._add_child("inner", fr.Linear(2, 2))

        def forward(self, x: Any) -> Any:
            return self(x), None

        def backward(self, tape: Any, dy: Any) -> Any:
            return dy

        def __call__(self, x: Any) -> Any:
            return 2 * x

        def config(self) -> dict[str, Any]:
            return {}

    assert fr.GRU(2, 3, batch_first=False).summary().rows[0].shape == ("T", "B", 3)
    assert fr.Bidirectional(fr.GRU(2, 3), None).summary().rows[0].shape == [("B", "T", 3), ("B", "T", 3)]
    assert fr.Dropout(0.5).summary().rows[0].shape == ("...",)
    rows = Twice().summary().rows
    assert rows[0].shape == ("?",) and rows[1].shape == ("...", 2)
    assert repr(Twice().summary()) == str(Twice().summary())
    rows = fr.Sequential(fr.LSTM(2, 5), Twice(), fr.Linear(5, 1)).summary().rows
    assert [row.shape for row in rows if row.name != "inner"] == [("...", 1), ("B", "T", 5), ("?",), ("...", 1)]
