"""Adding to gradients by one thread at a time: two may use one layer, and NumPy lets others run while it adds."""

from __future__ import annotations

import os
from threading import RLock
from typing import Any

from .namespace import add_rows

_lock = RLock()  # reentrant: a signal handler may run in the middle, and go backward itself


def _renew() -> None:
    """Make another lock: in a forked child nobody would open the old one."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def add_to(gradient: Any, value: Any) -> None:
    """Add ``value`` into the array ``gradient``."""
    with _lock:
        gradient += value


def add_to_rows(xp: Any, gradient: Any, rows: Any, values: Any) -> None:
    """Add ``values`` (..., n) into the ``rows`` (...) of ``gradient``, of which one may occur many times."""
    with _lock:
        add_rows(xp, gradient, rows, values)
