"""The progress bar of ``fit``."""

from __future__ import annotations

import sys
from typing import Any

from .callbacks import Training


def progress_bar(steps: int | None) -> Any:
    """Return a bar of so many steps, or one that only counts them."""
    from tqdm import tqdm

    return tqdm(total=steps, unit="step", file=sys.stderr, dynamic_ncols=True)


def show(bar: Any, training: Training, values: dict[str, float], refresh: bool = True) -> None:
    """Put this epoch's values on the bar, and the last known ones of the validation data."""
    if bar is None:
        return
    known = values | {name: column[-1] for name, column in training.history.items() if name.startswith("val_")}
    shown = {name: f"{value:.4g}" for name, value in known.items() if name not in ("lr", "seconds")}
    bar.set_postfix({"epoch": training.epoch + 1, **shown}, refresh=refresh)
