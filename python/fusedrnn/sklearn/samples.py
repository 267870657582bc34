"""Samples to learn from: arrays and lists as they are; windows of a table, which are cut a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..arrays.checks import Array
from .inputs import Sequences

Chosen = NDArray[np.intp]


@dataclass(frozen=True)
class ArraySamples:
    """Inputs and targets of all samples, and how much each counts if they do not count alike."""

    x: Sequences
    y: Any
    weight: Array | None

    def __len__(self) -> int:
        return len(self.x)

    def to_learn(self, chosen: Chosen, batch_size: int, seed: int) -> dict[str, Any]:
        """Return the arguments of ``fit`` that give it these samples."""
        data = {"x": take(self.x, chosen), "y": take(self.y, chosen)}
        return data if self.weight is None else {**data, "sample_weight": self.weight[chosen]}

    def to_judge(self, chosen: Chosen, batch_size: int) -> Any:
        """Return these samples as validation data."""
        data = (take(self.x, chosen), take(self.y, chosen))
        return data if self.weight is None else (*data, None, self.weight[chosen])


@dataclass(frozen=True)
class TableWindows:
    """Windows of a table. As they overlap, all of them at once would need many times its memory.

    Attributes
    ----------
    rows : ndarray of float32 (T, F)
        The table on its scale.
    window, horizon : int
        Steps to read and to predict.
    targets, known : list of int
        Columns to predict, K of them, and columns that are known over the horizon.
    spread : ndarray (K,) or None
        Scale of the targets around their mean over a window, from which they are measured then.
    weight : ndarray (N,) or None
        How much each window counts.
    """

    rows: Array
    window: int
    horizon: int
    targets: list[int]
    known: list[int]
    spread: Array | None = None
    weight: Array | None = None

    def __len__(self) -> int:
        return max(0, len(self.rows) - self.window - self.horizon + 1)

    @property
    def steps(self) -> int:
        """Time steps that the model reads."""
        return self.window + (self.horizon if self.known else 0)

    def inputs(self, chosen: Any) -> tuple[Array, Array]:
        """Return what the model reads of these windows (N, T, F), and the levels of their targets (N, 1, K), or 0.

        With known columns, the rows of the horizon follow, in which the others are 0.
        """
        both = self._both(chosen)
        x = np.array(both[:, : self.steps])
        if self.known:
            unknown = [column for column in range(x.shape[2]) if column not in self.known]
            x[:, self.window :, unknown] = 0
        if self.spread is None:
            return x, np.zeros((1, 1, 1), np.float32)
        inside = x[:, : self.window]
        level = inside[..., self.targets].mean(axis=1, keepdims=True)
        inside[..., self.targets] = (inside[..., self.targets] - level) / self.spread
        return x, level

    def outputs(self, chosen: Any, level: Array) -> Array:
        """Return what the model should give, (N, horizon, K) with known columns, else (N, horizon K)."""
        y = self._both(chosen)[:, self.window :, self.targets]
        if self.spread is not None:
            y = ((y - level) / self.spread).astype(np.float32)
        return y if self.known else y.reshape(len(y), -1)

    def to_learn(self, chosen: Chosen, batch_size: int, seed: int) -> dict[str, Any]:
        """Return the arguments of ``fit`` that give it these windows, in another order each epoch."""
        return {"x": lambda epoch: self._batches(np.random.default_rng([seed, epoch]).permutation(chosen), batch_size)}

    def to_judge(self, chosen: Chosen, batch_size: int) -> Callable[[int], Iterator[tuple[Any, ...]]]:
        """Return these windows as validation data."""
        return lambda epoch: self._batches(chosen, batch_size)

    def _both(self, chosen: Any) -> Array:
        """Return window and horizon of the chosen samples, (N, window + horizon, F)."""
        every = sliding_window_view(self.rows, self.window + self.horizon, axis=0).swapaxes(1, 2)
        both: Array = every[chosen]
        return both

    def _batches(self, order: Chosen, size: int) -> Iterator[tuple[Any, ...]]:
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            x, level = self.inputs(chosen)
            batch = (x, self.outputs(chosen, level))
            yield batch if self.weight is None else (*batch, None, self.weight[chosen])


def take(x: Any, chosen: Chosen) -> Any:
    """Return the chosen samples of an array or a list."""
    return [x[index] for index in chosen] if isinstance(x, list) else x[chosen]


def counting(x: Any, weight: Array | None) -> Any:
    """Return the samples that count, of which the scale is learnt."""
    return x if weight is None or weight.all() or not weight.any() else take(x, np.flatnonzero(weight))
