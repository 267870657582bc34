"""What rules and options make of generated sentences, against the same in words."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import models
from fusedrnn.models.search import log_softmax
from test_models_generate import END, Array, log_prob, sentences, translator

SOURCE = np.random.default_rng(0).normal(0, 2, (6, 5, 3))


def rows(found: Any, sample: int) -> list[tuple[int, ...]]:
    """The sentences of a sample, of a call with ``n_best``."""
    return [tuple(t[:n]) for t, n in zip(found.tokens[sample].tolist(), found.lengths[sample].tolist(), strict=True)]


def test_the_smallest_temperature_is_greedy() -> None:
    """1e-307 made all logits infinite, and token 0 of them."""
    model = translator()
    greedy = model.generate(SOURCE, 6)
    for temperature in (1e-307, 5e-324, 1e-3):
        drawn = model.generate(SOURCE, 6, method="sample", temperature=temperature, seed=1)
        assert np.array_equal(drawn.tokens, greedy.tokens) and np.array_equal(drawn.log_probs, greedy.log_probs)
    assert np.any(greedy.tokens)  # not all are token 0


def test_the_largest_temperature_draws_all_tokens_alike() -> None:
    source = np.repeat(SOURCE[:1], 4000, axis=0)
    drawn = translator(sharp=50.0).generate(source, 1, method="sample", temperature=1e300, seed=1).tokens[:, 0]
    assert np.max(np.abs(np.bincount(drawn, minlength=4) / 4000 - 0.25)) <= 0.04


def test_a_beam_of_one_is_greedy() -> None:
    for attention, sharp in ((None, 1.0), ("dot", 4.0)):
        model = translator(attention=attention, sharp=sharp)
        greedy = model.generate(SOURCE, 6)
        for length_penalty in (0.0, 2.0):
            beam = model.generate(SOURCE, 6, method="beam", beam_width=1, length_penalty=length_penalty)
            assert all(np.array_equal(a, b) for a, b in zip(beam, greedy, strict=True))


@pytest.mark.parametrize("length_penalty", [0.0, 1.5])
def test_the_n_best_of_a_wide_beam_are_those_of_brute_force(length_penalty: float) -> None:
    model, n = translator(sharp=2.0), 7
    found = model.generate(SOURCE, 4, method="beam", beam_width=27, length_penalty=length_penalty, n_best=n)
    assert found.tokens.shape[:2] == found.lengths.shape == found.log_probs.shape == (6, n)
    for index in range(len(SOURCE)):
        values = {s: log_prob(model, SOURCE[index : index + 1], s) for s in sentences(4, 4)}
        best = sorted(values, key=lambda s: -values[s] / len(s) ** length_penalty)[:n]
        assert rows(found, index) == best
        assert np.max(np.abs(found.log_probs[index] - [values[s] for s in best])) <= 1e-10


def test_where_there_are_fewer_sentences_the_rest_are_empty() -> None:
    model = translator()
    found = model.generate(SOURCE, 1, method="beam", beam_width=8, n_best=8)  # four tokens, one step
    assert np.all(found.lengths == [[1] * 4 + [0] * 4]) and np.all(found.log_probs[:, 4:] == -np.inf)
    assert np.all(found.tokens[:, 4:] == END)
    assert all({s[0] for s in rows(found, index)[:4]} == {0, 1, 2, 3} for index in range(6))


def test_several_samples_come_best_first_and_by_their_probabilities() -> None:
    model = translator(sharp=1.0)
    found = model.generate(SOURCE[:2], 2, method="sample", n_best=3000, seed=3)
    assert found.tokens.shape[:2] == (2, 3000) and np.all(np.diff(found.log_probs, axis=1) <= 0)
    for index in range(2):
        drawn = rows(found, index)
        for sentence in sentences(4, 2):
            p = np.exp(log_prob(model, SOURCE[index : index + 1], sentence))
            assert abs(drawn.count(sentence) / 3000 - p) <= 4 * 0.5 / np.sqrt(3000)
    one = model.generate(SOURCE, 5, n_best=1)
    plain = model.generate(SOURCE, 5)
    assert all(np.array_equal(a[:, 0], b) for a, b in zip(one, plain, strict=True))


@pytest.mark.parametrize("top_p", [0.3, 0.6, 0.999, 1.0])
def test_the_nucleus_has_the_fewest_tokens_with_that_share(top_p: float) -> None:
    model = translator(vocabulary=6, sharp=2.0)
    source = np.repeat(SOURCE[:1], 4000, axis=0)
    p = np.exp(log_softmax(model(source[:1], np.zeros((1, 1), int))[0, 0] / 1.5))
    best = min(
        (
            subset
            for n in range(1, 7)
            for subset in itertools.combinations(range(6), n)
            if p[list(subset)].sum() >= top_p or n == 6
        ),
        key=lambda subset: (len(subset), -p[list(subset)].sum()),
    )
    expected = np.where(np.isin(np.arange(6), best), p, 0)
    drawn = model.generate(source, 1, method="sample", temperature=1.5, top_p=top_p, seed=0).tokens[:, 0]
    assert np.max(np.abs(np.bincount(drawn, minlength=6) / 4000 - expected / expected.sum())) <= 4 * 0.5 / np.sqrt(4000)
    assert np.isin(drawn, best).all()


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_min_length_counts_the_tokens_before_the_end(method: str) -> None:
    model = translator(sharp=1.0)
    model.decoder.head.params["bias"][END] += 3
    free = model.generate(SOURCE, 6, method=method, seed=0)
    held = model.generate(SOURCE, 6, method=method, seed=0, min_length=4)
    assert free.lengths.min() == 1 and held.lengths.min() == 5  # the end token comes as soon as it may
    assert not np.any(held.tokens[:, :4] == END)
    for index, length in enumerate(held.lengths):  # probabilities are still those of the model
        sentence = tuple(held.tokens[index, :length].tolist())
        assert abs(held.log_probs[index] - log_prob(model, SOURCE[index : index + 1], sentence)) <= 1e-10
    assert np.all(model.generate(SOURCE, 3, method=method, min_length=3).lengths == 3)


def test_the_repetition_penalty_is_that_of_the_paper() -> None:
    model, penalty = translator(vocabulary=6, sharp=1.5), 1.7
    found = model.generate(SOURCE, 6, repetition_penalty=penalty)
    assert not np.array_equal(found.tokens, model.generate(SOURCE, 6).tokens)
    for index, length in enumerate(found.lengths):
        sentence: list[int] = []
        for token in found.tokens[index, :length].tolist():
            logits = model(SOURCE[index : index + 1], model.decoder_inputs(np.array([[*sentence, 0]])))[0, -1]
            for seen in set(sentence):
                logits[seen] = logits[seen] / penalty if logits[seen] > 0 else logits[seen] * penalty
            assert int(logits.argmax()) == token
            sentence.append(token)
    # Where all logits are negative, a penalty without bound writes each token once, as long as there is another one.
    model.decoder.head.params["bias"][...] -= 50
    once = model.generate(SOURCE, 5, repetition_penalty=1e300, min_length=5, method="beam", beam_width=3)
    assert all(len(set(row.tolist())) == 5 for row in once.tokens)


def test_the_repetition_penalty_counts_the_prompt() -> None:
    model = models.SequenceToSequence(fr.LSTM(4, 8, seed=1), 6, embedding=fr.Embedding(6, 4, seed=2), seed=3)
    prompt = np.array([[2, 5, 3, 0], [4, 5, 5, 5]])
    found = model.generate(prompt, 1, lengths=[3, 1], repetition_penalty=1e300)
    assert found.tokens[0, 0] in {0, 1, 4} and found.tokens[1, 0] != 4
    free = np.sign(model(prompt, lengths=[3, 1])[0, 2])
    assert np.any(free > 0)  # else the least negative one would be left as it is


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
@pytest.mark.parametrize("kind", ["tokens", "mask"])
def test_a_constraint_says_what_may_come_next(method: str, kind: str) -> None:
    model = translator(vocabulary=5, sharp=1.0)
    calls: list[tuple[int, tuple[int, ...]]] = []

    def alternate(sample: int, tokens: Array) -> Any:
        calls.append((sample, tuple(tokens.tolist())))
        allowed = [2 + sample % 2, END] if len(tokens) % 2 else [4]
        return allowed if kind == "tokens" else np.isin(np.arange(5), allowed)

    found = model.generate(SOURCE, 5, method=method, constraint=alternate, seed=0)
    for sample, (row, length) in enumerate(zip(found.tokens, found.lengths, strict=True)):
        for step, token in enumerate(row[:length]):
            assert token in ([2 + sample % 2, END] if step % 2 else [4])
    assert {sample for sample, _ in calls} == set(range(6)) and max(len(tokens) for _, tokens in calls) >= 1
    assert np.array_equal(
        model.generate(SOURCE, 5, constraint=lambda *_: None).tokens, model.generate(SOURCE, 5).tokens
    )


def test_a_constrained_beam_finds_the_best_allowed_sentence() -> None:
    """A beam that has no token left is dropped, the others go on."""
    model = translator(sharp=2.0)
    allowed = {(2, 3, END), (2, 2, 2), (3, 0, END), (0, 0, 3)}

    def trie(sample: int, tokens: Array) -> list[int]:
        so_far = tuple(tokens.tolist())
        return sorted({s[len(so_far)] for s in allowed if s[: len(so_far)] == so_far and len(s) > len(so_far)})

    found = model.generate(SOURCE, 5, method="beam", beam_width=8, constraint=trie)
    ended = [s for s in allowed if s[-1] == END]
    for index in range(6):
        best = max(ended, key=lambda s: log_prob(model, SOURCE[index : index + 1], s))
        assert tuple(found.tokens[index, : found.lengths[index]].tolist()) == best


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_a_constraint_that_leaves_nothing_is_named(method: str) -> None:
    model = translator()
    with pytest.raises(ValueError, match=r"no token is left for sample 2 after \[\d\]; expected constraint"):
        model.generate(
            SOURCE,
            5,
            method=method,
            constraint=lambda sample, tokens: [] if sample == 2 and len(tokens) == 1 else [0, 2, 3],
        )


@pytest.mark.parametrize("answer", [[4], [-1], [0.5], "ab", np.ones(3, bool), [[1, 2]]])
def test_a_wrong_answer_of_a_constraint_is_named(answer: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="EncoderDecoder: constraint returned"):
        translator().generate(SOURCE, 3, constraint=lambda *_: answer)


@pytest.mark.parametrize("n_best", [None, 3])
@pytest.mark.parametrize("lengths", [None, [5, 2, 3, 1, 5, 4]])
def test_attention_of_what_was_written(n_best: int | None, lengths: list[int] | None) -> None:
    model = translator(sharp=2.0)
    options: dict[str, Any] = {"method": "beam", "n_best": n_best, "lengths": lengths}
    found = model.generate(SOURCE, 6, return_attention=True, **options)
    assert found.attention is not None and found.attention.shape == (*found.tokens.shape, 5)
    assert model.generate(SOURCE, 6, **options).attention is None
    for index in range(6):
        for rank in range(n_best or 1):
            at = (index,) if n_best is None else (index, rank)
            length, row = int(found.lengths[at]), found.tokens[at]
            end = 5 if lengths is None else lengths[index]
            alone = model.attention_weights(
                SOURCE[index : index + 1, :end], model.decoder_inputs(row[np.newaxis, :length])
            )
            assert np.max(np.abs(found.attention[at][:length, :end] - alone[0])) <= 1e-12
            assert not found.attention[at][length:].any() and not found.attention[at][:, end:].any()
    with pytest.raises(ValueError, match="return_attention is True; expected a model with attention"):
        translator(attention=None).generate(SOURCE, 6, return_attention=True)


@pytest.mark.parametrize(
    ("name", "value", "reader"),
    [
        ("temperature", 0.5, "sample"),
        ("top_k", 2, "sample"),
        ("top_p", 0.5, "sample"),
        ("beam_width", 2, "beam"),
        ("length_penalty", 1.0, "beam"),
    ],
)
def test_an_option_that_the_method_does_not_read_is_told(name: str, value: Any, reader: str) -> None:
    model: Any = translator()
    for method in ("greedy", "sample", "beam"):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model.generate(SOURCE, 3, method=method, **{name: value})
        expected = [] if method == reader else [f"EncoderDecoder: {name} has no effect with method {method!r}; "]
        assert [str(each.message).partition("method=")[0] for each in told] == expected
        assert all(each.filename == __file__ for each in told)


def test_options_are_judged_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = translator()
    monkeypatch.setattr(model, "_encode", lambda *_: pytest.fail("computed something"))
    for options, message in (
        ({"methode": "beam"}, "generate got 'methode'; expected options among method, "),
        ({"top_p": 0.0}, "top_p is 0.0; expected a probability, 0 < top_p <= 1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"n_best": 2}, "n_best is 2; expected 1 with method 'greedy'"),
        ({"n_best": 5, "method": "beam"}, "n_best is 5; expected at most beam_width = 4"),
        ({"n_best": 0, "method": "beam"}, "n_best is 0"),
        ({"min_length": 7}, "min_length is 7; expected at most max_length = 6"),
        ({"min_length": -1}, "min_length is -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; expected a positive number"),
        ({"repetition_penalty": np.inf}, "repetition_penalty is inf"),
        ({"constraint": [1, 2]}, "constraint is .*; expected a function"),
        ({"constraint": lambda tokens: None}, r"constraint takes \(tokens\); expected constraint\(sample, tokens\)"),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^EncoderDecoder: {message}"):
            model.generate(SOURCE, 6, **options)


def test_no_source_gives_no_sentence() -> None:
    for n_best in (None, 2):
        found = translator().generate(SOURCE[:0], 6, method="beam", n_best=n_best)
        assert [each.shape for each in found] == (
            [(0, 0), (0,), (0,)] if n_best is None else [(0, 2, 0), (0, 2), (0, 2)]
        )
