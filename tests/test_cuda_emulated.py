"""The CUDA backend on an emulated device (tests/emulator): random calls, to the bit what the host twin computes.

FUSEDRNN_EMULATED_CASES is how many calls each build makes, FUSEDRNN_EMULATED_TESTS what pytest -k chooses of the tests
of a device in Python, FUSEDRNN_EMULATED_BUILD a folder that keeps what is built for the next time.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from mutants import Mutant, mutants, write

ROOT = Path(__file__).parents[1]
CASES = int(os.environ.get("FUSEDRNN_EMULATED_CASES", "40"))
# Of the tests of a device, in Python; the others need torch on a GPU or take long here.
DEVICE_TESTS = os.environ.get(
    "FUSEDRNN_EMULATED_TESTS",
    "replays or captured_stream or out_of_memory or share_a_stack or may_synchronise or lack_is_named",
)
PLANTED = mutants(ROOT / "csrc")

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not all(map(shutil.which, ("cmake", "ninja", "g++"))),
    reason="the emulated device is built by CMake, Ninja and GCC, for x86-64",
)


@dataclass(frozen=True)
class Run:
    """Random calls in one of the builds."""

    build: str
    cases: int
    seed: int
    size: int = 1
    environment: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, folder: Path) -> subprocess.CompletedProcess[str]:
        added = {
            "FUSEDRNN_CUBLAS": folder / self.build / "libcublas.so.13",
            "TSAN_OPTIONS": "halt_on_error=1",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            # Or large blocks would go back to the system each time, to be cleared again.
            **{"MALLOC_MMAP_THRESHOLD_": 1 << 30, "MALLOC_TRIM_THRESHOLD_": 1 << 33, "MALLOC_TOP_PAD_": 1 << 26},
        } | dict(self.environment)
        return subprocess.run(
            [folder / f"cases_{self.build}", str(self.cases), str(self.seed), str(self.size)],
            env=os.environ | {key: str(value) for key, value in added.items()},
            capture_output=True,
            text=True,
            timeout=max(600, 10 * self.cases),
            check=False,
        )


def python_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests of a device in Python."""
    python = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "emulated_device"]
    return subprocess.run(
        [*python, "tests/test_cuda_device.py", "-k", DEVICE_TESTS],
        cwd=ROOT,
        env=os.environ | {"FUSEDRNN_EMULATED": str(folder), "PYTHONPATH": str(ROOT / "tests" / "emulator")},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


# By the name of the test that looks at the result.
RUNS: dict[str, Callable[[Path], subprocess.CompletedProcess[str]]] = {
    "test_random_calls[large]": Run("plain", CASES // 20, 1, 3),
    "test_random_calls[medium]": Run("plain", CASES // 4, 1, 2),
    "test_random_calls[small]": Run("plain", CASES, 1),
    "test_races": Run("tsan", CASES // 4, 3, environment={"CASES_DTYPE": "float32"}),
    "test_python": python_tests,
}
for _dtype in ("float32", "bfloat16"):
    RUNS[f"test_addresses[{_dtype}]"] = Run("asan", CASES // 4, 2, environment={"CASES_DTYPE": _dtype})
for _number, _mutant in enumerate(PLANTED):
    _only = {"CASES_DTYPE": "float32"} | ({"CASES_PATH": "1"} if _mutant.is_of_fused_path else {})
    RUNS[f"test_mutants[{_mutant.name}]"] = Run("tsan", 60, 1, environment=_only | {"EMULATOR_MUTANT": _number})


def build(folder: Path) -> None:
    """Make an executable for each build of the emulated device."""
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Build, and start what the chosen tests look at, on all cores: none of it waits for another."""
    kept = os.environ.get("FUSEDRNN_EMULATED_BUILD")
    folder = Path(kept).resolve() if kept else tmp_path_factory.mktemp("emulator")
    build(folder)
    chosen = {item.name for item in request.session.items}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(run, folder) for name, run in RUNS.items() if name in chosen}


@pytest.fixture
def done(
    results: dict[str, Future[subprocess.CompletedProcess[str]]], request: pytest.FixtureRequest
) -> subprocess.CompletedProcess[str]:
    """Return what the run of this test has said."""
    return results[request.node.name].result()


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_random_calls(done: subprocess.CompletedProcess[str], size: str) -> None:
    """Each path, cell and dtype, as it is, recorded and replayed, many calls at once, some without memory."""
    assert done.returncode == 0, done.stdout + done.stderr
    for path in ("fused", "resident", "stepwise"):
        assert path in done.stdout or size == "large", done.stdout
    assert "all alike" in done.stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_addresses(done: subprocess.CompletedProcess[str], dtype: str) -> None:
    """No access beyond an array, the shared memory of a block or what the stream has given back, by the sanitizers."""
    assert done.returncode == 0, done.stdout + done.stderr


def test_races(done: subprocess.CompletedProcess[str]) -> None:
    """Nothing but streams, events and barriers orders what streams, blocks and threads do, by the thread sanitizer."""
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutant", PLANTED, ids=[each.name for each in PLANTED])
def test_mutants(done: subprocess.CompletedProcess[str], mutant: Mutant) -> None:
    """Each barrier and each wait is needed, and seen to be missing where it is left out."""
    assert done.returncode != 0, f"nothing differs without {mutant.name}"


@pytest.mark.skipif(find_spec("pybind11") is None, reason="the Python module over the emulated device needs pybind11")
def test_python(done: subprocess.CompletedProcess[str]) -> None:
    """Tests of the device in Python, over a stand-in for CuPy: replays, streams, threads, memory, captures."""
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "skipped" not in done.stdout


LEAST = {"__syncthreads": 3, "forward.h": 4, "backward.h": 7, "done_": 1, "one place": 2, "<E>": 2}


def test_every_barrier_is_a_mutant() -> None:
    """The list is made from the sources: barriers, waits of both passes, second buffers, copies of weights."""
    names = [each.name for each in PLANTED]
    for part, least in LEAST.items():
        assert sum(part in name for name in names) >= least, (part, names)
    assert all(isinstance(each, Mutant) and each.edits for each in PLANTED)
