"""The kernel tests on every other instruction set that this machine can run: each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fusedrnn as fr
from scripts import run_python

HERE = Path(__file__).parent
IN_USE, AVAILABLE = fr.config()["isa"], fr.config()["isa_available"]
FILES = ["test_kernels.py", "test_gradients.py", "test_bitwise.py", "test_products.py", "test_updates.py"]
EIGHT_BITS = fr._core.available_isas(True)  # those with and without products of 8 bits by name


def run_tests(isa: str, *files: str) -> str:
    """Run what is marked for every instruction set on one of them; return what pytest printed."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-m", "every_isa", "-p", "no:cacheprovider", *files],
        cwd=HERE,
        env={**os.environ, "FUSEDRNN_ISA": isa},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    return result.stdout


def test_isa_in_use_is_available() -> None:
    """The configuration is consistent, and these tests run on the ISA that was asked for."""
    assert IN_USE in AVAILABLE
    assert os.environ.get("FUSEDRNN_ISA", AVAILABLE[-1]) == IN_USE


@pytest.mark.parametrize("isa", [isa for isa in AVAILABLE if isa != IN_USE])
def test_kernels(isa: str) -> None:
    """What this process tests on its own ISA holds on the others."""
    assert f"isa {isa} of" in run_tests(isa, *FILES)


@pytest.mark.parametrize("isa", [isa for isa in EIGHT_BITS if isa != fr.config()["int8"]])
def test_quantized(isa: str) -> None:
    """And what it tests of weights in 8 bits, on every kind of products of them."""
    run_tests(isa, "test_quantize.py")
    code = "import fusedrnn; print(fusedrnn.config()['int8'])"
    assert run_python(code, FUSEDRNN_ISA=isa).stdout.strip() == isa


@pytest.mark.parametrize("isa", AVAILABLE)
def test_forced(isa: str) -> None:
    """FUSEDRNN_ISA forces an instruction set, and the configuration shows it."""
    assert run_python("import fusedrnn; print(fusedrnn.config()['isa'])", FUSEDRNN_ISA=isa).stdout.strip() == isa


@pytest.mark.parametrize("isa", ["avx3", "AVX 2"])
def test_unknown(isa: str) -> None:
    """A name that is no instruction set is an error at import, which lists those there are."""
    result = run_python("import fusedrnn", check=False, FUSEDRNN_ISA=isa)
    assert result.returncode == 1
    for part in ("FUSEDRNN_ISA", isa, *AVAILABLE):
        assert part in result.stderr
