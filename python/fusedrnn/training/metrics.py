"""Measures of a model's outputs for people to read; ``mask`` as in the losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..layers.arrays import as_integer, as_real, check_shape
from .losses import IGNORE_INDEX, cross_entropy, mae, valid_elements


def accuracy(pred: Any, target: Any, mask: Any = None, *, ignore_index: int = IGNORE_INDEX) -> float:
    """Return the share of valid elements whose largest logit is the target's; pred (..., C), target (...) of int."""
    logits = as_real("accuracy", "pred", pred, None)
    classes = as_integer("accuracy", "target", target)
    if logits.ndim == 0:
        raise ValueError("accuracy: pred has shape (); expected (..., classes)")
    check_shape("accuracy", "target", classes, "pred.shape[:-1]", logits.shape[:-1])
    valid = valid_elements("accuracy", mask, classes.shape) & (classes != ignore_index)
    hits = np.argmax(logits[valid], axis=-1) == classes[valid]
    return float(hits.mean()) if hits.size else 0.0


def mean_absolute_error(pred: Any, target: Any, mask: Any = None) -> float:
    """Return the mean of abs(pred - target) over the valid elements."""
    return mae(pred, target, mask)[0]


def perplexity(pred: Any, target: Any, mask: Any = None, *, ignore_index: int = IGNORE_INDEX) -> float:
    """Return exp of the mean cross-entropy: among how many equally likely classes the model chooses."""
    value = cross_entropy(pred, target, mask, ignore_index=ignore_index)[0]
    return math.exp(value) if value < 700 else math.inf  # exp(710) is above the largest float
