"""The examples for PyTorch: one trains both ways to the same losses, one trains on two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", minversion="2.6")

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command: str) -> str:
    result = subprocess.run(
        [sys.executable, *command], env={**os.environ}, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, f"{result.stdout}{result.stderr[-3000:]}"
    return result.stdout


def test_tagger_has_the_same_losses(tmp_path: Path) -> None:
    picture = tmp_path / "tagger.png"
    printed = run(str(EXAMPLES / "torch_tagger.py"), "--quick", "--out", str(picture))
    assert "replaced 1 of 1 recurrent modules" in printed and "Kernels" in printed and "times as fast" in printed
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_two_processes_have_the_gradients_of_one() -> None:
    printed = run(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(EXAMPLES / "torch_ddp.py"), "--quick",
    )  # fmt: skip
    assert "Gradients of 2 processes and of one:" in printed and "epoch 1" in printed
