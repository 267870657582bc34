"""What a model says about a sample depends on that sample alone, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import models
from fusedrnn.arrays.products import row_products
from fusedrnn.layers.tied import TiedLinear
from model_cases import CASES, LENGTHS, arguments, encoder_decoder, keywords
from tolerance import assert_same_bits


@pytest.mark.parametrize("name", CASES)
def test_a_ragged_batch_equals_its_samples_alone(name: str, dtype: str) -> None:
    """In inference and in training; and 0 past the end."""
    case = CASES[name]
    for seed in range(4):
        model, inputs = arguments(case, dtype, seed)
        for call in (model, lambda *x, model=model, **kw: model.forward(*x, **kw)[0]):
            y = call(*inputs, **keywords(case))
            for index in range(len(LENGTHS)):
                rows, steps = case.sample(inputs, index) if any(case.timed) else ((inputs[0][index : index + 1],), 0)
                alone = call(*rows)
                if case.per_step and any(case.timed):
                    assert_same_bits(y[index : index + 1, :steps], alone, f"sample {index}")
                    assert not np.any(y[index, steps:])
                else:
                    assert_same_bits(y[index : index + 1], alone, f"sample {index}")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if any(case.timed)])
def test_padding_does_not_matter(name: str, dtype: str) -> None:
    """NaN or any token past the end, and more of it, gives the same bits."""
    case = CASES[name]
    model, inputs = arguments(case, dtype)
    y = model(*inputs, **keywords(case))
    lengths = case.lengths if isinstance(case.lengths, tuple) else (case.lengths,)
    dirty = []
    for x, length in zip(inputs, lengths, strict=True):
        if length is not None:
            fill = np.nan if x.dtype.kind == "f" else -100
            x = np.concatenate((x, np.full_like(x[:, :3], 0)), axis=1)
            x[np.arange(x.shape[1]) >= length[:, np.newaxis]] = fill
        dirty.append(x)
    for call in (model, lambda *x, **kw: model.forward(*x, **kw)[0]):
        again = call(*dirty, **keywords(case))
        clean = call(*inputs, **keywords(case))
        assert_same_bits(again[:, : y.shape[1]] if case.per_step else again, clean)


def per_step(seed: int = 1) -> fr.Sequential:
    return fr.Sequential(fr.Linear(3, 4, seed=seed), fr.GRU(4, 5, seed=seed))


@pytest.mark.parametrize(
    ("make", "time_axis"),
    [
        (per_step, 1),
        (lambda: fr.Sequential(per_step(), fr.Linear(5, 2, seed=1)), 1),
        (lambda: fr.Sequential(fr.Linear(3, 4, seed=1), fr.GRU(4, 5, batch_first=False, seed=1)), 0),
        (lambda: models.SequenceToSequence(per_step(), 2, seed=1), 1),
        (lambda: models.SequenceToSequence(fr.Linear(3, 4, seed=1), 2, seed=1), 1),
        (lambda: models.SequenceToVector(per_step(), 2, seed=1), 1),
        (lambda: models.SequenceToVector(fr.Linear(3, 4, seed=1), 2, pooling="mean", seed=1), 1),
    ],
)
def test_padding_reaches_no_gradient_of_a_layer_that_knows_no_lengths(make: Any, time_axis: int) -> None:
    x, lengths = np.random.default_rng(0).standard_normal((2, 4, 3)).astype("f4"), [4, 2]
    gradients = []
    for fill in (0, np.nan):
        x[1, 2:] = fill
        model = make()
        y, tape = model.forward(x if time_axis else x.swapaxes(0, 1), lengths=lengths)
        dx = model.backward(tape, np.ones_like(y) * (np.arange(len(y)) + 1).reshape(-1, *[1] * (y.ndim - 1)))
        gradients.append([dx, *model.grads.values()])
    assert np.isnan(x).any()
    for clean, dirty in zip(*gradients, strict=True):
        assert np.isfinite(clean).all()
        assert_same_bits(dirty, clean)


def test_any_token_may_be_past_the_end_of_a_sentence() -> None:
    """A Sequential reads them as a model with an embedding does."""
    table, gru, head = fr.Embedding(5, 4, seed=1), fr.GRU(4, 3, seed=2), fr.Linear(3, 2, seed=3)
    ids, lengths = np.array([[1, 2, 3], [4, -1, 99]]), [3, 1]
    plain = fr.Sequential(table, gru, head)
    y = models.SequenceToSequence(gru, head, embedding=table)(ids, lengths=lengths)
    for each in (plain(ids, lengths=lengths), plain.forward(ids, lengths=lengths)[0]):
        assert_same_bits(each[0], y[0])
        assert_same_bits(each[1, :1], y[1, :1])
    with pytest.raises(ValueError, match="Embedding: ids has -1"):
        plain(ids)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if any(case.timed)])
def test_a_tape_does_not_change_with_the_lengths_of_the_caller(name: str) -> None:
    case = CASES[name]
    gradients = []
    for change in (False, True):
        model, inputs = arguments(case, "float32")
        lengths = [None if each is None else each.copy() for each in keyword_lengths(case)]
        y, tape = model.forward(*inputs, lengths=tuple(lengths) if len(lengths) > 1 else lengths[0])
        if change:
            for each in lengths:
                if each is not None:
                    each[...] = 1
        model.backward(tape, np.ones_like(y))
        gradients.append([grad.copy() for grad in model.grads.values()])
    for before, after in zip(*gradients, strict=True):
        assert_same_bits(after, before)


def keyword_lengths(case: Any) -> tuple[Any, ...]:
    return case.lengths if isinstance(case.lengths, tuple) else (case.lengths,)


def test_a_tape_does_not_change_with_the_tokens_of_the_caller() -> None:
    table, ids = fr.Embedding(5, 4), np.array([1, 2])
    y, tape = table.forward(ids)
    ids[...] = 0
    table.backward(tape, np.ones_like(y))
    assert np.array_equal(table.grads["weight"].any(axis=1), [False, True, True, False, False])


def test_generated_sentences_do_not_depend_on_the_batch(dtype: str) -> None:
    """Greedy and beam search, with their probabilities."""
    case = CASES["encoder-decoder general"]
    model, (source, _) = arguments(case, dtype)
    lengths = case.lengths[0]
    for method in ("greedy", "beam"):
        batch = model.generate(source, 8, lengths=lengths, method=method)
        for index in range(len(source)):
            alone = model.generate(source[index : index + 1, : lengths[index]], 8, method=method)
            size = alone.lengths[0]
            assert size == batch.lengths[index]
            assert np.array_equal(alone.tokens[0, :size], batch.tokens[index, :size])
            assert_same_bits(alone.log_probs, batch.log_probs[index : index + 1])


def test_reconstruction_errors_do_not_depend_on_the_batch(dtype: str) -> None:
    for name in ("autoencoder teacher", "autoencoder free", "autoencoder code"):
        model, (x,) = arguments(CASES[name], dtype)
        errors = model.reconstruction_error(x, LENGTHS)
        for index, length in enumerate(LENGTHS):
            rows = x[index : index + 1, :length]
            assert_same_bits(model.encode(x, LENGTHS)[index : index + 1], model.encode(rows))
            assert_same_bits(errors[index : index + 1], model.reconstruction_error(rows))
        truth = [np.square(x[i, :n] - model(x, LENGTHS)[i, :n]).mean() if n else 0.0 for i, n in enumerate(LENGTHS)]
        assert np.max(np.abs(errors - np.array(truth))) <= 1e-6


@pytest.mark.parametrize("sizes", [(1, 1), (3, 7), (64, 10), (33, 65), (256, 100)])
def test_rows_of_a_product_do_not_depend_on_each_other(sizes: tuple[int, int], dtype: str) -> None:
    """A row of x W^T has the same bits at any place and in any number of rows."""
    rng = np.random.default_rng(0)
    inputs, outputs = sizes
    x, weight = rng.standard_normal((131, inputs)).astype(dtype), rng.standard_normal((outputs, inputs)).astype(dtype)
    full = row_products(x, weight)
    assert np.max(np.abs(full - x @ weight.T)) <= (1e-4 if dtype == "float32" else 1e-12)
    for count in (1, 2, 3, 5, 31, 32, 33, 64, 100):
        for first in (0, 1, 7, 31):
            assert_same_bits(row_products(x[first : first + count], weight), full[first : first + count])
    assert_same_bits(row_products(np.asfortranarray(x), weight), full)
    assert_same_bits(row_products(x[::3], weight), full[::3])
    assert row_products(x[:0], weight).shape == (0, outputs)


def gradients_of(layer: Any, inputs: tuple[Any, ...], dy: Any, **keywords: Any) -> list[Any]:
    """Return the gradients of the inputs, then those of the parameters."""
    layer.zero_grad()
    _, tape = layer.forward(*inputs, **keywords)
    dx = layer.backward(tape, dy)
    return [*(dx if isinstance(dx, tuple) else (dx,)), *(grad.copy() for grad in layer.grads.values())]


def attention_case(score: str, dtype: str) -> tuple[Any, Any, Any, Any]:
    """Return an attention, its queries and memory, and dy."""
    rng = np.random.default_rng(5)
    layer = models.Attention(33, 33, score, dtype=dtype, seed=1)
    return layer, *(rng.standard_normal((4, steps, 33)).astype(dtype) for steps in (9, 40, 9))


@pytest.mark.usefixtures("restore_threads")
def test_gradients_do_not_depend_on_threads(dtype: str) -> None:
    """Nor on the run; sizes are large enough for several threads."""
    rng = np.random.default_rng(2)
    x, dy = (rng.standard_normal((3, 500, size)).astype(dtype) for size in (65, 130))
    linear = fr.Linear(65, 130, dtype=dtype, seed=1)
    other = fr.Linear(130, 65, dtype=dtype, seed=1)
    attention, h, memory, d_attention = attention_case("general", dtype)
    long_memory = np.tile(memory, (1, 20, 1))
    calls = [
        lambda: gradients_of(linear, (x,), dy),
        lambda: [*gradients_of(TiedLinear(other), (x,), dy), other.grads["weight"].copy()],
        lambda: gradients_of(attention, (h, long_memory), d_attention, lengths=[800, 3, 799, 0]),
    ]
    for call in calls:
        fr.set_num_threads(1)
        other.zero_grad()
        expected = call()
        for threads in (1, 2, 3):
            fr.set_num_threads(threads)
            other.zero_grad()
            for one, same in zip(call(), expected, strict=True):
                assert_same_bits(one, same, f"{threads} threads")


def test_gradients_of_a_sample_of_linear_are_its_own(dtype: str) -> None:
    """dx of each sample alone is that in the batch; steps without a gradient at the end change no weight's."""
    rng = np.random.default_rng(2)
    x, dy = (rng.standard_normal((5, 7, size)).astype(dtype) for size in (17, 9))
    for layer in (fr.Linear(17, 9, dtype=dtype, seed=1), TiedLinear(fr.Linear(9, 17, dtype=dtype, seed=1))):
        expected = gradients_of(layer, (x,), dy)
        for index in range(5):
            assert_same_bits(gradients_of(layer, (x[index],), dy[index])[0], expected[0][index])
            alone, padded = ([np.pad(v[index], [(0, more), (0, 0)]) for v in (x, dy)] for more in (0, 30))
            for short, long in zip(
                gradients_of(layer, (alone[0],), alone[1])[1:],
                gradients_of(layer, (padded[0],), padded[1])[1:],
                strict=True,
            ):
                assert_same_bits(long, short)


