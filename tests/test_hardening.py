"""The extension as a library that a host can be safe with: what the linker and the compiler were asked for is there."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

import fusedrnn
from fusedrnn import _core

pytestmark = pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf, of binutils")


def readelf(option: str) -> str:
    """Return what readelf says of the extension."""
    return subprocess.run(
        ["readelf", "--wide", option, _core.__file__], capture_output=True, text=True, check=True
    ).stdout


def test_relocations_are_read_only() -> None:
    """Full RELRO: everything is bound at load, and read-only from then on."""
    assert "GNU_RELRO" in readelf("--program-headers")
    dynamic = readelf("--dynamic")
    assert "BIND_NOW" in dynamic and "TEXTREL" not in dynamic


def test_the_stack_is_not_executable() -> None:
    """Nor is anything both writable and executable."""
    segments = readelf("--program-headers")
    stack = next(line for line in segments.splitlines() if "GNU_STACK" in line)
    assert "RWE" not in segments and "RW" in stack


def test_stacks_are_guarded_and_buffers_checked() -> None:
    """The functions that find an overrun are called for; a debug build does without those of the C library."""
    symbols = readelf("--dyn-syms")
    assert "__stack_chk_fail" in symbols


def test_little_is_exported() -> None:
    """No symbol of ours can meet that of another extension: the module's entry, and functions under its name."""
    symbols = [
        line.split() for line in readelf("--dyn-syms").splitlines() if " GLOBAL " in line and " UND " not in line
    ]
    exported = [fields[-1] for fields in symbols]
    assert "PyInit__core" in exported
    assert all(name == "PyInit__core" or name.startswith("fusedrnn_") for name in exported), exported


@pytest.mark.skipif("arm" in platform.machine() or "aarch" in platform.machine(), reason="the bound is of x86-64")
def test_the_package_is_small() -> None:
    """The sources and the extension of a CPU build: under 5 MB, without Python's bytecode."""
    sources = [path.stat().st_size for path in Path(fusedrnn.__file__).parent.rglob("*.py*") if path.suffix != ".pyc"]
    assert sum(sources) + Path(_core.__file__).stat().st_size < 5e6
