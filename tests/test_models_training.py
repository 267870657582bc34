"""The models as a user meets them: trained with fit, on ragged data and several inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn import models
from fusedrnn.training.criterion import Criterion
from fusedrnn.training.data import make_samples
from fusedrnn.training.loop import judged
from model_cases import LENGTHS, encoder_decoder, residual

Array = NDArray[Any]


def adam(rate: float) -> Any:
    return lambda model: fr.Adam(model, lr=rate)


def test_sequences_are_reversed_by_an_encoder_decoder() -> None:
    """Ragged lists of tokens in, taught with what decoder_inputs makes of the target; greedy decoding gets it right."""
    rng = np.random.default_rng(0)
    source = [rng.integers(2, 7, n) for n in rng.integers(1, 5, 300)]
    target = [np.append(tokens[::-1], 1) for tokens in source]
    model = models.EncoderDecoder(
        fr.GRU(8, 24, bidirectional=True, seed=1),
        fr.GRU(8, 24, seed=2),
        7,
        source_embedding=fr.Embedding(7, 8, seed=3),
        target_embedding=fr.Embedding(7, 8, seed=4),
        attention="general",
        start=0,
        end=1,
        seed=5,
    )
    inputs = model.decoder_inputs(target)
    history = fr.fit(
        model,
        (source[:260], inputs[:260]),
        target[:260],
        loss="cross_entropy",
        optimizer=adam(0.01),
        epochs=12,
        batch_size=20,
        validation_data=((source[260:], inputs[260:]), target[260:]),
        seed=1,
        progress=False,
    )
    assert history["val_loss"][-1] <= 0.1 * history["val_loss"][0]
    held_out = make_samples((source[260:], inputs[260:]), target[260:])
    found = model.generate(held_out.x[0], 6, lengths=held_out.lengths[0])
    right = [found.tokens[i, :n].tolist() == target[260 + i].tolist() for i, n in enumerate(found.lengths)]
    assert np.mean(right) >= 0.9


def test_ragged_and_padded_inputs_train_alike() -> None:
    rng = np.random.default_rng(0)
    source = [rng.integers(0, 6, n) for n in (3, 6, 1, 5, 2, 4)]
    target = [rng.integers(0, 6, n) for n in (4, 2, 7, 1, 5, 3)]
    inputs = encoder_decoder("float64").decoder_inputs(target)
    padded = [make_samples(part, np.zeros(6)).x for part in (source, inputs, target)]
    lengths = tuple([len(row) for row in part] for part in (source, target))
    losses = []
    for x, y, given in (((source, inputs), target, None), ((padded[0], padded[1]), padded[2], lengths)):
        model = encoder_decoder("float64")
        fit = {"loss": "cross_entropy", "epochs": 4, "batch_size": 4, "seed": 1, "progress": False}
        validation = (x, y) if given is None else (x, y, given)
        history = fr.fit(model, x, y, lengths=given, validation_data=validation, **fit)
        losses.append(history["val_loss"])
        samples = make_samples(x, y, given)
        whole = judged(model, [samples], Criterion("cross_entropy"), 6).value
        alone = judged(model, [samples], Criterion("cross_entropy"), 1).value
        assert abs(whole - alone) <= 1e-12
    assert np.allclose(losses[0], losses[1], rtol=1e-12, atol=0)


def test_only_some_inputs_have_lengths() -> None:
    """A vector and ragged captions; the vector has none."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((60, 3))
    captions = [np.append(np.repeat(2 + int(v[0] > 0), 1 + int(v[1] > 0)), 1) for v in vectors]
    model = models.VectorToSequence(
        fr.LSTM(4, 12, seed=1), 4, vector_size=3, embedding=fr.Embedding(4, 4, seed=2), start=0, end=1, seed=3
    )
    history = fr.fit(
        model,
        (vectors, model.decoder_inputs(captions)),
        captions,
        loss="cross_entropy",
        optimizer=adam(0.02),
        epochs=40,
        batch_size=10,
        seed=1,
        progress=False,
    )
    assert history["loss"][-1] <= 0.1
    found = model.generate(vectors, 4)
    right = [found.tokens[i, :n].tolist() == captions[i].tolist() for i, n in enumerate(found.lengths)]
    assert np.mean(right) >= 0.95
    samples = make_samples((vectors, model.decoder_inputs(captions)), captions)
    batch = next(samples.batches(3))
    assert batch.lengths[0] is None and batch.lengths[1].tolist() == [len(c) for c in captions[:3]]
    equal = make_samples((vectors, np.zeros((60, 2), int)), np.zeros((60, 2), int))
    assert next(equal.batches(3)).lengths is None


def test_an_autoencoder_finds_the_odd_sequence() -> None:
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 6, 64)
    waves = [
        np.sin(phase + 0.7 * np.arange(n))[:, np.newaxis]
        for phase, n in zip(phases, rng.integers(6, 10, 64), strict=True)
    ]
    for inputs in ("teacher", "free", "code"):
        decoder = fr.GRU({"teacher": 1, "free": 1, "code": 6}[inputs], 16, seed=2)
        model = models.SequenceAutoencoder(fr.GRU(1, 16, seed=1), decoder, code_size=6, inputs=inputs, seed=3)
        history = fr.fit(
            model, waves, waves, optimizer=adam(0.02), epochs=40, batch_size=16, seed=1, progress=False, clip_norm=1.0
        )
        assert history["loss"][-1] <= 0.1 * history["loss"][0], inputs
        odd = rng.uniform(-1, 1, (8, 9, 1))
        normal = np.array([np.sin(phase + 0.7 * np.arange(9))[:, np.newaxis] for phase in rng.uniform(0, 6, 8)])
        assert model.reconstruction_error(odd).min() > model.reconstruction_error(normal).max(), inputs
        codes = model.encode(normal)
        assert codes.shape == (8, 6) and np.array_equal(model.decode(codes, 9), model(normal))