@pytest.mark.parametrize("score", ["dot", "general"])
@pytest.mark.parametrize("fill", [0.0, np.nan])
def test_gradients_of_a_sample_of_attention_are_its_own(score: str, fill: float, dtype: str) -> None:
    """Whatever the padding of the memory and of the queries."""
    layer, h, memory, dy = attention_case(score, dtype)
    lengths, queries = [40, 7, 0, 23], [9, 4, 5, 1]
    for sample, (length, count) in enumerate(zip(lengths, queries, strict=True)):
        memory[sample, length:] = fill
        dy[sample, count:] = 0
    y, _ = layer.forward(h, memory, lengths)
    shares = layer.weights(h, memory, lengths)
    dh, dmemory, *rest = gradients_of(layer, (h, memory), dy, lengths=lengths)
    assert all(np.isfinite(each).all() for each in (y, dh, dmemory, *rest))
    for sample, (length, count) in enumerate(zip(lengths, queries, strict=True)):
        one = slice(sample, sample + 1)
        inputs = h[one, :count], memory[one, :length]
        assert_same_bits(layer(*inputs), y[one, :count])
        assert_same_bits(layer.weights(*inputs), shares[one, :count, :length])
        assert not shares[one, :, length:].any() and not dmemory[one, length:].any()
        alone = gradients_of(layer, inputs, dy[one, :count])
        assert_same_bits(alone[0], dh[one, :count])
        assert_same_bits(alone[1], dmemory[one, :length])
        # A gradient of weights is that of the padded sample alone, too.
        padded = gradients_of(layer, (h[one], memory[one]), dy[one], lengths=[length])
        for short, long in zip(alone[2:], padded[2:], strict=True):
            assert_same_bits(long, short)


def test_the_same_seed_trains_to_the_same_bits() -> None:
    """With scheduled sampling and dropout between layers."""
    rng = np.random.default_rng(0)
    source = [rng.integers(0, 6, n) for n in (3, 5, 2, 4, 6, 1)]
    target = [rng.integers(0, 6, n) for n in (2, 4, 3, 5, 1, 4)]
    results: list[Any] = []
    for seed in (7, 7, 8):
        model = encoder_decoder("float32", scheduled_sampling=0.3)
        fr.fit(
            model,
            (source, model.decoder_inputs(target)),
            target,
            loss="cross_entropy",
            epochs=3,
            batch_size=2,
            seed=seed,
            progress=False,
        )
        results.append(b"".join(array.tobytes() for array in model.params.values()))
    assert results[0] == results[1] != results[2]
