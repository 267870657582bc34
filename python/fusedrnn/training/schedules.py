"""Learning-rate schedules: functions that make a function from a step or epoch (0, 1, ...) to a learning rate.

The ``LearningRate`` callback applies one in ``fit``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from ..arrays.checks import described

Schedule: TypeAlias = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Stay at lr.

    Parameters
    ----------
    lr : float
        Learning rate.
    """
    return lambda step: lr


def step_decay(lr: float, every: int, factor: float = 0.1) -> Schedule:
    r"""Multiply by ``factor`` after every n steps: :math:`\mathrm{lr} \cdot \mathrm{factor}^{\lfloor t/n \rfloor}`.

    Parameters
    ----------
    lr : float
        Learning rate at the start.
    every : int
        n, the steps between changes, positive.
    factor : float
        Factor of each change.

    Raises
    ------
    ValueError
        If ``every`` is not positive.
    """
    _check("step_decay", "every", every)
    return lambda step: lr * factor ** (step // every)


def exponential(lr: float, factor: float) -> Schedule:
    r"""Multiply by ``factor`` after every step: :math:`\mathrm{lr} \cdot \mathrm{factor}^t`.

    Parameters
    ----------
    lr : float
        Learning rate at the start.
    factor : float
        Factor of each step.
    """
    return lambda step: float(lr * factor**step)


def cosine(lr: float, steps: int, min_lr: float = 0.0) -> Schedule:
    r"""Fall from lr at 0 to ``min_lr`` at ``steps`` along half a cosine, and stay there (Loshchilov & Hutter 2017).

    .. math::

        \mathrm{lr}(t) = \mathrm{min} + \tfrac{1}{2} (\mathrm{lr} - \mathrm{min})
        \bigl(1 + \cos(\pi\, t / \mathrm{steps})\bigr)

    Parameters
    ----------
    lr : float
        Learning rate at the start.
    steps : int
        How long it falls, positive.
    min_lr : float
        Learning rate from ``steps`` on.

    Raises
    ------
    ValueError
        If ``steps`` is not positive.
    """
    _check("cosine", "steps", steps)
    return lambda step: _between(lr, min_lr, min(step, steps) / steps)


def warmup(schedule: Schedule, steps: int) -> Schedule:
    """Rise linearly over the first ``steps`` steps, up to where ``schedule`` starts; then follow it from its step 0.

    Parameters
    ----------
    schedule : callable
        What follows.
    steps : int
        How long it rises, positive.

    Raises
    ------
    ValueError, TypeError
        If ``steps`` is not positive, or ``schedule`` no function.
    """
    if not callable(schedule):
        raise TypeError(
            f"warmup: schedule is {described(schedule)}; expected the schedule that follows, such as constant(0.1)"
        )
    _check("warmup", "steps", steps)
    return lambda step: schedule(0) * (step + 1) / (steps + 1) if step < steps else schedule(step - steps)


def one_cycle(lr: float, steps: int, *, rise: float = 0.3, start: float = 25.0, end: float = 1e4) -> Schedule:
    """Rise from lr / ``start`` to lr and fall to lr / (``start`` ``end``), each along half a cosine; then stay there.

    Smith & Topin 2019; the rates of torch.optim.lr_scheduler.OneCycleLR with so many steps.

    Parameters
    ----------
    lr : float
        Learning rate at the top.
    steps : int
        How long all of it takes, at least 2.
    rise : float
        Share of the steps before the top, in (0, 1).
    start, end : float
        By how much the first rate is below the top, and the last one below the first; positive.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """
    if steps < 2:
        raise ValueError(f"one_cycle: steps is {steps}; expected at least 2")
    if not 0 < rise < 1:
        raise ValueError(f"one_cycle: rise is {rise}; expected a number in (0, 1)")
    if not (start > 0 and end > 0):
        raise ValueError(f"one_cycle: start and end are {start} and {end}; expected positive numbers")
    low, top, last = lr / start, rise * steps - 1, steps - 1

    def rate(step: int) -> float:
        if step <= top:
            return _between(low, lr, step / top)
        return _between(lr, low / end, min(1.0, (step - top) / (last - top)))

    return rate


def _between(first: float, second: float, share: float) -> float:
    """Go from first to second along half a cosine."""
    return second + (first - second) * 0.5 * (1 + math.cos(math.pi * share))


def _check(op: str, name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{op}: {name} is {value}; expected a positive integer")
