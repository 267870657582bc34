"""Callbacks that compare an epoch with the best one before: stop early, keep the best, slow down on a plateau."""

from __future__ import annotations

import math
import os
import string
from collections.abc import Iterable
from typing import Any

from ..arrays.checks import Array, number, positive_int
from ..serialization.atomic import check_folder
from .callbacks import Callback, Training
from .losses import LOSSES
from .metrics import METRICS, RISING

_FALLING = {"loss", "lr", "seconds", *LOSSES, *METRICS} - RISING


def rises(name: str) -> bool | None:
    """Return whether a recorded value is better when it is higher; None if that is not known.

    "tag_loss" and "tag_accuracy" are those of an output.
    """
    name = name.removeprefix("val_")
    if name in RISING or name.endswith("accuracy"):
        return True
    return False if any(name == each or name.endswith(f"_{each}") for each in _FALLING) else None


class Monitor(Callback):
    """Base of the callbacks that compare an epoch with the best one before.

    Parameters
    ----------
    monitor : str, optional
        A recorded value: "val_loss" (the default if there is validation data), "loss" (the default without), or a
        metric such as "val_accuracy".
    mode : {"min", "max"}, optional
        Whether the value is better when lower or higher. Losses and the built-in metrics know theirs, as does a name
        that ends in "accuracy"; any other metric needs one.
    min_delta : float
        How much better the value must be to count as an improvement, >= 0.

    Raises
    ------
    ValueError
        If ``mode`` is unknown or ``min_delta`` negative or not finite; when training begins, if the value will not be
        recorded or needs a mode.
    """

    def __init__(self, monitor: str | None = None, mode: str | None = None, min_delta: float = 0.0) -> None:
        op = type(self).__name__
        if monitor is not None and not isinstance(monitor, str):
            raise TypeError(f"{op}: monitor is {monitor!r}; expected the name of a recorded value")
        if mode not in (None, "min", "max"):
            raise ValueError(f"{op}: mode is {mode!r}; expected 'min', 'max' or None")
        self.monitor = monitor
        self.mode = mode
        self.min_delta = number(op, "min_delta", min_delta)
        if not 0 <= self.min_delta < math.inf:
            raise ValueError(f"{op}: min_delta is {min_delta}; expected a number >= 0")
        self.best = math.inf
        if monitor is not None:
            self._rises(monitor)

    def on_train_begin(self, training: Training) -> None:
        """Forget the best value of an earlier run."""
        self.best = math.inf

    def check(self, names: Iterable[str]) -> None:
        """Raise ValueError if the value is not one of those that will be recorded."""
        if self.monitor is not None and self.monitor not in names:
            raise ValueError(f"{type(self).__name__}: monitor is {self.monitor!r}; expected one of {', '.join(names)}")

    def improves(self, training: Training) -> bool:
        """Return whether this epoch is the best so far (NaN never is), and remember it."""
        name = self.monitor or ("val_loss" if "val_loss" in training.values else "loss")
        self.check((*training.values, name) if self.monitor is None else training.values)
        value = -training.values[name] if self._rises(name) else training.values[name]
        better = value < self.best - self.min_delta
        if better:
            self.best = value
        return better

    def watched(self) -> tuple[str, bool] | None:
        """Return the name of the value, and whether it is better when higher; None for the default."""
        return None if self.monitor is None else (self.monitor, self._rises(self.monitor))

    def state_dict(self) -> dict[str, Any]:
        """Return the best value."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.best = state["best"]

    def _rises(self, name: str) -> bool:
        found = rises(name) if self.mode is None else self.mode == "max"
        if found is None:
            raise ValueError(
                f"{type(self).__name__}: monitor is {name!r}, which may be better when lower or higher; expected "
                "mode='min' or mode='max'"
            )
        return found


class EarlyStopping(Monitor):
    """End training when the loss, or another recorded value, has not improved for some epochs.

    Parameters
    ----------
    patience : int
        Number of epochs without improvement after which training ends, positive.
    min_delta : float
        How much better the value must be to count as an improvement.
    restore_best : bool
        Whether the model gets the weights of its best epoch when training ends, for whatever reason.
    monitor : str, optional
        A recorded value: "val_loss" (the default if there is validation data), "loss" (the default without), or a
        metric such as "val_accuracy".
    mode : {"min", "max"}, optional
        Whether the value is better when lower or higher. Losses and the built-in metrics know theirs, as does a name
        that ends in "accuracy"; any other metric needs one.
    """

    def __init__(
        self,
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = True,
        monitor: str | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
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

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, the weights then, and how long ago that was."""
        return {**super().state_dict(), "waited": self._waited, "weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        super().load_state_dict(state)
        self._waited, self._weights = state["waited"], state["weights"]


class Checkpoint(Monitor):
    """Save the model to a file after epochs.

    Parameters
    ----------
    path : path
        A safetensors file; ``fusedrnn.load`` reads it. ``{epoch}`` (from 1) and the names of recorded values are filled
        in: ``"model-{epoch:02d}-{val_loss:.3f}.safetensors"``. A folder with such a name is made.
    best_only : bool
        Whether to save only after the best epoch so far, or after every one.
    min_delta : float
        How much better the value must be to count as an improvement.
    monitor : str, optional
        A recorded value: "val_loss" (the default if there is validation data), "loss" (the default without), or a
        metric such as "val_accuracy".
    mode : {"min", "max"}, optional
        Whether the value is better when lower or higher. Losses and the built-in metrics know theirs, as does a name
        that ends in "accuracy"; any other metric needs one.

    Raises
    ------
    ValueError
        If a value cannot be written as the path says.
    FileNotFoundError, IsADirectoryError
        When training begins, if the folder is missing, or the path is one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        best_only: bool = True,
        min_delta: float = 0.0,
        monitor: str | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.path = path
        self.best_only = best_only
        self._fields(os.fsdecode(path))

    def on_train_begin(self, training: Training) -> None:
        """Look for the folder."""
        super().on_train_begin(training)
        path = os.fsdecode(self.path)
        folder = os.path.abspath(path)
        while self._fields(os.path.dirname(folder)):
            folder = os.path.dirname(folder)
        check_folder("Checkpoint", "path", path, folder)
        if not self._fields(path) and os.path.isdir(path):
            raise IsADirectoryError(f"Checkpoint: path is {path!r}, a folder; expected a file in it")

    def check(self, names: Iterable[str]) -> None:
        """Raise ValueError if a value of the path or the monitor is not one of those that will be recorded."""
        super().check(names)
        if unknown := self._fields(os.fsdecode(self.path)) - {"epoch", *names}:
            expected = ", ".join(("epoch", *names))
            raise ValueError(f"Checkpoint: path has {{{min(unknown)}}}; expected one of {expected}")

    def on_epoch_end(self, training: Training) -> None:
        """Save."""
        if self.improves(training) or not self.best_only:
            path = os.fsdecode(self.path)
            if self._fields(path):
                path = path.format(epoch=training.epoch + 1, **training.values)
                os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            training.model.save(path)

    def _fields(self, text: str) -> set[str]:
        """Return the names in braces; ValueError if no number can be written there."""
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
            if all(map(str.isidentifier, names)):
                text.format(**{name: 1 if name == "epoch" else 1.0 for name in names})
        except (ValueError, LookupError) as error:
            raise ValueError(f"Checkpoint: path is {text!r}: {error}; expected such as {{val_loss:.3f}}") from None
        return names


class ReduceOnPlateau(Monitor):
    """Multiply the learning rate by a factor when a recorded value has not improved for some epochs.

    Parameters
    ----------
    factor : float
        In (0, 1).
    patience : int
        Number of epochs without improvement before the rate falls, positive.
    min_lr : float
        The rate does not fall below.
    min_delta : float
        How much better the value must be to count as an improvement.
    monitor : str, optional
        A recorded value: "val_loss" (the default if there is validation data), "loss" (the default without), or a
        metric such as "val_accuracy".
    mode : {"min", "max"}, optional
        Whether the value is better when lower or higher; see ``EarlyStopping``.
    """

    def __init__(
        self,
        factor: float = 0.1,
        patience: int = 10,
        min_lr: float = 0.0,
        min_delta: float = 0.0,
        monitor: str | None = None,
        mode: str | None = None,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"ReduceOnPlateau: factor is {factor}; expected a number in (0, 1)")
        if not 0 <= min_lr < math.inf:
            raise ValueError(f"ReduceOnPlateau: min_lr is {min_lr}; expected a number >= 0")
        self.factor = factor
        self.patience = positive_int("ReduceOnPlateau", "patience", patience)
        self.min_lr = min_lr
        self._waited = 0

    def on_train_begin(self, training: Training) -> None:
        """Start to count."""
        super().on_train_begin(training)
        self._waited = 0

    def on_epoch_end(self, training: Training) -> None:
        """Count the epoch, or lower the rate."""
        self._waited = 0 if self.improves(training) else self._waited + 1
        if self._waited >= self.patience:
            self._waited = 0
            rate = training.optimizer.lr
            training.optimizer.lr = min(rate, max(self.min_lr, rate * self.factor))

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, and how long ago that was."""
        return {**super().state_dict(), "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        super().load_state_dict(state)
        self._waited = state["waited"]
