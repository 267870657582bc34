"""Long sequences in segments: which ones make a batch, and which row of the batch before each goes on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import Array
from .columns import Column
from .data import Batch, Samples


@dataclass
class SegmentFeed:
    """Samples in a new order each epoch; ``batch_size`` at a time go on side by side, ``segment`` steps a batch.

    Where a sequence ends, the next one takes its row.
    """

    samples: Samples
    batch_size: int
    segment: int
    rng: np.random.Generator
    _labels: Any = None

    def __post_init__(self) -> None:
        last, target = self.samples.inputs[-1], self.samples.target
        if self.samples.several:
            raise ValueError("fit: stateful is set with several inputs; expected one")
        if last.ndim < 2 or target.ndim < 2 or last.shape[1] != target.shape[1]:
            raise ValueError(
                f"fit: stateful is {self.segment} with x of shape {last.shape} and y of shape {target.shape}; expected "
                "as many time steps in both"
            )

    @property
    def _lengths(self) -> NDArray[np.int64]:
        last = self.samples.inputs[0]
        return np.full(len(last), last.shape[1]) if last.lengths is None else last.lengths

    @property
    def steps(self) -> None:
        """Batches per epoch, which depend on which sequences meet."""
        return None

    def epoch(self, epoch: int) -> Iterator[list[Batch]]:
        """Yield the batches of an epoch."""
        lengths = self._lengths
        waiting = [i for i in self.rng.permutation(len(self.samples)).tolist() if lengths[i]]
        chosen, rows = waiting[: self.batch_size], np.full(len(waiting[: self.batch_size]), -1)
        del waiting[: self.batch_size]
        at = [0] * len(chosen)
        while chosen:
            yield [replace(self._batch(np.array(chosen), np.array(at)), rows=rows)]
            kept: list[tuple[int, int, int]] = []  # row before, sample, place
            for row, (sample, place) in enumerate(zip(chosen, at, strict=True)):
                if place + self.segment < lengths[sample]:
                    kept.append((row, sample, place + self.segment))
                elif waiting:
                    kept.append((-1, waiting.pop(0), 0))
            rows = np.array([row for row, _, _ in kept], np.intp)
            chosen, at = [sample for _, sample, _ in kept], [place for _, _, place in kept]

    def labels_per_sample(self, step: Callable[[], tuple[Any, int]], count: Callable[[Samples], Any]) -> Any:
        """Return how many labels a row of a batch has on average."""
        if self._labels is None:
            self._labels = count(self.samples)
        return self._labels / float((-(-self._lengths // self.segment)).sum())

    def _batch(self, chosen: NDArray[np.intp], at: NDArray[np.intp]) -> Batch:
        samples = self.samples
        lengths = np.minimum(self._lengths[chosen] - at, self.segment)
        weight = samples.weight
        if weight is not None:
            weight = _cut(weight, chosen, at, lengths) if weight.ndim > 1 else weight.chosen(chosen)
        cut = Samples(
            (_cut(samples.inputs[0], chosen, at, lengths),), _cut(samples.target, chosen, at, lengths), False, weight
        )
        return cut.batch(slice(None))


def _cut(column: Column, chosen: Any, at: Any, lengths: NDArray[np.int64]) -> Column:
    """Return a column of the steps from ``at`` on of the chosen samples."""
    places = zip(chosen.tolist(), at.tolist(), lengths.tolist(), strict=True)
    items: list[Array] = [column.values[i][start : start + length] for i, start, length in places]
    return Column(items, lengths, column.dtype, column.fill)