def test_autoencoders_in_both_orders_return_the_order_of_x() -> None:
    """With a decoder that copies its input, the taught reconstruction is x, delayed in the order of the decoder."""
    x = np.arange(1.0, 13).reshape(2, 6, 1)
    for reverse, expected in ((False, [0, 1, 2, 3]), (True, [2, 3, 4, 0])):
        model = models.SequenceAutoencoder(
            fr.RNN(1, 2, dtype="float64"), fr.RNN(1, 1, nonlinearity="relu", dtype="float64"), reverse=reverse
        )
        for name, array in model.params.items():
            array[...] = 1.0 if name.endswith(("layer.weight_ih_l0", "head.weight")) else 0.0
        y, _ = model.forward(x[:1], lengths=[4])
        assert y[0, :, 0].tolist() == [*expected, 0, 0]


def test_a_denoising_autoencoder_and_its_pretraining() -> None:
    rng = np.random.default_rng(0)
    x = np.tanh(rng.standard_normal((200, 2)) @ rng.standard_normal((2, 12)))
    for tied in (False, True):
        options: dict[str, Any] = {"activation": "tanh", "tied": tied, "noise": 0.05, "dropout": 0.05, "seed": 1}
        model = models.StackedAutoencoder((12, 8, 2), **options)
        histories = model.pretrain(x, optimizer=adam(0.01), epochs=15, batch_size=20, seed=1, progress=False)
        assert len(histories) == 2 and all(h["loss"][-1] < 0.5 * h["loss"][0] for h in histories)
        fresh = models.StackedAutoencoder((12, 8, 2), **options)
        assert np.mean(model.reconstruction_error(x)) < 0.5 * np.mean(fresh.reconstruction_error(x))
        before = np.mean(model.reconstruction_error(x))
        fr.fit(model, x, x, optimizer=adam(0.005), epochs=15, batch_size=20, seed=1, progress=False)
        assert np.mean(model.reconstruction_error(x)) < before
        assert np.array_equal(model.decode(model.encode(x)), model(x))
        assert model.encode(x).shape == (200, 2)


def test_the_sparsity_penalty_makes_codes_sparse_and_is_in_the_loss() -> None:
    x = np.random.default_rng(0).standard_normal((100, 6))
    means = []
    for sparsity in (0.0, 3.0):
        model = models.StackedAutoencoder(
            (6, 5), code_activation="sigmoid", sparsity=sparsity, sparsity_target=0.05, dtype="float64", seed=1
        )
        history = fr.fit(model, x, x, optimizer=adam(0.05), epochs=100, batch_size=100, progress=False)
        means.append(model.encode(x).mean())
    assert means[0] > 0.3 and abs(means[1] - 0.05) <= 0.03
    m = model.encode(x).mean(axis=0)
    expected = 3.0 * np.sum(0.05 * np.log(0.05 / m) + 0.95 * np.log(0.95 / (1 - m)))
    _, tape = model.forward(x)
    assert abs(model.penalty(tape) - expected) <= 1e-12
    plain = np.mean(np.square(model(x) - x))
    again = fr.fit(model, x, x, optimizer=adam(0.0), epochs=1, batch_size=100, progress=False)
    assert abs(again["loss"][0] - (plain + expected)) <= 1e-12 and again["loss"][0] < history["loss"][0]


def test_gradients_reach_the_lowest_of_many_layers() -> None:
    """Twelve contracting layers: with skip connections the first one gets a gradient, and the model learns."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 8, 4))
    y = x.sum(axis=1)[:, :1]
    norms, losses = [], []
    for skip in (True, False):
        layers = [fr.RNN(4 if i == 0 else 8, 8, seed=i, init="torch", dtype="float64") for i in range(12)]
        stack = models.Residual(*layers, seed=1) if skip else fr.Sequential(*layers)
        model = models.SequenceToVector(stack, 1, seed=2)
        pred, tape = model.forward(x)
        model.backward(tape, np.ones_like(pred))
        norms.append(np.linalg.norm(model.grads["layer.0.weight_ih_l0"]))
        history = fr.fit(model, x, y, optimizer=adam(0.01), epochs=30, batch_size=16, seed=1, progress=False)
        losses.append(history["loss"][-1])
    assert norms[0] >= 100 * norms[1]
    assert losses[0] <= 0.1 * losses[1]


def test_streams_of_residual_stacks_equal_one_call() -> None:
    model = residual("float64")
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    y, state = model(x)
    stream = model.stream(2)
    steps = np.stack([stream.step(x[:, t]) for t in range(5)], axis=1)
    assert np.max(np.abs(steps - y)) <= 1e-14
    assert np.max(np.abs(stream.state[0][1] - state[0][1])) <= 1e-14
    stream.reset()
    assert np.array_equal(stream.step(x[:, 0]), steps[:, 0])
    middle = model(x[:, :2])[1]
    assert np.max(np.abs(model(x[:, 2:], state=middle)[0] - y[:, 2:])) <= 1e-14


def test_probabilities_sum_to_1() -> None:
    x = np.random.default_rng(0).standard_normal((5, 7, 3))
    steps = models.SequenceToSequence(fr.GRU(3, 4, dtype="float64"), 5).probabilities(x, LENGTHS)
    valid = np.arange(7) < LENGTHS[:, np.newaxis]
    assert np.max(np.abs(steps.sum(axis=2) - valid)) <= 1e-12
    whole = models.SequenceToVector(fr.GRU(3, 4, dtype="float64"), 5).probabilities(x, LENGTHS)
    assert np.max(np.abs(whole.sum(axis=1) - 1)) <= 1e-12
