"""Models of every pattern with ragged data for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn import models

Array = NDArray[Any]
LENGTHS = np.array([4, 0, 7, 1, 5])  # of the (last) input
SOURCE_LENGTHS = np.array([3, 6, 1, 5, 2])  # of an encoder's input
TOKENS = 6


@dataclass(frozen=True)
class ModelCase:
    """A model, its inputs, the lengths as it takes them, and which of the inputs have time steps."""

    make: Callable[[str], Any]
    inputs: Callable[[np.random.Generator], tuple[Array, ...]]
    timed: tuple[bool, ...] = (True,)
    per_step: bool = True  # whether there is an output for each time step

    @property
    def lengths(self) -> Any:
        each = (LENGTHS,) if len(self.timed) == 1 else (SOURCE_LENGTHS, LENGTHS)
        known = tuple(part if timed else None for part, timed in zip(each, self.timed, strict=True))
        return known[0] if len(known) == 1 else known

    def sample(self, inputs: tuple[Array, ...], index: int) -> tuple[tuple[Array, ...], int]:
        """Return one sample alone, without padding, and its number of output steps."""
        lengths = self.lengths if isinstance(self.lengths, tuple) else (self.lengths,)
        rows = tuple(
            x[index : index + 1] if length is None else x[index : index + 1, : length[index]]
            for x, length in zip(inputs, lengths, strict=True)
        )
        return rows, LENGTHS[index]


def values(*shape: int) -> Callable[[np.random.Generator], tuple[Array, ...]]:
    return lambda rng: (rng.normal(0.1, 1, shape),)


def tokens(rng: np.random.Generator, steps: int) -> Array:
    return rng.integers(0, TOKENS, (len(LENGTHS), steps))


X = values(len(LENGTHS), 7, 3)


def embedding(dtype: str, size: int = 4) -> fr.Embedding:
    return fr.Embedding(TOKENS, size, dtype=dtype, seed=9)


def encoder_decoder(dtype: str, attention: str | None = "general", **kwargs: Any) -> models.EncoderDecoder:
    return models.EncoderDecoder(
        fr.GRU(4, 5, bidirectional=True, dtype=dtype, seed=1),
        fr.LSTM(4, 6, 2, dtype=dtype, seed=2),
        TOKENS,
        source_embedding=embedding(dtype),
        target_embedding=embedding(dtype),
        attention=attention,
        start=0,
        end=1,
        seed=3,
        **kwargs,
    )


def autoencoder(dtype: str, inputs: str, **kwargs: Any) -> models.SequenceAutoencoder:
    reads = {"teacher": 3, "free": 3, "code": 0}[inputs] + 4 * (inputs == "code" or "condition_inputs" in kwargs)
    return models.SequenceAutoencoder(
        fr.LSTM(3, 5, dtype=dtype, seed=1),
        fr.GRU(reads, 6, dtype=dtype, seed=2),
        code_size=4,
        inputs=inputs,
        seed=3,
        **kwargs,
    )


def residual(dtype: str) -> models.Residual:
    layers = (fr.LSTM(3, 5, dtype=dtype, seed=1), fr.GRU(5, 5, dtype=dtype, seed=2), fr.RNN(5, 5, dtype=dtype, seed=3))
    return models.Residual(*layers, seed=4)


CASES: dict[str, ModelCase] = {
    "seq2seq": ModelCase(lambda d: models.SequenceToSequence(fr.LSTM(3, 5, 2, dtype=d, seed=1), 4, seed=2), X),
    "seq2seq tokens": ModelCase(
        lambda d: models.SequenceToSequence(
            fr.Bidirectional(fr.GRU(4, 5, dtype=d, seed=1), "mul", seed=5), 6, embedding=embedding(d), seed=2
        ),
        lambda rng: (tokens(rng, 7),),
    ),
    "seq2seq residual": ModelCase(lambda d: models.SequenceToSequence(residual(d), 4, seed=2), X),
    "residual of both directions": ModelCase(
        lambda d: models.SequenceToSequence(
            models.Residual(
                fr.Bidirectional(fr.GRU(3, 4, dtype=d, seed=1), seed=2),
                fr.LSTM(8, 4, bidirectional=True, dtype=d, seed=3),
                seed=4,
            ),
            2,
            seed=5,
        ),
        X,
    ),
    "seq2vec last": ModelCase(
        lambda d: models.SequenceToVector(fr.LSTM(3, 5, 2, bidirectional=True, dtype=d, seed=1), 4, seed=2),
        X,
        per_step=False,
    ),
    "seq2vec merged": ModelCase(
        lambda d: models.SequenceToVector(fr.Bidirectional(fr.GRU(3, 5, 2, dtype=d, seed=1), "sum", seed=3), 4, seed=2),
        X,
        per_step=False,
    ),
    "seq2vec residual": ModelCase(lambda d: models.SequenceToVector(residual(d), 4, seed=2), X, per_step=False),
    "seq2vec mean": ModelCase(
        lambda d: models.SequenceToVector(fr.GRU(3, 5, dtype=d, seed=1), 4, pooling="mean", seed=2), X, per_step=False
    ),
    "seq2vec mean of one feature": ModelCase(
        lambda d: models.SequenceToVector(fr.GRU(3, 1, dtype=d, seed=1), 2, pooling="mean", seed=2), X, per_step=False
    ),
    "seq2vec max": ModelCase(
        lambda d: models.SequenceToVector(
            fr.GRU(4, 5, dtype=d, seed=1), 4, pooling="max", embedding=embedding(d), seed=2
        ),
        lambda rng: (tokens(rng, 7),),
        per_step=False,
    ),
    "masked": ModelCase(lambda d: models.Masked(fr.LSTM(3, 5, bidirectional=True, dtype=d, seed=1), 7.0), X),
    "masked tokens": ModelCase(
        lambda d: models.Masked(fr.Sequential(embedding(d), fr.GRU(4, 5, dtype=d, seed=1)), 2),
        lambda rng: (tokens(rng, 7),),
    ),
    "vec2seq": ModelCase(
        lambda d: models.VectorToSequence(
            fr.LSTM(4, 5, 2, dtype=d, seed=1), TOKENS, vector_size=3, embedding=embedding(d), seed=2
        ),
        lambda rng: (rng.normal(0.1, 1, (5, 3)), tokens(rng, 7)),
        timed=(False, True),
    ),
    "vec2seq conditioned": ModelCase(
        lambda d: models.VectorToSequence(
            fr.GRU(5, 5, dtype=d, seed=1), 2, vector_size=3, condition_inputs=True, seed=2
        ),
        lambda rng: (rng.normal(0.1, 1, (5, 3)), rng.normal(0.1, 1, (5, 7, 2))),
        timed=(False, True),
    ),
    "encoder-decoder general": ModelCase(
        lambda d: encoder_decoder(d), lambda rng: (tokens(rng, 6), tokens(rng, 7)), timed=(True, True)
    ),
    "encoder-decoder plain": ModelCase(
        lambda d: encoder_decoder(d, None), lambda rng: (tokens(rng, 6), tokens(rng, 7)), timed=(True, True)
    ),
    "encoder-decoder of values": ModelCase(
        lambda d: models.EncoderDecoder(
            fr.LSTM(3, 5, dtype=d, seed=1), fr.LSTM(2, 5, dtype=d, seed=2), 2, attention="dot", seed=3
        ),
        lambda rng: (rng.normal(0.1, 1, (5, 6, 3)), rng.normal(0.1, 1, (5, 7, 2))),
        timed=(True, True),
    ),
    "encoder-decoder residual": ModelCase(
        lambda d: models.EncoderDecoder(residual(d), residual(d), 3, seed=3),
        lambda rng: (rng.normal(0.1, 1, (5, 6, 3)), rng.normal(0.1, 1, (5, 7, 3))),
        timed=(True, True),
    ),
    "encoder-decoder residual bridged": ModelCase(
        lambda d: models.EncoderDecoder(residual(d), fr.GRU(3, 4, dtype=d, seed=5), 3, attention="general", seed=3),
        lambda rng: (rng.normal(0.1, 1, (5, 6, 3)), rng.normal(0.1, 1, (5, 7, 3))),
        timed=(True, True),
    ),
    "autoencoder teacher": ModelCase(lambda d: autoencoder(d, "teacher"), X),
    "autoencoder free": ModelCase(lambda d: autoencoder(d, "free", condition_inputs=True), X),
    "autoencoder code": ModelCase(lambda d: autoencoder(d, "code", reverse=False), X),
    "stacked": ModelCase(
        lambda d: models.StackedAutoencoder((3, 6, 2), activation="tanh", dtype=d, seed=1), values(5, 3), timed=(False,)
    ),
    "stacked tied": ModelCase(
        lambda d: models.StackedAutoencoder(
            (3, 6, 5, 2), activation="relu", code_activation="sigmoid", tied=True, sparsity=0.3, sparsity_target=0.2,
            output_activation="sigmoid", dtype=d, seed=1
        ),
        values(5, 3),
        timed=(False,),
    ),
    "stacked sparse": ModelCase(
        lambda d: models.StackedAutoencoder((3, 4), code_activation="tanh", sparsity=0.3, dtype=d, seed=1),
        values(5, 3),
        timed=(False,),
    ),
}  # fmt: skip


def arguments(case: ModelCase, dtype: str, seed: int = 0) -> tuple[Any, tuple[Array, ...]]:
    """Return the model and its inputs, the real ones in its dtype."""
    inputs = case.inputs(np.random.default_rng(seed))
    return case.make(dtype), tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs)


def keywords(case: ModelCase) -> dict[str, Any]:
    """Return the lengths as keyword arguments; none for models without time."""
    return {"lengths": case.lengths} if any(case.timed) else {}
