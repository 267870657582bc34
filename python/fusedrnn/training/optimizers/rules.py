"""The optimizers, with torch's update formulas."""

from __future__ import annotations

import math

from ...arrays.checks import flag
from ...layers.base import Layer
from .base import Optimizer, Step


class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum as in torch.optim.SGD (Sutskever et al. 2013, without dampening).

    .. math::

        m &\leftarrow \mu\, m + g, \\
        p &\leftarrow p - \mathrm{lr}\; m, \;\text{ with nesterov }\; p - \mathrm{lr}\,(g + \mu\, m),

    with p a parameter, g its gradient + weight_decay p, and :math:`\mu` the momentum.

    Parameters
    ----------
    layer : Layer
        Its parameters are changed.
    lr : float
        Learning rate.
    momentum : float
        In [0, 1).
    nesterov : bool
        Look ahead along the momentum; needs one.
    weight_decay : float
        L2 factor.
    check_finite : bool
        Whether a gradient that is not finite is an error.

    Raises
    ------
    ValueError
        If a number is outside its range, or ``nesterov`` is without momentum.
    """

    buffer_names = ("momentum",)

    def __init__(
        self,
        layer: Layer,
        lr: float = 1e-2,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        check_finite: bool = False,
    ) -> None:
        super().__init__(layer, lr, weight_decay=weight_decay, check_finite=check_finite)
        self.momentum = self._fraction("momentum", momentum)
        self.nesterov = flag(self.op, "nesterov", nesterov)
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov is True with momentum 0; expected a positive momentum")

    def _next_step(self) -> Step:
        rates = {"lr": self.lr, "decay": self.weight_decay}
        if not self.momentum:
            return Step("sgd", (), rates)
        along, ahead = (self.momentum, 1.0) if self.nesterov else (1.0, 0.0)
        return Step("momentum", self.buffer_names, rates | {"momentum": self.momentum, "along": along, "ahead": ahead})


class RMSprop(Optimizer):
    r"""Gradient over the root of its running mean square, as torch.optim.RMSprop (Hinton 2012, lecture 6).

    .. math::

        v &\leftarrow \alpha\, v + (1 - \alpha)\, g^2, \\
        m &\leftarrow \mu\, m + g / (\sqrt{v} + \varepsilon), \\
        p &\leftarrow p - \mathrm{lr}\; m,

    with p a parameter, g its gradient + weight_decay p, and :math:`\mu` the momentum.

    Parameters
    ----------
    layer : Layer
        Its parameters are changed.
    lr : float
        Learning rate.
    alpha : float
        Decay of the running mean, in [0, 1).
    eps : float
        Added to the root.
    momentum : float
        In [0, 1).
    weight_decay : float
        L2 factor.
    check_finite : bool
        Whether a gradient that is not finite is an error.

    Raises
    ------
    ValueError
        If a number is outside its range.
    """

    buffer_names = ("square", "momentum")

    def __init__(
        self,
        layer: Layer,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        check_finite: bool = False,
    ) -> None:
        super().__init__(layer, lr, weight_decay=weight_decay, check_finite=check_finite)
        self.alpha = self._fraction("alpha", alpha)
        self.momentum = self._fraction("momentum", momentum)
        self.eps = self._at_least_0("eps", eps)

    def _next_step(self) -> Step:
        rates = {"lr": self.lr, "decay": self.weight_decay, "eps": self.eps}
        rates |= {"square_kept": self.alpha, "square_share": 1 - self.alpha}
        if not self.momentum:
            return Step("rmsprop", self.buffer_names[:1], rates)
        return Step("rmsprop_momentum", self.buffer_names, rates | {"momentum": self.momentum})


class Adam(Optimizer):
    r"""Adam, as torch.optim.Adam (Kingma & Ba 2015, algorithm 1).

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1)\, g, \\
        v &\leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \\
        p &\leftarrow p - \frac{\mathrm{lr}}{1 - \beta_1^t} \cdot \frac{m}{\sqrt{v / (1 - \beta_2^t)} + \varepsilon},

    with p a parameter, g its gradient + weight_decay p, and t the number of steps from 1 on.

    Parameters
    ----------
    layer : Layer
        Its parameters are changed.
    lr : float
        Learning rate.
    betas : pair of float
        Decays of the running means of the gradient and of its square, in [0, 1).
    eps : float
        Added to the root.
    weight_decay : float
        L2 factor.
    check_finite : bool
        Whether a gradient that is not finite is an error.

    Raises
    ------
    ValueError
        If a number is outside its range.
    """

    buffer_names = ("mean", "square")

    def __init__(
        self,
        layer: Layer,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        check_finite: bool = False,
    ) -> None:
        super().__init__(layer, lr, weight_decay=weight_decay, check_finite=check_finite)
        try:
            beta1, beta2 = betas
        except (TypeError, ValueError):
            raise ValueError(f"{self.op}: betas is {betas!r}; expected a pair of numbers in [0, 1)") from None
        self.betas = (self._fraction("betas[0]", beta1), self._fraction("betas[1]", beta2))
        self.eps = self._at_least_0("eps", eps)

    def _next_step(self) -> Step:
        beta1, beta2 = self.betas
        rates = {"lr": self.lr / (1 - beta1**self.steps), "decay": self.weight_decay, "eps": self.eps}
        rates |= {"mean_share": 1 - beta1, "square_kept": beta2, "square_share": 1 - beta2}
        return Step("adam", self.buffer_names, rates | {"root_scale": math.sqrt(1 - beta2**self.steps)})


class AdamW(Adam):
    """Adam with the weight decay apart from the gradient, as torch.optim.AdamW (Loshchilov & Hutter 2019).

    Parameters
    ----------
    layer : Layer
        Its parameters are changed.
    lr : float
        Learning rate.
    betas : pair of float
        As in ``Adam``.
    eps : float
        Added to the root.
    weight_decay : float
        Each step first multiplies each parameter by 1 - lr * weight_decay.
    check_finite : bool
        Whether a gradient that is not finite is an error.

    Raises
    ------
    ValueError
        If a number is outside its range.
    """

    def __init__(
        self,
        layer: Layer,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        check_finite: bool = False,
    ) -> None:
        super().__init__(layer, lr, betas=betas, eps=eps, weight_decay=weight_decay, check_finite=check_finite)

    def _next_step(self) -> Step:
        step = super()._next_step()
        return step._replace(rates=step.rates | {"decay": 0.0, "shrink": 1 - self.lr * self.weight_decay})
