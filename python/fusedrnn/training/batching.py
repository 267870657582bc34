"""Which samples go through a model together, so that little of the work is padding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.checks import as_integer, positive_int

_WORTH = 256  # padded time steps that are worth another pass through the model


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
        If ``lengths`` is not an integer vector, or a size not positive.
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


def pieces(lengths: list[NDArray[np.int64]], chosen: NDArray[np.intp], spared: float) -> list[NDArray[np.intp]]:
    """Return the samples of a batch in pieces that are padded apart: one, unless a few of them are far longer.

    Parameters
    ----------
    lengths : list of ndarray (N,)
        Valid time steps of each sample in every input that is padded.
    chosen : ndarray
        The samples of the batch.
    spared : float
        The share of the padded time steps that another piece must spare.
    """
    if not lengths or len(chosen) < 2:
        return [chosen]
    steps = np.stack([each[chosen] for each in lengths])
    whole = len(chosen) * int(steps.max(axis=1).sum())
    if whole - int(steps.sum()) < max(_WORTH, spared * whole):  # what is not padding cannot be spared
        return [chosen]
    order = np.argsort(steps.sum(axis=0), kind="stable")
    steps, count = steps[:, order], np.arange(1, len(chosen))
    short = np.maximum.accumulate(steps, axis=1).sum(axis=0)[:-1] * count
    long = np.maximum.accumulate(steps[:, ::-1], axis=1)[:, ::-1].sum(axis=0)[1:] * (len(chosen) - count)
    at = int(np.argmin(short + long)) + 1
    if whole - int((short + long)[at - 1]) < max(_WORTH, spared * whole):
        return [chosen]
    return pieces(lengths, chosen[order[:at]], spared) + pieces(lengths, chosen[order[at:]], spared)
