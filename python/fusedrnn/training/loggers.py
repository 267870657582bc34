"""Callbacks that write what is recorded, for other programs to read."""

from __future__ import annotations

import csv
import os
from functools import partial
from importlib import import_module
from typing import IO, Any

from ..serialization.atomic import check_folder
from .callbacks import Callback, Training


class CSVLogger(Callback):
    """Write a line for each epoch to a file of comma-separated values: the epoch, from 1, and what it recorded.

    A run that resumes goes on in the file that it began.

    Parameters
    ----------
    path : path
        The file. One that is there is overwritten, but for the epochs before those of a run that resumes.

    Raises
    ------
    OSError
        When training begins, if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._file: IO[str] | None = None
        self._names: list[str] = []

    def on_train_begin(self, training: Training) -> None:
        """Open the file."""
        self._names = []
        check_folder("CSVLogger", "path", os.fsdecode(self.path))
        self._file = open(self.path, "a+", newline="", encoding="utf-8")  # noqa: SIM115

    def on_epoch_end(self, training: Training) -> None:
        """Write a line."""
        assert self._file is not None
        if not self._names:
            self._names = ["epoch", *training.values]
            self._begin(training.epoch)
        values = {"epoch": training.epoch + 1, **training.values}
        csv.writer(self._file).writerow([values.get(name, "") for name in self._names])
        self._file.flush()

    def on_train_end(self, training: Training) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _begin(self, epochs: int) -> None:
        """Keep what the file has of the epochs before this one, of a run with the same values."""
        assert self._file is not None
        self._file.seek(0)
        rows = list(csv.reader(self._file))
        kept = rows[: epochs + 1] if rows[:1] == [self._names] and epochs else [self._names]
        self._file.seek(0)
        self._file.truncate()
        csv.writer(self._file).writerows(kept)


class TensorBoard(Callback):
    """Write what is recorded for TensorBoard, an event for each epoch: ``tensorboard --logdir folder`` shows it.

    Parameters
    ----------
    folder : path
        Where the files go; it is made if it is missing.
    **options
        For ``tensorboardX.SummaryWriter``.

    Raises
    ------
    ImportError
        If tensorboardX is not installed (``pip install tensorboardX``).
    """

    def __init__(self, folder: str | os.PathLike[str], **options: Any) -> None:
        try:
            make: Any = import_module("tensorboardX").SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard needs tensorboardX: pip install tensorboardX") from error
        self._make = partial(make, os.fspath(folder), **options)
        self._writer: Any = None

    def on_train_begin(self, training: Training) -> None:
        """Open a file."""
        self._writer = self._make()

    def on_epoch_end(self, training: Training) -> None:
        """Write the values, as those of this epoch, from 1."""
        for name, value in training.values.items():
            self._writer.add_scalar(name, value, training.epoch + 1)
        self._writer.flush()

    def on_train_end(self, training: Training) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
