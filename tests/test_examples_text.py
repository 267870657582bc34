"""Each example on text or captions learns: its exit code is not 0 unless its metric is reached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("review_sentiment", "next_character", "caption_digits", "translate_numbers", "restore_letters")


@pytest.mark.parametrize("name", NAMES)
def test_example_reaches_its_metric(name: str, tmp_path: Path) -> None:
    picture = tmp_path / f"{name}.png"
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--quick", "--out", str(picture)],
        env={**os.environ, "PYTHONWARNINGS": "error::RuntimeWarning"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}{result.stderr[-3000:]}"
    assert "Kernels" in result.stdout
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
