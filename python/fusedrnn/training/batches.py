"""Which samples go into a batch: bucketing of ragged sequences by their length; and batches from a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import as_integer, positive_int

_END = object()  # not None: a source may give that, by mistake


def bucketed_order(
    lengths: Any, batch_size: int, rng: np.random.Generator, *, window: int = 50
) -> list[NDArray[np.intp]]:
    """Return the samples of each batch of an epoch, such that a batch holds sequences of similar lengths.

    The samples are shuffled, sorted by length inside windows of ``window`` batches, cut into batches, and the batches
    shuffled. So the padding is small, and which samples meet differs from epoch to epoch.

    Parameters
    ----------
    lengths : array_like of int (N,)
        Valid time steps of each sample.
    batch_size : int
        Samples in a batch; one batch may be smaller.
    rng : numpy.random.Generator
        Its state advances.
    window : int
        Batches that are sorted together; 1 is no bucketing.

    Returns
    -------
    list of ndarray
        Every index in [0, N) once.

    Raises
    ------
    ValueError, TypeError
        If ``lengths`` is no integer vector, or a size not positive.
    """
    steps = as_integer("bucketed_order", "lengths", lengths)
    if steps.ndim != 1:
        raise ValueError(f"bucketed_order: lengths has shape {steps.shape}; expected (samples,)")
    size = positive_int("bucketed_order", "batch_size", batch_size)
    together = size * positive_int("bucketed_order", "window", window)
    order = rng.permutation(len(steps))
    batches: list[NDArray[np.intp]] = []
    for start in range(0, len(order), together):
        pool = order[start : start + together]
        pool = pool[np.argsort(steps[pool], kind="stable")]
        batches += [pool[first : first + size] for first in range(0, len(pool), size)]
    return [batches[index] for index in rng.permutation(len(batches))]


class BatchSource:
    """Batches that are made while training goes on, for data that does not fit into memory or never ends.

    Parameters
    ----------
    source : iterable or callable
        Of batches (x, y) or (x, y, lengths), x and y as ``fusedrnn.fit`` takes them, ragged lists included. An
        iterable is walked once an epoch if it can be started again (a list, a DataLoader), and goes on where it
        stopped if it is an iterator. A callable gets the epoch, from 0, and returns an iterable.
    steps : int, optional
        Batches an epoch. None: until the source ends.

    Raises
    ------
    TypeError
        If the source is neither; when an epoch begins, if a callable returns no iterable.
    """

    def __init__(
        self, source: Iterable[tuple[Any, ...]] | Callable[[int], Iterable[tuple[Any, ...]]], steps: int | None = None
    ) -> None:
        self.steps = None if steps is None else positive_int("BatchSource", "steps", steps)
        self._source = source
        if not callable(source) and not isinstance(source, Iterable):
            raise TypeError(f"BatchSource: source is a {type(source).__name__}; expected an iterable or a callable")

    @property
    def _goes_on(self) -> bool:
        """Whether an epoch goes on where the one before stopped."""
        return isinstance(self._source, Iterator)

    def epoch(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        """Yield the batches of an epoch as (x, y) or (x, y, lengths).

        Raises
        ------
        ValueError
            If a batch has neither form, there is none at all, or fewer than ``steps``.
        """
        batches = iter(self._source(epoch) if callable(self._source) else self._source)
        made = 0
        while self.steps is None or made < self.steps:
            batch: Any = next(batches, _END)
            if batch is _END:
                break
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise ValueError(f"fit: the source gave a {type(batch).__name__}; expected (x, y) or (x, y, lengths)")
            made += 1
            yield tuple(batch)
        if made < (self.steps or 1):
            hint = (
                "" if made or not epoch or not self._goes_on else "; an iterator does not start again, a callable does"
            )
            raise ValueError(
                f"fit: the source ended after {made} batches of epoch {epoch}; expected {self.steps or 1}{hint}"
            )
