"""The unit tests of the C++ that Python cannot reach: tests/cpp, one executable, built here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path.stem for path in (ROOT / "tests" / "cpp").glob("*.cpp") if path.stem != "main")


def run(*command: str | Path) -> str:
    """Return what a command prints; fail with it where the command fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def unit_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the executable."""
    missing = [tool for tool in ("cmake", "ninja") if not shutil.which(tool)]
    if not find_spec("pybind11"):
        missing.append("pybind11")
    if missing:
        pytest.skip(f"to build the unit tests of the C++ {', '.join(missing)} is missing: pip install '.[test]'")
    folder = tmp_path_factory.mktemp("unit_tests")
    pybind11 = run(sys.executable, "-m", "pybind11", "--cmakedir").strip()
    definitions = {
        "CMAKE_BUILD_TYPE": "Debug",
        "FUSEDRNN_CUDA": "OFF",
        "FUSEDRNN_TESTS": "ON",
        "FUSEDRNN_WERROR": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_ROOT": pybind11,
    }
    run("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder, *(f"-D{name}={value}" for name, value in definitions.items()))
    run("cmake", "--build", folder, "--target", "unit_tests")
    return folder / "unit_tests"


@pytest.mark.parametrize("file", FILES)
def test_unit(unit_tests: Path, file: str) -> None:
    """Every check of a file holds."""
    assert "passed" in run(unit_tests, file)
