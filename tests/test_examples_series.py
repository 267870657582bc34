"""Examples on series and images, run quickly as a user runs them; each judges its own result by its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("script", "arguments", "figure", "says"),
    [
        ("forecast_prices.py", "--out", "prices.png", "What the LSTM learnt"),
        ("forecast_temperature.py", "--out", "temperature.png", "seasonal naive"),
        ("denoise_digits.py", "--out", "digits.png", "autoencoder      PCA"),
        ("anomaly_glucose.py", "--out", "glucose.png", "AUROC"),
        ("gradient_flow.py", "--out", "", "every remedy helped"),
    ],
)
def test_example(script: str, arguments: str, figure: str, says: str, tmp_path: Path) -> None:
    """The script ends well, which it does only if its network learnt, says what it found and draws it."""
    command = [sys.executable, str(EXAMPLES / script), "--quick", arguments, str(tmp_path / figure)]
    environment = {**os.environ, "FUSEDRNN_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}{result.stderr}"
    assert says in result.stdout
    drawn = list(tmp_path.glob("*.png"))
    assert drawn and min(path.stat().st_size for path in drawn) > 10_000
