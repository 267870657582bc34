"""Batches that are made while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..arrays.checks import check_takes, described, positive_int

_END = object()  # not None: a source may give that, by mistake
_FORMS = "(x, y), (x, y, lengths), (x, y, lengths, sample_weight) or these and resets"


class BatchSource:
    """Batches that are made while training goes on, for data that does not fit into memory or never ends.

    Parameters
    ----------
    source : iterable or callable
        Batches (x, y), (x, y, lengths) or (x, y, lengths, sample_weight), as ``fusedrnn.fit`` takes them, ragged lists
        and lengths that are None included. An iterable is walked once an epoch if it can be started again (a list, a
        DataLoader), and goes on where it stopped if it is an iterator. A callable gets the epoch, from 0, and returns
        an iterable.
    steps : int, optional
        Batches per epoch. None: until the source ends.
    op : str
        For messages.

    Raises
    ------
    TypeError
        If the source is neither; when an epoch begins, if a callable returns no iterable.
    """

    def __init__(
        self,
        source: Iterable[tuple[Any, ...]] | Callable[[int], Iterable[tuple[Any, ...]]],
        steps: int | None = None,
        op: str = "fit",
    ) -> None:
        self.steps = None if steps is None else positive_int("BatchSource", "steps", steps)
        self._source, self._op = source, op
        if not callable(source) and not isinstance(source, Iterable):
            raise TypeError(f"BatchSource: source is {described(source)}; expected an iterable or a callable")
        if callable(source) and not isinstance(source, Iterable):
            check_takes("BatchSource", "source", source, "source(epoch)")

    @property
    def goes_on(self) -> bool:
        """Whether an epoch continues where the one before stopped."""
        return isinstance(self._source, Iterator)

    @property
    def all(self) -> list[tuple[Any, ...]] | None:
        """All batches of an epoch if they are there already, in a list."""
        if self.steps is None and isinstance(self._source, (list, tuple)):
            return list(self.epoch(0)) if self._source else None
        return None

    def epoch(self, epoch: int) -> Iterator[tuple[Any, ...]]:
        """Yield the batches of an epoch as tuples.

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
            if not isinstance(batch, (tuple, list)) or not 2 <= len(batch) <= 5:
                got = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
                hint = ". Without y, x is such a source" if self._op == "fit" else ""
                raise ValueError(f"{self._op}: the source gave {got}; expected {_FORMS}{hint}")
            made += 1
            yield tuple(batch)
        if made < (self.steps or 1):
            hint = (
                "" if made or not epoch or not self.goes_on else "; an iterator does not start again, a callable does"
            )
            raise ValueError(
                f"{self._op}: the source ended after {made} batches of epoch {epoch}; expected {self.steps or 1}{hint}"
            )
