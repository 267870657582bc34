"""Fixtures over cells and dtypes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import fusedrnn as fr
from fusedrnn import _core
from fusedrnn.arrays import devices
from reference import CELLS


def pytest_configure(config: pytest.Config) -> None:
    """Keep the threads together."""
    _core.wait_for_workers(True)  # a test with several threads does not fall back to one where the machine is busy


def pytest_report_header() -> str:
    """Say what is under test."""
    config = fr.config()
    isa = f"isa {config['isa']} of {', '.join(config['isa_available'])}"
    return f"fusedrnn {fr.__version__}: {isa}, {fr.get_num_threads()} threads"


@pytest.fixture(params=CELLS)
def cell(request: pytest.FixtureRequest) -> str:
    """Each cell in turn."""
    return str(request.param)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> str:
    """Each dtype in turn."""
    return str(request.param)


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine be one without CUDA."""
    nothing = {"built": (), "driver": None, "devices": [], "error": None}
    monkeypatch.setattr(devices, "status", lambda: nothing)


@pytest.fixture
def restore_threads() -> Iterator[None]:
    """Give the next test the number of threads that this one found."""
    before = fr.get_num_threads()
    yield
    fr.set_num_threads(before)
