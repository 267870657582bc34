"""The data that ``fit`` judges a model on after each epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays.checks import described
from .data import Samples, StepRank, make_samples
from .sources import BatchSource

_OP = "fit: validation_data"
_EXPECTED = "(x, y), (x, y, lengths), (x, y, lengths, sample_weight), a source of those, or a share of the samples"


@dataclass
class SourceSamples:
    """The batches of a source, anew each time it is walked."""

    source: BatchSource
    step_rank: StepRank
    epochs: int = 0

    def __iter__(self) -> Iterator[Samples]:
        for item in self.source.epoch(self.epochs):
            yield make_samples(*item[:4], op=_OP, step_rank=self.step_rank)
        self.epochs += 1


def is_share(data: Any) -> bool:
    """Return whether validation data is a share of the samples; ValueError for a number that is none."""
    if isinstance(data, bool) or not isinstance(data, (int, float, np.integer, np.floating)):
        return False
    if not 0 < data < 1:
        raise ValueError(f"fit: validation_data is {data}; expected a share of the samples in (0, 1)")
    return True


def make_validation(data: Any, step_rank: StepRank) -> Iterable[Samples]:
    """Return what to judge a model on: data sets, or batches of a source."""
    if isinstance(data, tuple) or (isinstance(data, list) and not all(isinstance(part, tuple) for part in data)):
        if not 2 <= len(data) <= 4:
            raise ValueError(f"fit: validation_data has {len(data)} parts; expected {_EXPECTED}")
        return [make_samples(*data, op=_OP, step_rank=step_rank)]
    if isinstance(data, (str, bytes, bool)) or not (callable(data) or isinstance(data, Iterable)):
        raise TypeError(f"fit: validation_data is {described(data)}; expected {_EXPECTED}")
    source = BatchSource(data, op=_OP)
    if source.goes_on:
        raise ValueError(
            "fit: validation_data is an iterator, which cannot start again; expected a list, a loader, or a function "
            "that returns an iterable"
        )
    return SourceSamples(source, step_rank)


def held_out(samples: Samples, share: float, where: str, rng: np.random.Generator) -> tuple[Samples, Samples]:
    """Return the samples to train on and those held out: the last ones, or random ones."""
    count = len(samples)
    size = round(share * count)
    if not 0 < size < count:
        raise ValueError(f"fit: validation_data is {share} of {count} samples; expected at least one on either side")
    if where == "last":
        return samples.chosen(slice(0, count - size)), samples.chosen(slice(count - size, count))
    order = rng.permutation(count)
    return samples.chosen(np.sort(order[size:])), samples.chosen(np.sort(order[:size]))
