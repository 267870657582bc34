"""The CUDA backend on an emulated device (tests/emulator): random calls, to the bit what the host twin computes.

FUSEDRNN_EMULATED_CASES is how many calls each build makes, FUSEDRNN_EMULATED_TESTS what pytest -k chooses of the tests
of a device in Python.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mutants import Mutant, mutants, write

ROOT = Path(__file__).parents[1]
CASES = int(os.environ.get("FUSEDRNN_EMULATED_CASES", "40"))
# Of the tests of a device, in Python; the others need torch on a GPU or take long here.
DEVICE_TESTS = os.environ.get(
    "FUSEDRNN_EMULATED_TESTS", "replays or captured_stream or out_of_memory or share_a_stack or may_synchronise"
)
PLANTED = mutants(ROOT / "csrc")

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not all(map(shutil.which, ("cmake", "ninja", "g++"))),
    reason="the emulated device is built by CMake, Ninja and GCC, for x86-64",
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with an executable for each build of the emulated device."""
    folder = tmp_path_factory.mktemp("emulator")
    write(ROOT / "csrc", folder / "mutants")
    found = find_spec("pybind11")
    pybind11 = Path(found.origin).parent / "share" / "cmake" / "pybind11" if found and found.origin else ""
    for command in (
        [
            *("cmake", "-G", "Ninja", "-S", ROOT / "tests" / "emulator", "-B", folder),
            *(
                f"-DMUTANTS={folder / 'mutants'}",
                f"-Dpybind11_ROOT={pybind11}",
                f"-DPython_EXECUTABLE={sys.executable}",
            ),
        ],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return folder


def run_cases(
    build: Path, name: str, cases: int, seed: int, size: int = 1, **environment: object
) -> subprocess.CompletedProcess[str]:
    """Make random calls in one of the builds."""
    added = {
        "FUSEDRNN_CUBLAS": build / name / "libcublas.so.13",
        "TSAN_OPTIONS": "halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    } | environment
    return subprocess.run(
        [build / f"cases_{name}", str(cases), str(seed), str(size)],
        env=os.environ | {key: str(value) for key, value in added.items()},
        capture_output=True,
        text=True,
        timeout=max(300, 10 * cases),
        check=False,
    )


@pytest.mark.parametrize("size", [1, 2, 3], ids=["small", "medium", "large"])
def test_random_calls(build: Path, size: int) -> None:
    """Each path, cell and dtype, as it is, recorded and replayed, many calls at once, some without memory."""
    done = run_cases(build, "plain", CASES // (1, 4, 20)[size - 1], 1, size)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in ("fused", "resident", "stepwise"):
        assert path in done.stdout or size == 3, done.stdout
    assert "all alike" in done.stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_addresses(build: Path, dtype: str) -> None:
    """No access beyond an array, the shared memory of a block or what the stream has given back, by the sanitizers."""
    done = run_cases(build, "asan", CASES // 4, 2, CASES_DTYPE=dtype)
    assert done.returncode == 0, done.stdout + done.stderr


def test_races(build: Path) -> None:
    """Nothing but streams, events and barriers orders what streams, blocks and threads do, by the thread sanitizer."""
    done = run_cases(build, "tsan", CASES // 4, 3, CASES_DTYPE="float32")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("number", range(len(PLANTED)), ids=[each.name for each in PLANTED])
def test_mutants(build: Path, number: int) -> None:
    """Each barrier and each wait is needed, and seen to be missing where it is left out."""
    done = run_cases(build, "tsan", 60, 1, CASES_DTYPE="float32", EMULATOR_MUTANT=number)
    assert done.returncode != 0, f"nothing differs without {PLANTED[number].name}"


@pytest.mark.skipif(find_spec("pybind11") is None, reason="the Python module over the emulated device needs pybind11")
def test_python(build: Path) -> None:
    """Tests of the device in Python, over a stand-in for CuPy: replays, streams, threads, memory, captures."""
    python = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "emulated_device"]
    done = subprocess.run(
        [*python, "tests/test_cuda_device.py", "-k", DEVICE_TESTS],
        cwd=ROOT,
        env=os.environ | {"FUSEDRNN_EMULATED": str(build), "PYTHONPATH": str(ROOT / "tests" / "emulator")},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "skipped" not in done.stdout


def test_every_barrier_is_a_mutant() -> None:
    """The list of faults is made from the sources: it has barriers, waits of both passes and second buffers."""
    names = [each.name for each in PLANTED]
    for part, least in (("__syncthreads", 3), ("forward.h", 3), ("backward.h", 6), ("done_", 1), ("one place", 2)):
        assert sum(part in name for name in names) >= least, (part, names)
    assert all(isinstance(each, Mutant) and each.edits for each in PLANTED)
