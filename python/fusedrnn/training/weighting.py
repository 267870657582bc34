"""Class weights in the loss of ``fit``."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from ..arrays.checks import as_real
from ..arrays.namespace import take_host
from .data import Samples
from .losses import Loss, class_weights, cross_entropy


def weighted_loss(loss: Loss, class_weight: Any, samples: Samples | None) -> Loss:
    """Return the loss with the weights of the classes that ``fit`` was given; samples are None for a source."""
    if class_weight is None:
        return loss
    if loss is not cross_entropy:
        raise ValueError("fit: class_weight is given with another loss; expected cross_entropy")
    if not isinstance(class_weight, str):
        weight = as_real("fit", "class_weight", take_host(class_weight), None)
        if weight.ndim != 1 or not (np.isfinite(weight) & (weight >= 0)).all():
            raise ValueError(
                f"fit: class_weight is {class_weight!r}; expected (classes,) numbers that are not negative"
            )
        return partial(cross_entropy, weight=weight)
    if class_weight != "balanced" or samples is None:
        expected = "'balanced' or an array (classes,)" if samples else "an array (classes,) with a source of batches"
        raise ValueError(f"fit: class_weight is {class_weight!r}; expected {expected}")
    weights = cache(partial(class_weights, samples.valid_y))  # the number of classes is that of the first prediction
    return lambda pred, target, mask=None: cross_entropy(pred, target, mask, weight=weights(pred.shape[-1]))
