"""The code blocks of the user guide run, in the order of their page, and print what the comments beside them say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

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
        line = text.count("\n", 0, match.start(1))
        exec(compile("\n" * line + code, str(DOCS / page), "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        promised = [each for promise in PROMISE.findall(code) for each in promise.split(" | ")]
        if len(promised) == 1:
            promised *= max(1, len(printed))  # the same of every round of a loop
        assert printed == promised, f"{page}:{line + 1}"
