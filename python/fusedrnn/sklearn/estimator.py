"""What the estimators share: options, the training of a model, and prediction in batches."""

from __future__ import annotations

import os
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ..arrays.checks import Array
from ..data import Preprocessor
from ..layers import GRU, LSTM, RNN, Dropout, Embedding, Layer, Linear, Sequential
from ..training import Adam, EarlyStopping, History, fit
from ..training.losses import Loss
from .inputs import Sequences
from .reading import SequenceReader, batches
from .samples import ArraySamples, TableWindows, counting
from .splits import VALIDATION, split, stride_of

CELLS: dict[str, Any] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
_FORM = ("cell", "hidden_size", "num_layers", "bidirectional", "window", "horizon", "target", "known", "embedding_size")
_Self = TypeVar("_Self", bound="SequenceEstimator")


@dataclass(kw_only=True, eq=False, repr=False)
class SequenceEstimator(SequenceReader, BaseEstimator, metaclass=ABCMeta):  # type: ignore[misc]
    """Base of the estimators: the options that all have; see :class:`RecurrentRegressor` for what they mean."""

    bidirectional: bool = False
    dropout: float = 0.0
    learning_rate: float = 1e-2
    epochs: int = 50
    batch_size: int = 32
    clip_norm: float | None = 1.0
    validation_fraction: float = 0.0
    validation: str = "auto"
    patience: int = 10
    standardize: bool | str = "auto"
    warm_start: bool = False
    random_state: Any = None
    verbose: bool = False

    if TYPE_CHECKING:  # not fields here: in the subclasses' constructors they come first and by position
        model_: Any
        cell: str = ""
        hidden_size: int = 0
        num_layers: int = 0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = self._reads_texts
        return tags

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a safetensors file, which :func:`fusedrnn.sklearn.load` reads.

        ``fusedrnn.load`` reads the same file as the model alone, with its preprocessing. Nothing is pickled. The state
        of the optimizer is left out.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before ``fit``.
        OSError
            If the file cannot be written.
        """
        from .files import save

        check_is_fitted(self, "model_")
        save(self, path)

    @abstractmethod
    def _make(self, samples: Any, seeds: list[int]) -> Layer:
        """Return a new model for such samples."""

    @abstractmethod
    def _targets(self, inputs: Sequences, target: Any, weight: Array | None, fresh: bool) -> Any:
        """Return what the model should give; of a fresh target, learn its scale or labels."""

    def _loss(self) -> str | Loss:
        return "mse"

    def _note_series(self, windows: Sequences, target: Any) -> None:
        """Note what a forecast needs to know of windows and target."""

    def _weights(self, target: Any, weight: Array | None) -> Array | None:
        """Return how much each sample counts."""
        return weight

    def _preprocessing(self) -> dict[str, Preprocessor]:
        """Return what stands before and behind the model, for its file."""
        known = {"x": self.x_scaler_, "text": self.vocabulary_}
        return {name: each for name, each in known.items() if each is not None}

    def _learn(
        self: _Self, x: Any, y: Any, sample_weight: Any, *, anew: bool, epochs: int, validate: bool = True
    ) -> _Self:
        """Read X and y, make a model unless one goes on learning, and train it."""
        fresh = anew or not hasattr(self, "model_")
        sequences, target = self._read(x, reset=fresh, y=y)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, sequences, dtype=np.float64, ensure_non_negative=True)
        self._stride = stride_of(sequences) if isinstance(sequences, np.ndarray) else 0
        gap = -(-sequences.shape[1] // self._stride) if self._stride and isinstance(sequences, np.ndarray) else 0
        if fresh:
            self._learn_scale(counting(sequences, weight))
        self._note_series(sequences, target)
        inputs = self._scaled(sequences)
        outputs = self._targets(inputs, target, weight, fresh)
        samples = ArraySamples(inputs, outputs, self._weights(target, weight))
        return self._train(samples, fresh=fresh, epochs=epochs, validate=validate, gap=gap)

    def _train(
        self: _Self, samples: ArraySamples | TableWindows, *, fresh: bool, epochs: int, validate: bool, gap: int
    ) -> _Self:
        """Train a new model, or the one there is; without a validation part for all epochs.

        ``gap`` is the number of samples that share time steps with those after them; 0 if they have no order in time.
        """
        op = type(self).__name__
        if self.validation not in VALIDATION:
            known = ", ".join(map(repr, VALIDATION))
            raise ValueError(f"{op}: validation is {self.validation!r}; expected one of {known}")
        if samples.weight is not None and not samples.weight.any():
            raise ValueError(f"{op}: sample_weight is 0 for all samples; expected some that count")
        if fresh:
            *seeds, order = self._seeds(5)
            self._random = np.random.default_rng(order)
            model, optimizer = self._make(samples, seeds), None
            self._form = self._form_now()
        else:
            model, optimizer = self.model_, getattr(self, "_optimizer", None)
            for name, now in self._form_now().items():
                if now != (was := getattr(self, "_form", {}).get(name, now)):
                    raise ValueError(f"{op}: {name} is {now!r}, but was {was!r} of the model that goes on learning")
        optimizer = optimizer or Adam(model, lr=self.learning_rate)
        optimizer.lr = self.learning_rate
        kind = self.validation if self.validation != "auto" else "last" if gap else "random"
        fraction = self.validation_fraction if validate else 0.0
        chosen, held = split(op, len(samples), fraction, kind, gap, self._random)
        seed = int(self._random.integers(np.iinfo(np.int32).max))
        data = samples.to_learn(chosen, self.batch_size, seed)
        if len(held):
            data |= {
                "validation_data": samples.to_judge(held, self.batch_size),
                "callbacks": EarlyStopping(self.patience),
            }
        with np.errstate(over="ignore", invalid="ignore"):
            self.history_: History = fit(
                model,
                loss=self._loss(),
                optimizer=optimizer,
                epochs=epochs,
                batch_size=self.batch_size,
                clip_norm=self._clip_norm(samples.weight),
                progress=self.verbose,
                seed=seed,
                **data,
            )
        self.model_, self._optimizer = model, optimizer if self.warm_start or not validate else None
        model.preprocessing = self._preprocessing()
        return self

    def _form_now(self) -> dict[str, Any]:
        """Return the options that decide the form of the model."""
        options = self.get_params(deep=False)
        return {name: options[name] for name in _FORM if name in options}

    def _clip_norm(self, weight: Array | None) -> float | None:
        """Return the limit of the gradients of weighted samples: it cuts none that it would not cut without weights.

        Otherwise a sample that counts 50 times, alone in its batch, would be cut to what the others count.
        """
        if self.clip_norm is None or weight is None:
            return self.clip_norm
        return self.clip_norm * float(weight.max() / weight.mean())

    def _seeds(self, count: int) -> list[int]:
        seeds: list[int] = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=count).tolist()
        return seeds

    def _recurrent(self, input_size: int, seed: int, *, bidirectional: bool | None = None) -> Any:
        if self.cell not in CELLS:
            known = ", ".join(map(repr, CELLS))
            raise ValueError(f"{type(self).__name__}: cell is {self.cell!r}; expected one of {known}")
        return CELLS[self.cell](
            input_size,
            self.hidden_size,
            self.num_layers,
            dropout=0.0 if self.num_layers == 1 else self.dropout,  # is between layers
            bidirectional=self.bidirectional if bidirectional is None else bidirectional,
            seed=seed,
        )

    def _head(self, features: int, outputs: int, seed: int) -> Layer:
        """Return a Linear, behind a Dropout if there is one."""
        linear = Linear(features, outputs, seed=seed)
        return Sequential(Dropout(self.dropout, seed=seed), linear) if self.dropout else linear

    def _predict(self, x: Any, method: str = "__call__") -> Array:
        """Return what a method of the model makes of X, in float64."""
        check_is_fitted(self, "model_")
        return self._run(self._scaled(self._read(x)[0]), method)

    def _run(self, inputs: Sequences, method: str = "__call__") -> Array:
        """Return what a method of the model makes of sequences on its scale, batch by batch, in float64."""
        run, result = getattr(self.model_, method), None
        for chosen, batch, lengths in batches(inputs):
            made = run(batch) if lengths is None else run(batch, lengths=lengths)
            if result is None:
                result = np.empty((len(inputs), *made.shape[1:]))
            result[chosen] = made
        assert result is not None  # scikit-learn lets no empty X through
        return result


def embedding_of(vocabulary: Any, size: int, seed: int) -> Embedding | None:
    """Return the table of a vocabulary; None without one."""
    return None if vocabulary is None else Embedding(len(vocabulary), size, seed=seed)
