"""Long calls into LAPACK, which Python's signals need not wait for."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar

from .checks import Array

_Result = TypeVar("_Result")
_LONG = 1 << 27  # operations, some tens of milliseconds


def answering(call: Callable[..., _Result], matrix: Array, *arguments: Any) -> _Result:
    """Return ``call(matrix, *arguments)``, of a function that decomposes or multiplies a matrix.

    Python runs its signal handlers in the main thread, between two calls of C, of which the decomposition of a large
    matrix is one that takes seconds. So another thread makes it, and the main one waits. What a handler raises comes
    out at once; the other thread ends what it has begun, for nobody.
    """
    rows, columns = matrix.shape[-2:]
    if matrix.size * min(rows, columns) < _LONG or current_thread() is not main_thread():
        return call(matrix, *arguments)
    results: list[_Result] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call(matrix, *arguments))
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=work, daemon=True, name="fusedrnn-answering")
    try:
        thread.start()
    except (RuntimeError, MemoryError):  # there is no memory for one
        return call(matrix, *arguments)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
