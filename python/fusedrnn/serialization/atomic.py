"""Files that appear at once: a process that is killed midway leaves the old one as it was."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


def check_folder(op: str, name: str, path: str, inside: str | None = None) -> None:
    """Raise FileNotFoundError, before long work, unless there is the folder of a file, or of another ``inside``."""
    folder = os.path.dirname(os.path.abspath(path if inside is None else inside))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{op}: {name} is {path!r}, but there is no folder {folder!r}")


def write(path: str, parts: Iterable[Any]) -> None:
    """Write ``parts`` (bytes, or arrays that share their memory as such) one after another to ``path``.

    A file that was there keeps its permissions; anything but a regular file, such as a pipe, is written into.

    Raises
    ------
    OSError
        If that is not possible, with the path.
    """
    mode = None
    with suppress(FileNotFoundError, NotADirectoryError):
        mode = os.stat(path).st_mode
    is_file = mode is None or stat.S_ISREG(mode)
    if is_file and os.path.basename(path) not in ("", os.curdir, os.pardir):
        _replace(os.path.realpath(path), parts, mode)
        return
    # A pipe or a device must stay one; a folder, and the name of one, is open's to refuse.
    with _errors_name(path), open(path, "wb") as file:
        file.writelines(parts)


def _replace(path: str, parts: Iterable[Any], mode: int | None) -> None:
    folder = os.path.dirname(path)
    with _errors_name(path):
        descriptor, temporary = _open_temporary(path)
        try:
            with open(descriptor, "wb") as file:
                if mode is not None and mode != os.fstat(descriptor).st_mode:
                    os.fchmod(descriptor, stat.S_IMODE(mode))
                file.writelines(parts)
                file.flush()
                os.fsync(descriptor)
                os.replace(temporary, path)  # before the file is closed, which unlocks it
        except BaseException:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(temporary)
            raise
    with suppress(PermissionError):  # a folder that may be written to, but not read
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the new name is on the disk, too
        finally:
            os.close(descriptor)


def _open_temporary(path: str) -> tuple[int, str]:
    """Return (descriptor, name) of a new file beside ``path``, locked until it is closed.

    Its name follows from that of ``path``, and a file of that name that nobody has locked is removed: it was left by a
    process that was killed.
    """
    folder, name = os.path.split(path)
    stem = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    for slot in itertools.count():  # the next one where another process or thread is writing to the same path
        temporary = os.path.join(folder, f".{stem}.{slot}.tmp")
        _remove_abandoned(temporary)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody takes it for an abandoned one
            os.close(descriptor)
            continue
        except OSError:  # a file system without locks: then nothing is ever removed, either
            return descriptor, temporary
        if _is_named(descriptor, temporary):
            return descriptor, temporary
        os.close(descriptor)  # it was taken for an abandoned one
    raise AssertionError("unreachable")


def _remove_abandoned(temporary: str) -> None:
    try:
        descriptor = os.open(temporary, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # there is none, or it is not ours
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_named(descriptor, temporary):
            os.unlink(temporary)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _is_named(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


@contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Let an OSError name the path that the caller knows."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error
