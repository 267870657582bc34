"""Losses that compare each element of a prediction with the target's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...arrays.checks import Array, as_array, as_real
from ...arrays.namespace import subtract_where
from ...layers.activation import sigmoid
from .elements import check_target, common_namespace, divisor, element_weights, mean, share, valid_elements


def mse(
    pred: Any, target: Any, mask: Any = None, *, sample_weight: Any = None, normalizer: float | None = None
) -> tuple[float, Array]:
    r"""Mean of :math:`(\hat y - y)^2`, with the prediction and the target both (..., F) of any real dtype."""
    pair = _Pair("mse", pred, target, mask, sample_weight, normalizer)
    d = pair.difference()
    return pair.reduced(d * d, d, 2.0)


def mae(
    pred: Any, target: Any, mask: Any = None, *, sample_weight: Any = None, normalizer: float | None = None
) -> tuple[float, Array]:
    r"""Mean of :math:`|\hat y - y|`; the gradient at 0 is 0."""
    pair = _Pair("mae", pred, target, mask, sample_weight, normalizer)
    d = pair.difference()
    return pair.reduced(pair.xp.abs(d), pair.xp.sign(d))


def huber(
    pred: Any,
    target: Any,
    mask: Any = None,
    *,
    delta: float = 1.0,
    sample_weight: Any = None,
    normalizer: float | None = None,
) -> tuple[float, Array]:
    r"""Mean of a square near 0 and an absolute value far from it (Huber 1964), as torch.nn.HuberLoss.

    .. math::

        \tfrac{1}{2} d^2 \;\text{ where }\; |d| \le \delta, \;\text{ else }\; \delta\,(|d| - \tfrac{1}{2}\delta),

    with :math:`d = \hat y - y`.
    """
    if not delta > 0:
        raise ValueError(f"huber: delta is {delta}; expected a positive number")
    pair = _Pair("huber", pred, target, mask, sample_weight, normalizer)
    d = pair.difference()
    # With the clipped c, c (d - c / 2) is both branches, and c is the gradient.
    c = pair.xp.clip(d, -delta, delta)
    return pair.reduced(c * (d - 0.5 * c), c)


def binary_cross_entropy(
    pred: Any, target: Any, mask: Any = None, *, sample_weight: Any = None, normalizer: float | None = None
) -> tuple[float, Array]:
    r"""Mean of :math:`-(z \log s + (1 - z) \log(1 - s))` with :math:`s = \sigma(x)`, from logits x.

    The target z, shaped as pred, is in [0, 1], or boolean. Computed as max(x, 0) - x z + log(1 + exp(-abs(x))), which
    neither overflows nor cancels.
    """
    pair = _Pair("binary_cross_entropy", pred, target, mask, sample_weight, normalizer, labels=True)
    xp, logits, labels = pair.xp, pair.pred, pair.target
    if pair.valid is not None:
        logits, labels = xp.where(pair.valid, logits, 0), xp.where(pair.valid, labels, 0)
    if not ((labels >= 0) & (labels <= 1)).all():
        raise ValueError(f"{pair.op}: target has values outside [0, 1]; expected probabilities")
    losses = xp.maximum(logits, 0) - logits * labels + xp.log1p(xp.exp(-xp.abs(logits)))
    d = sigmoid(logits, xp) - labels
    if pair.valid is not None:
        losses, d = xp.where(pair.valid, losses, 0), xp.where(pair.valid, d, 0)
    return pair.reduced(losses, d)


class _Pair:
    """Prediction and target of one dtype and shape, and how much their elements count."""

    def __init__(
        self,
        op: str,
        pred: Any,
        target: Any,
        mask: Any,
        sample_weight: Any,
        normalizer: float | None,
        labels: bool = False,
    ) -> None:
        self.op = op
        self.xp = xp = common_namespace(op, pred, target)
        self.pred = p = as_real(op, "pred", pred, None, xp)
        if labels and (read := as_array(op, "target", target, xp)).dtype == np.bool_:
            target = read.astype(p.dtype)
        self.target = as_real(op, "target", target, p.dtype, xp)
        check_target(op, self.target, "pred.shape", p.shape, each_step=p.ndim == 3)
        self.valid = None if mask is None else valid_elements(op, mask, p.shape, xp)
        self.weights: Array | None = None
        if sample_weight is not None:
            self.weights = element_weights(op, sample_weight, p.shape, p.dtype, xp)
            if self.valid is not None:
                self.weights = xp.where(self.valid, self.weights, p.dtype.type(0))
            total = float(self.weights.sum(dtype=np.float64))
        else:
            total = float(p.size if self.valid is None else xp.count_nonzero(self.valid))
        self.divided_by = divisor(op, normalizer, total)

    def difference(self) -> Array:
        """Return pred - target, 0 where not valid."""
        if self.valid is None:
            return self.pred - self.target
        result: Array = subtract_where(self.xp, self.pred, self.target, self.valid)
        return result

    def reduced(self, losses: Array, d: Array, factor: float = 1.0) -> tuple[float, Array]:
        """Return the mean of the losses, and its gradient from their derivatives ``factor * d``."""
        scale = share(factor, self.divided_by, d)
        if self.weights is None:
            return mean(losses, self.divided_by), d * scale
        return mean(losses * self.weights, self.divided_by), d * (self.weights * scale)
