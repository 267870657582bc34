"""Greedy choice, sampling and beam search, against what brute force finds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn import models
from fusedrnn.models.options import Options
from fusedrnn.models.search import log_softmax, search
from model_cases import TOKENS, encoder_decoder, residual

Array = NDArray[Any]
END = 1


def translator(vocabulary: int = 4, attention: str | None = "dot", sharp: float = 4.0) -> models.EncoderDecoder:
    """A small model with clear preferences."""
    model = models.EncoderDecoder(
        fr.GRU(3, 5, dtype="float64", seed=1),
        fr.GRU(2, 5, dtype="float64", seed=2),
        vocabulary,
        target_embedding=fr.Embedding(vocabulary, 2, dtype="float64", seed=3),
        attention=attention,
        start=0,
        end=END,
        seed=4,
    )
    model.decoder.head.params["weight"][...] *= sharp
    return model


def log_prob(model: Any, source: Array, sentence: tuple[int, ...]) -> float:
    """Log p of one sentence, taught with it in one fused call."""
    target = np.array([sentence])
    logits = log_softmax(model(source, model.decoder_inputs(target)))
    return float(np.take_along_axis(logits, target[..., np.newaxis], axis=2).sum())


def sentences(vocabulary: int, max_length: int) -> list[tuple[int, ...]]:
    """All that can be generated: they end with END, or have the largest length."""
    words = [t for t in range(vocabulary) if t != END]
    ended = [(*s, END) for n in range(max_length) for s in itertools.product(words, repeat=n)]
    return ended + list(itertools.product(words, repeat=max_length))


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("attention", [None, "dot", "general"])
def test_a_wide_beam_finds_what_brute_force_finds(attention: str | None, length_penalty: float) -> None:
    model, max_length = translator(attention=attention), 4
    source = np.random.default_rng(0).normal(0, 2, (6, 5, 3))
    found = model.generate(source, max_length, method="beam", beam_width=27, length_penalty=length_penalty)
    for index in range(len(source)):
        values = {s: log_prob(model, source[index : index + 1], s) for s in sentences(4, max_length)}
        best = max(values, key=lambda s: values[s] / len(s) ** length_penalty)
        assert tuple(found.tokens[index, : found.lengths[index]]) == best
        assert abs(found.log_probs[index] - values[best]) <= 1e-10
        assert np.all(found.tokens[index, found.lengths[index] :] == END)
    if length_penalty == 0:
        assert abs(sum(np.exp(list(values.values()))) - 1) <= 1e-10  # the sentences are all there are


def slow_beam(model: Any, source: Array, width: int, max_length: int) -> tuple[tuple[int, ...], float]:
    """Beam search of one sample in words: keep the best unfinished sentences, remember the best finished one."""
    beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    best: tuple[float, tuple[int, ...]] = (-np.inf, ())
    for length in range(1, max_length + 1):
        grown = [(log_prob(model, source, (*s, t)), (*s, t)) for _, s in beams for t in range(4)]
        best = max([best, *(g for g in grown if g[1][-1] == END or length == max_length)])
        beams = sorted((g for g in grown if g[1][-1] != END), reverse=True)[:width]
    return best[1], best[0]


@pytest.mark.parametrize("width", [2, 3])
def test_a_narrow_beam_equals_the_search_in_words(width: int) -> None:
    model = translator(sharp=2.0)
    source = np.random.default_rng(1).normal(0, 2, (5, 4, 3))
    found = model.generate(source, 5, method="beam", beam_width=width)
    for index in range(len(source)):
        sentence, value = slow_beam(model, source[index : index + 1], width, 5)
        assert tuple(found.tokens[index, : found.lengths[index]]) == sentence
        assert abs(found.log_probs[index] - value) <= 1e-10


def test_greedy_takes_the_most_likely_token() -> None:
    model = translator()
    source = np.random.default_rng(0).normal(0, 2, (6, 5, 3))
    found = model.generate(source, 5)
    assert found.tokens.dtype == found.lengths.dtype == np.int64
    assert found.tokens.shape == (6, found.lengths.max()) and len(set(found.lengths.tolist())) > 1
    for index, length in enumerate(found.lengths):
        row = tuple(found.tokens[index, :length])
        logits = model(source[index : index + 1], model.decoder_inputs(np.array([row])))
        assert tuple(logits[0].argmax(axis=1)) == row
        assert abs(found.log_probs[index] - log_prob(model, source[index : index + 1], row)) <= 1e-10
        assert END not in row[:-1] and (row[-1] == END or length == 5)


def test_sampling_follows_the_probabilities() -> None:
    """Frequencies of first tokens against the softmax, with temperature and top-k; a seed repeats it."""
    model = translator(sharp=2.0)
    source = np.repeat(np.random.default_rng(0).normal(0, 2, (1, 5, 3)), 4000, axis=0)
    logits = model(source[:1], np.zeros((1, 1), int))[0, 0]
    for temperature, top_k in ((1.0, None), (0.5, None), (2.0, 2)):
        scaled = logits / temperature
        if top_k is not None:
            scaled[np.argsort(scaled)[:-top_k]] = -np.inf
        expected = np.exp(log_softmax(scaled))
        drawn = model.generate(source, 1, method="sample", temperature=temperature, top_k=top_k, seed=1).tokens[:, 0]
        frequencies = np.bincount(drawn, minlength=4) / len(drawn)
        assert np.max(np.abs(frequencies - expected)) <= 4 * 0.5 / np.sqrt(4000)
        assert not np.any(frequencies[expected == 0])
    sampled = [model.generate(source[:9], 6, method="sample", seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(sampled[0].tokens, sampled[1].tokens)
    assert not np.array_equal(sampled[0].tokens, sampled[2].tokens)
    assert np.array_equal(
        model.generate(source[:9], 6, method="sample", top_k=1).tokens, model.generate(source[:9], 6).tokens
    )


def test_without_an_end_token_all_sentences_have_the_largest_length() -> None:
    model = models.VectorToSequence(
        fr.LSTM(4 + 3, 5, seed=1), 6, vector_size=3, embedding=fr.Embedding(6, 4, seed=2), condition_inputs=True, seed=3
    )
    vectors = np.random.default_rng(0).normal(0, 2, (5, 3))
    for method in ("greedy", "sample", "beam"):
        found = model.generate(vectors, 7, method=method, seed=0)
        assert found.tokens.shape == (5, 7) and np.all(found.lengths == 7)
    taught = model(vectors, model.decoder_inputs(model.generate(vectors, 7).tokens))
    assert np.array_equal(taught.argmax(axis=2), model.generate(vectors, 7).tokens)


def test_a_model_of_language_continues_a_prompt() -> None:
    model = models.SequenceToSequence(fr.LSTM(4, 8, 2, seed=1), 6, embedding=fr.Embedding(6, 4, seed=2), seed=3)
    prompt, lengths = np.array([[2, 5, 3, 0], [4, 0, 0, 0], [1, 1, 0, 0]]), [4, 1, 2]
    found = model.generate(prompt, 5, lengths=lengths)
    for row, length, tokens in zip(prompt, lengths, found.tokens, strict=True):
        sentence = row[:length].tolist()
        for token in tokens:
            assert int(model(np.array([sentence]))[0, -1].argmax()) == token
            sentence.append(int(token))
    assert model.generate(prompt, 5, lengths=lengths, method="beam", beam_width=2).tokens.shape == (3, 5)


def test_values_are_unrolled() -> None:
    """Each output is the next input: step by step it equals the taught decoder with those inputs."""
    rng = np.random.default_rng(0)
    decoder = fr.GRU(2, 5, dtype="float64", seed=2)
    pairs: list[tuple[Any, tuple[Array, ...]]] = [
        (models.EncoderDecoder(fr.GRU(3, 5, dtype="float64", seed=1), decoder, 2, attention="general", seed=3),
         (rng.standard_normal((4, 6, 3)),)),
        (models.EncoderDecoder(residual("float64"), fr.LSTM(2, 5, dtype="float64", seed=1), 2, seed=3),
         (rng.standard_normal((4, 6, 3)),)),
        (models.VectorToSequence(decoder, 2, vector_size=3, seed=3), (rng.standard_normal((4, 3)),)),
        (models.VectorToSequence(fr.RNN(5, 5, dtype="float64"), 2, vector_size=3, condition_inputs=True, seed=3),
         (rng.standard_normal((4, 3)),)),
        (models.EncoderDecoder(residual("float64"), residual("float64"), 3), (rng.standard_normal((4, 6, 3)),)),
    ]  # fmt: skip
    for model, inputs in pairs:
        values = model.unroll(*inputs, 5)
        taught = model(*inputs, model.decoder_inputs(values))
        assert values.shape[:2] == (4, 5) and np.max(np.abs(values - taught)) <= 1e-14
        with pytest.raises(ValueError, match="generate needs tokens"):
            model.generate(*inputs, 5)


def test_attention_reads_valid_steps_only() -> None:
    model = encoder_decoder("float64")
    rng = np.random.default_rng(0)
    source, inputs, lengths = rng.integers(0, 6, (4, 6)), rng.integers(0, 6, (4, 3)), np.array([6, 2, 0, 5])
    weights = model.attention_weights(source, inputs, (lengths, None))
    assert weights.shape == (4, 3, 6)
    assert np.max(np.abs(weights.sum(axis=2) - (lengths > 0)[:, np.newaxis])) <= 1e-14
    assert not np.any(weights[np.broadcast_to((np.arange(6) >= lengths[:, np.newaxis])[:, np.newaxis], weights.shape)])
    with pytest.raises(ValueError, match="needs a model with attention"):
        encoder_decoder("float64", None).attention_weights(source, inputs)


def test_nothing_is_generated_for_no_samples() -> None:
    model = encoder_decoder("float32")
    for method in ("greedy", "sample", "beam"):
        found = model.generate(np.zeros((0, 3), int), 5, method=method)
        assert found.tokens.shape == (0, 0) and found.lengths.shape == found.log_probs.shape == (0,)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"method": "best"}, "method is 'best'"),
        ({"max_length": 0}, "max_length is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": np.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"beam_width": 0}, "beam_width is 0"),
        ({"length_penalty": -1.0}, "length_penalty is -1.0"),
        ({"length_penalty": 1e6, "method": "beam"}, "length_penalty is 1000000.0"),
    ],
)
def test_search_checks_its_arguments(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=f"EncoderDecoder: {match}"):
        encoder_decoder("float32").generate(**{"source": np.zeros((2, 3), int), "max_length": 4, **change})


def language(outputs: int = 7) -> models.SequenceToSequence:
    """A model of a language of seven tokens."""
    return models.SequenceToSequence(fr.LSTM(4, 6, seed=0), outputs, embedding=fr.Embedding(7, 4, seed=0), seed=0)


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("end", [-1, 7, 99])
def test_the_end_is_a_token(method: str, end: int) -> None:
    with pytest.raises(ValueError, match=f"SequenceToSequence: end is {end}; expected a token, 0 <= end < 7"):
        language().generate([[2, 3]], 5, end=end, method=method)


@pytest.mark.parametrize("tokens", [{"start": -1}, {"start": 7}, {"end": -1}, {"end": 5}])
def test_models_are_made_with_tokens(tokens: dict[str, int]) -> None:
    """The start is read, so the embedding must know it; the end is written, so it is one of the outputs."""
    ((name, token),) = tokens.items()
    table = fr.Embedding(7, 4)
    makes: list[Any] = [
        lambda: models.Decoder(fr.GRU(4, 5), 5, embedding=table, **tokens),
        lambda: models.VectorToSequence(fr.GRU(4, 5), 5, vector_size=2, embedding=table, **tokens),
        lambda: models.EncoderDecoder(fr.GRU(4, 5), fr.GRU(4, 5), 5, target_embedding=table, **tokens),
    ]
    for make in makes:
        with pytest.raises(
            ValueError, match=f"{name} is {token}; expected a token, 0 <= {name} < {5 + 2 * (name == 'start')}"
        ):
            make()
    model = models.VectorToSequence(fr.GRU(4, 5), 5, vector_size=2, embedding=table, start=6, end=4)
    assert model.generate(np.zeros((2, 2)), 3).tokens.shape[0] == 2
    setattr(model.decoder, name, token)
    with pytest.raises(ValueError, match=f"VectorToSequence: {name} is {token}"):
        model.generate(np.zeros((2, 2)), 3)


def test_what_is_written_can_be_read() -> None:
    with pytest.raises(ValueError, match="SequenceToSequence: head has 9 outputs; expected at most 7"):
        language(9).generate([[2, 3]], 5)
    # A head that does not tell its outputs is judged by them.
    model = models.SequenceToSequence(fr.LSTM(4, 6), fr.Sequential(fr.Activation("tanh")), embedding=fr.Embedding(7, 4))
    with pytest.raises(ValueError, match="end is 6; expected a token, 0 <= end < 6"):
        model.generate([[2, 3]], 5, end=6)
    assert model.generate([[2, 3]], 5, end=5).tokens.shape[0] == 1


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_choose_no_token(method: str, value: float) -> None:
    model = language()
    model.head.params["bias"][2] = value
    with pytest.raises(FloatingPointError, match=r"SequenceToSequence: outputs have .* as the largest logit of row 0"):
        model.generate([[2, 3]], 5, method=method)
    model.head.params["bias"][2] = -np.inf  # a token that is never said
    assert 2 not in model.generate([[2, 3]], 5, method=method, seed=0).tokens


def test_scheduled_sampling_is_checked_when_it_is_changed() -> None:
    decoder = models.Decoder(fr.GRU(4, 5), 5)
    with pytest.raises(ValueError, match="Decoder: scheduled_sampling is 2; expected a probability"):
        decoder.scheduled_sampling = 2
    decoder.scheduled_sampling = 0.5
    assert decoder.config()["scheduled_sampling"] == 0.5


def test_a_beam_may_be_wider_than_the_vocabulary() -> None:
    """With two tokens, one of them the end, a beam of eight has fewer candidates than places."""

    class Coin:
        def __call__(self, tokens: Array) -> Array:
            return np.tile(np.log([0.6, 0.4]), (len(tokens), 1))

        def reorder(self, rows: Array) -> None:
            assert rows.max() < 8

    # 1 at once has 0.4; 0 1, 0 0 1 and 0 0 0 have 0.24, 0.144 and 0.216. With 0 as the end, 0 at once has 0.6.
    for end, expected, probability in ((1, [1], 0.4), (0, [0], 0.6)):
        options = Options(max_length=3, method="beam", beam_width=8)
        found = search("Test", lambda width: Coin(), np.zeros(1, int), end, options)
        assert found.tokens[0, : found.lengths[0]].tolist() == expected
        assert abs(found.log_probs[0] - np.log(probability)) <= 1e-15


def test_greedy_with_residual_decoders_and_beams_of_lstm_states() -> None:
    """Reordering reaches every part of a nested state."""
    model = models.VectorToSequence(
        models.Residual(fr.LSTM(4, 5, 2, dtype="float64", seed=1), fr.GRU(5, 5, dtype="float64", seed=2), seed=3),
        TOKENS,
        vector_size=3,
        embedding=fr.Embedding(TOKENS, 4, dtype="float64", seed=4),
        end=END,
        seed=5,
    )
    model.decoder.head.params["weight"][...] *= 3
    vectors = np.random.default_rng(0).normal(0, 2, (6, 3))
    found = model.generate(vectors, 6, method="beam", beam_width=3)
    for index, length in enumerate(found.lengths):
        row = found.tokens[index : index + 1, :length]
        logits = log_softmax(model(vectors[index : index + 1], model.decoder_inputs(row)))
        value = np.take_along_axis(logits, row[..., np.newaxis], axis=2).sum()
        assert abs(found.log_probs[index] - value) <= 1e-10
    assert np.all(found.log_probs >= model.generate(vectors, 6).log_probs - 1e-12)


@pytest.mark.parametrize("answer", [{3, 4}, frozenset({3, 4}), (3, 4), range(3, 5), {3: "a", 4: "b"}.keys(), [3, 4]])
def test_a_constraint_may_return_any_collection(answer: Any) -> None:
    model = models.SequenceToSequence(fr.GRU(4, 5, seed=0), 7, embedding=fr.Embedding(7, 4, seed=1), seed=2)
    tokens = model.generate([[1, 2]], 6, constraint=lambda sample, tokens: answer).tokens
    assert set(tokens.ravel().tolist()) <= {3, 4}
    with pytest.raises(TypeError, match="constraint returned an int; expected tokens, a mask"):
        model.generate([[1, 2]], 6, constraint=lambda sample, tokens: 3)
