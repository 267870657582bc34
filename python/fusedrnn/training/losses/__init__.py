"""Losses with their gradients: ``loss(pred, target, mask=None) -> (value, d_pred)``.

Each is the mean over the valid elements (0 if there are none), summed in float64. ``mask`` is boolean, shaped as
leading axes of ``pred``: (B, T) for ``pred`` (B, T, F), and says which elements are valid; what ``pred`` and ``target``
hold elsewhere, NaN included, has no influence. ``sample_weight``, shaped likewise, makes it a weighted mean, in which a
sample of weight 2 counts as if it were there twice. ``normalizer`` is what the weighted sum is divided by instead of
the sum of the weights. ``d_pred`` has the shape, dtype and device of ``pred`` and is 0 where not valid. All raise
ValueError for wrong shapes, TypeError for wrong dtypes, and RuntimeError if ``target`` is not on the device of
``pred``; masks and weights may be on any.
"""

from __future__ import annotations

from ...arrays.checks import one_of
from .classes import balanced, class_weights, cross_entropy
from .connectionist import ctc, ctc_labels, steps_needed
from .elements import (
    IGNORE_INDEX,
    Loss,
    class_numbers,
    common_namespace,
    element_weights,
    sequence_mask,
    spread,
    valid_elements,
)
from .elementwise import binary_cross_entropy, huber, mae, mse

__all__ = [
    "IGNORE_INDEX",
    "LOSSES",
    "UNALIGNED",
    "Loss",
    "balanced",
    "binary_cross_entropy",
    "class_numbers",
    "class_weights",
    "common_namespace",
    "cross_entropy",
    "ctc",
    "ctc_labels",
    "element_weights",
    "get_loss",
    "huber",
    "mae",
    "mse",
    "sequence_mask",
    "spread",
    "steps_needed",
    "valid_elements",
]

LOSSES: dict[str, Loss] = {
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "ctc": ctc,
}


UNALIGNED: frozenset[Loss] = frozenset({ctc})  # whose targets have a time of their own, and whose mean is over samples


def get_loss(loss: str | Loss, op: str) -> Loss:
    """Return the loss of that name, or the callable as it is."""
    if callable(loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"{op}: loss is {loss!r}; expected a callable or {one_of(loss, LOSSES)}")
    return LOSSES[loss]
