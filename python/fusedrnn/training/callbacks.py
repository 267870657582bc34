"""What may happen during ``fit``: the base of all callbacks, what they see, and the schedule of the learning rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from ..arrays.checks import check_takes
from ..layers.base import Layer
from .history import History
from .optimizers import Optimizer
from .schedules import Schedule


@dataclass
class Training:
    """A run of ``fit``, as its callbacks see it.

    Attributes
    ----------
    model, optimizer, history
        Those of this run.
    epoch, step : int
        The current ones, from 0; steps count over all epochs.
    values : dict
        What the epoch that just ended recorded: "loss", "val_loss", "lr", "seconds". Numbers that a callback adds are
        there for those after it, which may watch them, and for the history.
    stop : str
        Assign a reason to end training after this epoch.
    """

    model: Layer
    optimizer: Optimizer
    history: History
    epoch: int = 0
    step: int = 0
    values: dict[str, float] = field(default_factory=dict)
    stop: str = ""


class Callback:
    """Base of the callbacks; override the methods you need."""

    def __repr__(self) -> str:
        known = [name for name in signature(type(self)).parameters if hasattr(self, name)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in known)})"

    def on_train_begin(self, training: Training) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, training: Training) -> None:
        """Before an epoch."""

    def on_step_begin(self, training: Training) -> None:
        """Before a batch."""

    def on_validation_begin(self, training: Training) -> None:
        """After the steps of an epoch, before its validation, and where there is none."""

    def on_epoch_end(self, training: Training) -> None:
        """After an epoch and its validation; ``training.values`` has its results."""

    def on_train_end(self, training: Training) -> None:
        """After the last epoch, and when training was interrupted or failed, even in an ``on_train_begin``."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the callback needs to go on in a later run: numbers, text, float arrays, dictionaries of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, after ``on_train_begin``."""


class LearningRate(Callback):
    """Set the optimizer's learning rate from a schedule.

    Parameters
    ----------
    schedule : callable
        From an epoch or step (from 0) to a learning rate; see ``fusedrnn.training.schedules``.
    every : {"epoch", "step"}
        What the schedule counts.
    """

    def __init__(self, schedule: Schedule, every: str = "epoch") -> None:
        if not callable(schedule):
            raise TypeError(
                f"LearningRate: schedule is {schedule!r}; expected a function from an epoch or step to a rate, such "
                "as fusedrnn.training.schedules.constant(0.1)"
            )
        check_takes("LearningRate", "schedule", schedule, "schedule(epoch)")
        if every not in ("epoch", "step"):
            raise ValueError(f"LearningRate: every is {every!r}; expected 'epoch' or 'step'")
        self.schedule = schedule
        self.every = every

    def on_step_begin(self, training: Training) -> None:
        """Set the rate; ValueError or TypeError if the schedule returns none."""
        at = training.epoch if self.every == "epoch" else training.step
        rate = self.schedule(at)
        try:
            training.optimizer.lr = rate
        except (ValueError, TypeError):
            raise ValueError(
                f"LearningRate: schedule returned {rate!r} for {self.every} {at}; expected a number >= 0"
            ) from None
