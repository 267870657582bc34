"""What reading a file of others may take: memory in proportion to the file, regular files alone, one clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 1000  # characters of a message
_TIMES, _ANYWAY = 100, 16 << 20  # bytes: so many times those of the file, and those that any file may take


class Budget:
    """The bytes that may still be taken: each array is charged before it is made."""

    def __init__(self, op: str, size: int) -> None:
        self._op, self._size, self._left = op, size, _TIMES * size + _ANYWAY

    def add(self, size: int) -> None:
        """Take another file of this size into account."""
        self._size += size
        self._left += _TIMES * size

    def charge(self, what: str, size: int) -> None:
        """Take ``size`` bytes; ValueError if a file of this size can have no need of them."""
        self._left -= size
        if self._left < 0:
            raise ValueError(f"{self._op}: {what} makes it more than {_TIMES} times the {self._size} bytes of the file")


@contextmanager
def reading(op: str, what: str, kind: str) -> Iterator[None]:
    """Turn whatever a file leads to into a ValueError, but for OSError and MemoryError."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the file chooses the types and sizes of everything, so anything may be raised
        text = str(error)
        if type(error) is not ValueError:
            text = f"{op}: {what}: not a whole {kind}: {type(error).__name__}: {text}"
        elif not text.startswith(op):
            text = f"{op}: {what}: {text}"
        elif len(text) <= _LONGEST:
            raise
        raise ValueError(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ...") from None
