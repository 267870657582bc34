"""The code blocks of the user guide and of README.md run, in the order of their page, and print what comments say."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISE = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)


def pages() -> list[str]:
    return sorted(path.name for path in DOCS.glob("*.md") if BLOCK.search(path.read_text()))


def test_the_guide_has_code() -> None:
    assert len(pages()) >= 7


@pytest.mark.parametrize("page", pages())
def test_code_of_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A promise holds for each line that its print makes, or with " | " for one line each."""
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text()
    names: dict[str, Any] = {}
    for match in BLOCK.finditer(text):
        code = match.group(1)
        if "import torch" in code and find_spec("torch") is None:
            continue
        line = text.count("\n", 0, match.start(1))
        exec(compile("\n" * line + code, str(DOCS / page), "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        promised = [each for promise in PROMISE.findall(code) for each in promise.split(" | ")]
        if len(promised) == 1:
            promised *= max(1, len(printed))  # the same of every round of a loop
        assert printed == promised, f"{page}:{line + 1}"


def test_code_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten lines learn a wave; what follows them is written for arrays of the reader's own."""
    monkeypatch.chdir(tmp_path)
    ten_lines, overview = BLOCK.findall((DOCS.parent / "README.md").read_text())
    names: dict[str, Any] = {}
    exec(compile(ten_lines, "README.md", "exec"), names)
    error = np.mean((names["prediction"] - names["wave"][:, 1:]) ** 2)
    assert names["prediction"].shape == (30, 99, 1) and error < 0.25 * np.var(names["wave"])
    names |= {"input_size": 3, "hidden_size": 5, "x": np.ones((2, 4, 3), np.float32), "lengths": [4, 2]}
    names |= {"dy": np.ones((2, 4, 10), np.float32), "x_t": np.ones((1, 8), np.float32)}
    exec(compile(overview, "README.md", "exec"), names)
    assert names["dx"].shape == (2, 4, 3) and names["h_t"].shape == (1, 32)
