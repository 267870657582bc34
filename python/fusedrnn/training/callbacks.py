"""What may happen during ``fit``: stop early, keep the best weights, schedule the learning rate."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

from ..arrays.checks import Array, positive_int
from ..layers.base import Layer
from .history import History
from .optimizer import Optimizer
from .schedules import Schedule


@dataclass
class Training:
    """A run of ``fit``, as its callbacks see it.

    Attributes
    ----------
    model, optimizer, history
        Of this run.
    epoch, step : int
        Those being worked on, from 0; steps count over all epochs.
    values : dict
        What the epoch that just ended recorded: "loss", "val_loss", "lr", "seconds".
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
    """Base of the callbacks; override what is of interest."""

    def on_train_begin(self, training: Training) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, training: Training) -> None:
        """Before an epoch."""

    def on_step_begin(self, training: Training) -> None:
        """Before a batch."""

    def on_epoch_end(self, training: Training) -> None:
        """After an epoch and its validation; ``training.values`` has its results."""

    def on_train_end(self, training: Training) -> None:
        """After the last epoch, and when training was interrupted or failed, be it in an ``on_train_begin``."""


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


class _Best(Callback):
    """Base of the callbacks that compare an epoch with the best one before."""

    def __init__(self, monitor: str | None, min_delta: float) -> None:
        self.monitor = monitor
        self.min_delta = min_delta
        self.best = math.inf

    def on_train_begin(self, training: Training) -> None:
        """Forget the best value of an earlier run."""
        self.best = math.inf

    def improves(self, training: Training) -> bool:
        """Say whether this epoch is the best so far (NaN never is), and remember it."""
        name = self.monitor or ("val_loss" if "val_loss" in training.values else "loss")
        if name not in training.values:
            known = ", ".join(training.values)
            raise ValueError(f"{type(self).__name__}: monitor is {name!r}; expected one of {known}")
        # An accuracy is better when it is higher; losses and the other metrics when they are lower.
        value = -training.values[name] if name.endswith("accuracy") else training.values[name]
        better = value < self.best - self.min_delta
        if better:
            self.best = value
        return better


class EarlyStopping(_Best):
    """End training when the loss, or another recorded value, has not become better for some epochs.

    Parameters
    ----------
    patience : int
        Epochs in a row without improvement after which training ends, positive.
    min_delta : float
        By how much the value must become better to count as an improvement.
    restore_best : bool
        Whether the model gets the weights of its best epoch when training ends, for whatever reason.
    monitor : str, optional
        A recorded value: "val_loss" (the default if there is validation data), "loss" (the default without), or a
        metric such as "val_accuracy". A name that ends in "accuracy" is better when higher, any other when lower.
    """

    def __init__(
        self, patience: int = 5, min_delta: float = 0.0, restore_best: bool = True, monitor: str | None = None
    ) -> None:
        super().__init__(monitor, min_delta)
        self.patience = positive_int("EarlyStopping", "patience", patience)
        self.restore_best = restore_best
        self._waited = 0
        self._weights: dict[str, Array] | None = None

    def on_train_begin(self, training: Training) -> None:
        """Start to count."""
        super().on_train_begin(training)
        self._waited = 0
        self._weights = None

    def on_epoch_end(self, training: Training) -> None:
        """Keep the weights of a better epoch, or count this one."""
        if self.improves(training):
            self._waited = 0
            if self.restore_best:
                self._weights = training.model.state_dict()
            return
        self._waited += 1
        if self._waited >= self.patience:
            training.stop = f"no improvement in {self.patience} epochs"

    def on_train_end(self, training: Training) -> None:
        """Restore the best weights."""
        if self._weights is not None:
            training.model.load_state_dict(self._weights)
            self._weights = None


class Checkpoint(_Best):
    """Save the model to a file after epochs.

    Parameters
    ----------
    path : path
        A safetensors file; ``fusedrnn.load`` reads it.
    best_only : bool
        Whether to save only after the best epoch so far, or after every one.
    min_delta : float
        By how much the value must become better.
    monitor : str, optional
        A recorded value: "val_loss" (the default if there is validation data), "loss" (the default without), or a
        metric such as "val_accuracy". A name that ends in "accuracy" is better when higher, any other when lower.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        best_only: bool = True,
        min_delta: float = 0.0,
        monitor: str | None = None,
    ) -> None:
        super().__init__(monitor, min_delta)
        self.path = path
        self.best_only = best_only

    def on_epoch_end(self, training: Training) -> None:
        """Save."""
        if self.improves(training) or not self.best_only:
            training.model.save(self.path)
