"""Run a piece of Python in a fresh interpreter, for tests that fork, are interrupted, or look at an import."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap


def run_python(
    code: str, *, timeout: float = 60, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``code`` with some environment variables set; with ``check`` a failure shows its traceback."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check:
        assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}{result.stderr}"
    return result
