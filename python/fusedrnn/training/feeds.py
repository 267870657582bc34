"""Where the batches of an epoch come from: samples in memory, or a source that makes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..arrays.checks import positive_int
from .batches import BatchSource, bucketed_order
from .data import Batch, Samples, make_samples


class Feed(Protocol):
    """What ``fit`` trains on."""

    @property
    def steps(self) -> int | None:
        """Batches an epoch; None if that is not known."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, from 0."""


@dataclass(frozen=True)
class SampleFeed:
    """Samples in a new order each epoch; if ``bucketed``, such that a batch holds similar lengths."""

    samples: Samples
    batch_size: int
    bucketed: bool
    rng: np.random.Generator

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return -(-len(self.samples) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        if self.bucketed:
            return self.samples.batches(
                self.batch_size, bucketed_order(self.samples.time_steps, self.batch_size, self.rng)
            )
        return self.samples.batches(self.batch_size, self.rng.permutation(len(self.samples)))


@dataclass(frozen=True)
class SourceFeed:
    """Batches as a source makes them."""

    source: BatchSource

    @property
    def steps(self) -> int | None:
        """Batches an epoch; None if the source decides."""
        return self.source.steps

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch, each checked and padded."""
        for item in self.source.epoch(epoch):
            samples = make_samples(*item)
            yield next(samples.batches(len(samples)))


def make_feed(
    x: Any,
    y: Any,
    lengths: Any,
    *,
    batch_size: int,
    bucket_by_length: bool,
    steps_per_epoch: int | None,
    rng: np.random.Generator,
) -> SampleFeed | SourceFeed:
    """Return the feed that the arguments of ``fit`` describe; ValueError if some do not go together."""
    if y is not None:
        if steps_per_epoch is not None:
            raise ValueError(
                f"fit: steps_per_epoch is {steps_per_epoch} with samples x, y; expected None, or a source and no y"
            )
        samples = make_samples(x, y, lengths)
        if bucket_by_length and samples.time_steps is None:
            raise ValueError("fit: bucket_by_length is set without lengths; expected ragged sequences, or lengths")
        return SampleFeed(samples, batch_size, bucket_by_length, rng)
    if isinstance(x, np.ndarray):
        raise ValueError("fit: y is None and x an array; expected targets, or as x a source of batches")
    if lengths is not None or bucket_by_length:
        name = "bucket_by_length" if lengths is None else "lengths"
        raise ValueError(f"fit: {name} is given with a source of batches; expected batches (x, y, lengths) from it")
    steps = None if steps_per_epoch is None else positive_int("fit", "steps_per_epoch", steps_per_epoch)
    return SourceFeed(BatchSource(x, steps))
