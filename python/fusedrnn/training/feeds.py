"""Where the batches of an epoch come from: samples in memory, or a source that makes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import positive_int
from .batching import bucketed_order, pieces
from .data import Batch, Samples, StepRank, cut, make_samples
from .segments import SegmentFeed
from .sources import BatchSource

Count: TypeAlias = Callable[[Samples], Any]  # the number of labels of a data set, of several outputs an array
_SPARED = 0.5  # of the padding, by another piece of a batch
_SPARED_BUCKETED = 0.05  # who asks for buckets asks for little padding


@dataclass
class SampleFeed:
    """Samples in a new order each epoch; if ``bucketed``, such that a batch holds similar lengths.

    With ``rng`` None they come as they are, and each row of a batch goes on with that of the batch before.
    """

    samples: Samples
    batch_size: int
    bucketed: bool
    rng: np.random.Generator | None
    _labels: Any = None

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return -(-len(self.samples) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[list[Batch]]:
        """Yield the batches of an epoch."""
        order: Any
        if self.rng is None:
            for start in range(0, len(self.samples), self.batch_size):
                rows = np.arange(self.batch_size) if start else None
                yield [replace(self.samples.batch(slice(start, start + self.batch_size)), rows=rows)]
            return
        if self.bucketed:
            order = bucketed_order(self.samples.time_steps, self.batch_size, self.rng)
        else:
            order = list(cut(self.rng.permutation(len(self.samples)), len(self.samples), self.batch_size))
        for chosen in order:
            yield in_pieces(self.samples, chosen, _SPARED_BUCKETED if self.bucketed else _SPARED)

    def labels_per_sample(self, step: Callable[[], tuple[Any, int]], count: Count) -> Any:
        """Return the mean over all samples."""
        if self._labels is None:
            self._labels = count(self.samples)
        return self._labels / len(self.samples)


@dataclass
class SourceFeed:
    """Batches as a source makes them.

    How many labels a sample has on average is known if the source is a list of batches; otherwise it is the mean of
    what has come so far.
    """

    source: BatchSource
    step_rank: StepRank
    stateful: bool = False
    samples: None = None
    seen: list[Any] = field(default_factory=lambda: [0.0, 0.0])  # labels and samples

    def __post_init__(self) -> None:
        found = self.source.all
        self._all = None if found is None else [self._made(item) for item in found]

    @property
    def steps(self) -> int | None:
        """Batches per epoch; None if the source decides."""
        return len(self._all) if self._all is not None else self.source.steps

    def epoch(self, epoch: int) -> Iterator[list[Batch]]:
        """Yield the batches of an epoch, each checked and padded."""
        before = 0
        for samples, begins in self._all or map(self._made, self.source.epoch(epoch)):
            if not self.stateful:
                yield in_pieces(samples, slice(None))
                continue
            if before and len(samples) != before:
                raise ValueError(f"fit: stateful: a batch has {len(samples)} rows; expected {before}, as before it")
            rows = np.where(begins, -1, np.arange(len(samples))) if before else None
            before = len(samples)
            yield [replace(samples.batch(slice(None)), rows=rows)]

    def labels_per_sample(self, step: Callable[[], tuple[Any, int]], count: Count) -> Any:
        """Return the mean over the source, or over what it has given."""
        if self._all is not None:
            if not self.seen[1]:
                made = [samples for samples, _ in self._all]
                self.seen = [sum(map(count, made)), float(sum(map(len, made)))]
        else:
            self.seen = [before + now for before, now in zip(self.seen, step(), strict=True)]
        return self.seen[0] / self.seen[1]

    def _made(self, item: tuple[Any, ...]) -> tuple[Samples, NDArray[np.bool_]]:
        """Return a batch, and which of its rows begin anew."""
        samples = make_samples(*item[:4], step_rank=self.step_rank)
        if len(item) < 5:
            return samples, np.zeros(len(samples), bool)
        if not self.stateful:
            raise ValueError("fit: the source gave resets, but stateful is False; expected stateful=True")
        begins = np.asarray(item[4])
        if begins.dtype != np.bool_ or begins.shape != (len(samples),):
            raise ValueError(
                f"fit: resets has dtype {begins.dtype} and shape {begins.shape}; expected booleans (rows,) = "
                f"({len(samples)},)"
            )
        return samples, begins


# What ``fit`` trains on. ``epoch`` yields batches, each in pieces that are padded apart; ``labels_per_sample`` is a
# mean over the epoch, for which it may ask how many labels and samples this step has; of a source ``samples`` is None.
Feed: TypeAlias = SampleFeed | SegmentFeed | SourceFeed


def in_pieces(samples: Samples, chosen: Any, spared: float = _SPARED) -> list[Batch]:
    """Return the chosen samples as one batch, or several where few samples are far longer than the others."""
    lengths = [column.lengths for column in samples.inputs if column.ragged and column.lengths is not None]
    if not lengths:
        return [samples.batch(chosen)]
    if isinstance(chosen, slice):
        chosen = np.arange(len(samples))[chosen]
    return [samples.batch(piece) for piece in pieces(lengths, chosen, spared)]


def make_feed(
    x: Any,
    y: Any,
    lengths: Any,
    sample_weight: Any,
    *,
    batch_size: int,
    bucket_by_length: bool,
    steps_per_epoch: int | None,
    rng: np.random.Generator,
    step_rank: StepRank = 3,
    stateful: bool | int = False,
) -> Feed:
    """Return the feed that the arguments of ``fit`` describe; ValueError if some do not go together."""
    if y is not None:
        if steps_per_epoch is not None:
            raise ValueError(
                f"fit: steps_per_epoch is {steps_per_epoch} with samples x, y; expected None, or a source and no y"
            )
        samples = make_samples(x, y, lengths, sample_weight, step_rank=step_rank)
        if bucket_by_length and samples.time_steps is None:
            raise ValueError("fit: bucket_by_length is set without lengths; expected ragged sequences, or lengths")
        if bucket_by_length and stateful:
            raise ValueError("fit: bucket_by_length is set with stateful, which decides what meets; expected one")
        if stateful and samples.parts:
            raise ValueError("fit: stateful is set with several outputs; expected a model with one")
        if not isinstance(stateful, bool):
            return SegmentFeed(samples, batch_size, positive_int("fit", "stateful", stateful), rng)
        if stateful and len(samples) % batch_size:
            raise ValueError(
                f"fit: stateful is set with {len(samples)} samples and batch_size {batch_size}; expected a multiple"
            )
        if stateful:
            return SampleFeed(samples, batch_size, False, None)
        return SampleFeed(samples, batch_size, bucket_by_length, rng)
    if isinstance(x, np.ndarray):
        raise ValueError("fit: y is None and x an array; expected targets, or as x a source of batches")
    for name, value in (
        ("lengths", lengths),
        ("bucket_by_length", bucket_by_length or None),
        ("sample_weight", sample_weight),
    ):
        if value is not None:
            parts = "(x, y, lengths, sample_weight)" if name == "sample_weight" else "(x, y, lengths)"
            raise ValueError(f"fit: {name} is given with a source of batches; expected batches {parts} from it")
    steps = None if steps_per_epoch is None else positive_int("fit", "steps_per_epoch", steps_per_epoch)
    if not isinstance(stateful, bool):
        raise ValueError(f"fit: stateful is {stateful} with a source of batches, which are segments; expected True")
    return SourceFeed(BatchSource(x, steps), step_rank, stateful)
