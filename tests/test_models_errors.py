"""What the models refuse, and what they say then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy import zeros

import fusedrnn as fr
from fusedrnn import LSTM, Embedding, Linear, models
from fusedrnn.models import EncoderDecoder, Residual
from fusedrnn.models import SequenceAutoencoder as Autoencoder
from fusedrnn.models import SequenceToSequence as Seq2Seq
from fusedrnn.models import SequenceToVector as Seq2Vec
from fusedrnn.models import StackedAutoencoder as Stacked
from fusedrnn.models import VectorToSequence as Vec2Seq
from fusedrnn.training.data import make_samples
from model_cases import TOKENS
from tolerance import assert_same_bits


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Seq2Seq(LSTM(2, 3), Linear(4, 1))(zeros((1, 2, 2))), ValueError, "Linear: x has"),
        (lambda: Seq2Seq(LSTM(2, 3), "5"), TypeError, "SequenceToSequence: head is '5'"),
        (lambda: Seq2Seq(LSTM(2, 3), 0), ValueError, "out_features is 0"),
        (lambda: Seq2Seq("lstm", 3), TypeError, "layer is 'lstm'"),
        (lambda: EncoderDecoder(Linear(2, 3), LSTM(2, 3), 2), TypeError, "encoder is a Linear; expected a recurrent"),
        (lambda: Autoencoder(Linear(2, 3), LSTM(2, 3)), TypeError, "encoder is a Linear; expected a recurrent"),
        (lambda: Seq2Seq(LSTM(2, 3, batch_first=False), 3), ValueError, "layer has batch_first=False"),
        (lambda: Seq2Seq(LSTM(2, 3), Linear(3, 1, dtype="float64")), TypeError, "head has dtype float64"),
        (lambda: Seq2Seq(fr.Bidirectional(LSTM(2, 3), None), 2), TypeError, "one output of known size"),
        (lambda: Seq2Seq(LSTM(2, 3), 2)(zeros((4, 2))), ValueError, r"x has shape \(4, 2\); expected \(batch, time"),
        (
            lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), 2)(zeros(2), zeros((2, 3, 2)), ([1, 1], None)),
            ValueError,
            r"source has shape \(2,\)",
        ),
        (lambda: Seq2Seq(LSTM(2, 3), 2)(zeros((4, 5, 2)), [5, 6, 1, 1]), ValueError, r"lengths\[1\] is 6"),
        (lambda: Seq2Seq(LSTM(2, 3), 2).generate(zeros((1, 1), int), 3), ValueError, "has no embedding"),
        (
            lambda: Seq2Seq(LSTM(2, 3), 4, embedding=Embedding(4, 2)).generate(zeros((1, 2), int), 3, lengths=[0]),
            ValueError,
            "prompt has an empty sentence",
        ),
        (
            lambda: Seq2Seq(LSTM(2, 3, bidirectional=True), 4, embedding=Embedding(4, 2)).generate([[1]], 3),
            ValueError,
            "layer reads the future",
        ),
        (lambda: Seq2Vec(LSTM(2, 3), 2, pooling="first"), ValueError, "pooling is 'first'"),
        (
            lambda: Vec2Seq(LSTM(2, 3), 2, vector_size=3)(zeros((1, 2)), zeros((1, 1, 2))),
            ValueError,
            "vector has shape",
        ),
        (lambda: Vec2Seq(Linear(2, 3), 2, vector_size=3), TypeError, "layer is a Linear; expected RNN"),
        (
            lambda: Vec2Seq(LSTM(2, 3), 1, vector_size=3).unroll(zeros((1, 3)), 2),
            ValueError,
            r"outputs have shape \(1, 1\); expected that of the inputs",
        ),
        (
            lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 4), 2, attention="dot"),
            ValueError,
            "query_size is 4; expected memory_size = 3",
        ),
        (
            lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), 2, attention="cosine"),
            ValueError,
            "attention is 'cosine'; expected 'dot', ",
        ),
        (
            lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), 2, scheduled_sampling=2),
            ValueError,
            "scheduled_sampling is 2",
        ),
        (
            lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), 2)(zeros((2, 3, 2)), zeros((2, 3, 2)), [1, 2, 3]),
            ValueError,
            "expected a pair",
        ),
        (
            lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), 2)(zeros((1, 3, 2)), zeros((3, 2))),
            ValueError,
            r"EncoderDecoder: inputs has shape \(3, 2\); expected \(batch, time, features\)",
        ),
        (
            lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), 2, attention="dot").attention_weights(
                zeros((1, 3, 2)), zeros((3, 2))
            ),
            ValueError,
            r"EncoderDecoder: inputs has shape \(3, 2\); expected \(batch, time, features\)",
        ),
        (
            lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), 2)(zeros((1, 3, 2)), zeros((4, 3, 2))),
            ValueError,
            "EncoderDecoder: inputs has 4 samples; expected 1, as source",
        ),
        (lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), 2).stream(), TypeError, "stream needs a state carried"),
        (lambda: Autoencoder(LSTM(2, 3), LSTM(3, 3)), ValueError, "decoder has input_size 3; expected 2"),
        (lambda: Autoencoder(LSTM(2, 3), LSTM(2, 3), Linear(3, 1)), ValueError, "head has outputs 1; expected 2"),
        (lambda: Autoencoder(LSTM(2, 3), LSTM(2, 3), inputs="own"), ValueError, "inputs is 'own'"),
        (lambda: Autoencoder(LSTM(2, 3), LSTM(2, 3)).decode(zeros((2, 4)), 3), ValueError, "code has shape"),
        (lambda: Autoencoder(LSTM(2, 3), LSTM(2, 3))(zeros((2, 4, 3))), ValueError, "x has shape"),
        (lambda: Autoencoder(LSTM(2, 3), LSTM(2, 3)).decode(zeros((2, 3)), -1), ValueError, "steps is -1"),
        (lambda: Residual(fr.Bidirectional(LSTM(2, 1))).stream(), ValueError, "Residual: stream needs one forward"),
        (lambda: Stacked((4,)), ValueError, "sizes is"),
        (lambda: Stacked((4, 0)), ValueError, "sizes is 0"),
        (lambda: Stacked((4, 2), activation="swish", code_activation="swish"), ValueError, "activation is 'swish'"),
        (lambda: Stacked((4, 2), sparsity_target=0.1), ValueError, "expected 'sigmoid'"),
        (lambda: Stacked((4, 2), sparsity=-1), ValueError, "sparsity is -1"),
        (lambda: Stacked((4, 2), noise=-1), ValueError, "std is -1"),
        (lambda: Stacked((4, 2))(zeros((3, 5))), ValueError, "x has shape"),
        (lambda: Vec2Seq(Residual(fr.Bidirectional(LSTM(2, 1))), 2, vector_size=3), ValueError, "reads the future"),
        (lambda: Residual(), ValueError, "got no layers"),
        (lambda: Residual(LSTM(2, 3), Linear(3, 3)), TypeError, "layer 1 is a Linear"),
        (lambda: Residual(LSTM(2, 3), LSTM(2, 3)), ValueError, "layer 1 has input_size 2; expected 3"),
        (lambda: Residual(LSTM(2, 3))(zeros((1, 2, 2)), state=zeros((1, 1, 3))), ValueError, "expected 1 states"),
        (
            lambda: models.SequenceToSequence(LSTM(2, 3), LSTM(3, 2)),
            TypeError,
            "head is an LSTM; expected layers without",
        ),
        (
            lambda: Seq2Vec(LSTM(2, 3), fr.Sequential(fr.Bidirectional(LSTM(3, 2)), Linear(4, 1))),
            TypeError,
            "head is a Sequential with a Bidirectional in it",
        ),
        (lambda: Vec2Seq(LSTM(2, 3), Residual(LSTM(3, 2)), vector_size=3), TypeError, "head is a Residual"),
        (lambda: EncoderDecoder(LSTM(2, 3), LSTM(2, 3), LSTM(3, 2)), TypeError, "head is an LSTM"),
        (lambda: models.shift_right(zeros(3)), ValueError, "shift_right: targets has shape"),
        (lambda: Seq2Vec(LSTM(2, 3), 2).backward(None, zeros((1, 2))), ValueError, "tape is a NoneType"),
    ],
)
def test_models_check_their_arguments(make: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("x", "y", "lengths", "match"),
    [
        ((zeros((3, 2)), zeros((2, 2))), zeros((3, 2)), None, r"fit: x\[0\] has 3 and x\[1\] has 2 samples"),
        ((), zeros(3), None, "x is an empty tuple"),
        ((zeros((3, 2)), zeros((3, 2))), zeros(3), [1, 2, 2], "expected one for each of the 2 inputs"),
        ((zeros((3, 2)), zeros((3, 2))), zeros(3), ([1, 2], None), "lengths has shape"),
        (([[1], [1, 2]], zeros((2, 2))), zeros(2), ([1, 2], None), "got lengths together with ragged"),
        (
            (zeros((2, 2)), [[1], [1, 2]]),
            [[1, 2], [1]],
            None,
            r"y\[0\] has 2 time steps; expected 1, as x\[1\]\[0\]",
        ),
    ],
)
def test_fit_checks_several_inputs(x: Any, y: Any, lengths: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make_samples(x, y, lengths)


def test_tokens_past_the_end_may_be_anything() -> None:
    """Padding of -100 is not looked up; inside the sentence it is an error."""
    model = Seq2Vec(fr.GRU(4, 3, seed=1), 2, embedding=Embedding(TOKENS, 4, seed=2), seed=3)
    tokens = np.array([[1, 2, -100], [3, 4, 5]])
    clean = np.array([[1, 2, 0], [3, 4, 5]])
    assert_same_bits(model(tokens, [2, 3]), model(clean, [2, 3]))
    with pytest.raises(ValueError, match="ids has -100"):
        model(tokens, [3, 3])


def test_attributes_that_have_no_effect_later_are_fixed() -> None:
    made: list[tuple[Any, str]] = [
        (Stacked((4, 2), dropout=0.5), "dropout"),
        (Stacked((4, 2)), "noise"),
        (models.Attention(3, 3), "score"),
        (Vec2Seq(LSTM(2, 3), 2, vector_size=3), "vector_size"),
        (Seq2Vec(LSTM(2, 3), 2), "pooling"),
        (Autoencoder(LSTM(2, 3), LSTM(2, 3)), "code_size"),
        (fr.Bidirectional(LSTM(2, 3)), "hidden_size"),
        (fr.Bidirectional(LSTM(2, 3)), "merge"),
        (fr.Activation("tanh"), "function"),
    ]
    for layer, name in made:
        with pytest.raises(AttributeError, match=f"{layer.op}: {name} is fixed when the layer is made"):
            setattr(layer, name, 1)
    noise = models.GaussianNoise(0.1)
    with pytest.raises(ValueError, match="GaussianNoise: std is -1; expected a finite number >= 0"):
        noise.std = -1
    assert noise.std == 0.1


@pytest.mark.parametrize("argument", ["activation", "code_activation", "output_activation"])
def test_an_unknown_activation_is_refused_even_where_no_layer_has_it(argument: str) -> None:
    """64-8-64 has no hidden layer, and ``activation`` was never looked at."""
    with pytest.raises(ValueError, match=f"StackedAutoencoder: {argument} is 'swish'; expected one of 'identity', "):
        models.StackedAutoencoder((64, 8), **{argument: "swish"})  # type: ignore[arg-type]
