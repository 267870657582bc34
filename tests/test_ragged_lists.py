"""Lists of sequences of unequal length, wherever a batch may come in: as the padded array with its lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn import models
from tolerance import assert_same_bits

Array = NDArray[Any]
ENDS = [5, 1, 3, 4]


def values() -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(n, 3)).astype(np.float32) for n in ENDS]


def tokens() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(2, 6, n).tolist() for n in ENDS]


def embedding() -> fr.Embedding:
    return fr.Embedding(6, 3, seed=9)


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "lstm": (lambda: fr.LSTM(3, 4, seed=0), values),
    "bidirectional": (lambda: fr.Bidirectional(fr.GRU(3, 4, seed=0)), values),
    "sequential": (lambda: fr.Sequential(fr.GRU(3, 4, bidirectional=True, seed=0), fr.Linear(8, 2, seed=1)), values),
    "sequential_tokens": (lambda: fr.Sequential(embedding(), fr.LSTM(3, 4, seed=0), fr.Linear(4, 2, seed=1)), tokens),
    "to_sequence": (lambda: models.SequenceToSequence(fr.LSTM(3, 4, seed=0), 6, embedding=embedding(), seed=1), tokens),
    "to_vector": (lambda: models.SequenceToVector(fr.RNN(3, 4, seed=0), 2, pooling="mean", seed=1), values),
    "autoencoder": (lambda: models.SequenceAutoencoder(fr.GRU(3, 4, seed=0), fr.GRU(3, 4, seed=1), seed=2), values),
}


def arrays(result: Any) -> list[Array]:
    return [each for part in result for each in arrays(part)] if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["list", "tuple", "objects"])
def test_a_ragged_list_is_the_padded_array(name: str, form: str) -> None:
    make, data = MODELS[name]
    model, ragged = make(), data()
    padded, lengths = fr.pad_sequences(ragged)
    given: Any = ragged
    if form == "tuple":
        given = tuple(ragged)
    if form == "objects":
        given = np.empty(len(ragged), object)
        given[:] = ragged
    for one, other in zip(arrays(model(given)), arrays(model(padded, lengths=lengths)), strict=True):
        assert_same_bits(one, other)
    outputs, expected = model.forward(given)[0], model.forward(padded, lengths=lengths)[0]
    for one, other in zip(arrays(outputs), arrays(expected), strict=True):
        assert_same_bits(one, other)
    with pytest.raises(ValueError, match=r"x has sequences of unequal length, and lengths is given; expected one or"):
        model(given, lengths=lengths)


def translator() -> models.EncoderDecoder:
    return models.EncoderDecoder(
        fr.GRU(3, 4, seed=0),
        fr.GRU(3, 4, seed=1),
        6,
        source_embedding=embedding(),
        target_embedding=fr.Embedding(6, 3, seed=8),
        attention="dot",
        start=0,
        end=1,
        seed=2,
    )


def test_both_sides_of_an_encoder_decoder() -> None:
    model, source = translator(), tokens()
    target = [[2, 3, 1], [4, 1], [1], [5, 5, 5, 1]]
    padded, lengths = fr.pad_sequences(source)
    right, ends = fr.pad_sequences(model.decoder_inputs(target))
    y = model(padded, right, lengths=(lengths, ends))
    assert_same_bits(model(source, model.decoder_inputs(target)), y)
    assert_same_bits(model(source, right, lengths=(None, ends)), y)
    assert_same_bits(model(padded, model.decoder_inputs(target), lengths=(lengths, None)), y)
    assert_same_bits(
        model.attention_weights(source, model.decoder_inputs(target)),
        model.attention_weights(padded, right, lengths=(lengths, ends)),
    )


@pytest.mark.parametrize("options", [{}, {"method": "beam", "n_best": 2}, {"method": "sample", "seed": 3}])
def test_generate(options: dict[str, Any]) -> None:
    model, source = translator(), tokens()
    padded, lengths = fr.pad_sequences(source)
    ragged = model.generate(source, 6, return_attention=True, **options)
    expected = model.generate(padded, 6, lengths=lengths, return_attention=True, **options)
    for one, other in zip([*ragged, ragged.attention], [*expected, expected.attention], strict=True):
        assert_same_bits(one, other)
    writer = models.SequenceToSequence(fr.LSTM(3, 4, seed=0), 6, embedding=embedding(), seed=1)
    for one, other in zip(writer.generate(source, 5), writer.generate(padded, 5, lengths=lengths), strict=True):
        assert_same_bits(one, other)
    assert_same_bits(writer.probabilities(source), writer.probabilities(padded, lengths=lengths))


def test_what_is_no_list_of_sequences_is_refused_as_before() -> None:
    layer = fr.LSTM(3, 4)
    for wrong in ([1, [2, 3]], ["ab", "c"], [np.zeros((2, 3)), np.zeros((4, 2))], [[[1, 2], [3]], [[1]]]):
        with pytest.raises((ValueError, TypeError), match="LSTM: x"):
            layer(wrong)
    assert layer([[[1, 2, 3]], [[4, 5, 6]]])[0].shape == (2, 1, 4)  # of equal length: an array
    with pytest.raises((ValueError, TypeError), match="LSTM: x"):
        fr.LSTM(3, 4, batch_first=False)(values())
