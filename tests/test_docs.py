"""The code blocks of the user guide and of README.md run, in the order of their page, and print what comments say."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packages import package_file

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
PROMISE = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)
IMAGE = re.compile(r"(?:^```\{image\} |^:img-bottom: |!\[[^]]*\]\()([^\s)]+\.png)", re.MULTILINE)
# Files that pages read, and the packages that they are in.
FILES = {
    "silero_vad_16k_sequence.onnx": ("silero-vad==6.2.3", "silero_vad/data/silero_vad_16k_sequence.onnx"),
    "test-audio.raw": ("webrtcvad==2.0.10", "test-audio.raw"),
    "textgenrnn_weights.hdf5": ("textgenrnn==2.0.0", "textgenrnn/textgenrnn_weights.hdf5"),
}
COLUMN = 100  # characters of code that a page shows without a scroll bar


def all_pages() -> list[str]:
    return sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if "_build" not in path.parts)


def pages() -> list[str]:
    return [page for page in all_pages() if BLOCK.search((DOCS / page).read_text())]


def test_the_guide_has_code() -> None:
    assert len(pages()) >= 20


@pytest.mark.parametrize("page", pages())
def test_code_of_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A promise is a comment behind a print, for each line that it prints or with " | " for one line each; or, broken
    into lines at will, a block of text after the code."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text()
    names: dict[str, Any] = {}
    for match in BLOCK.finditer(text):
        code, output = match.groups()
        for name, (package, member) in FILES.items():
            if name in code:
                pytest.importorskip("h5py" if name.endswith("hdf5") else "onnx")
                (tmp_path / name).write_bytes(package_file(package, member).read_bytes())
        if "import torch" in code and find_spec("torch") is None:
            pytest.skip("the rest of the page needs torch, which is not installed")
        line = text.count("\n", 0, match.start(1))
        exec(compile("\n" * line + code, str(DOCS / page), "exec"), names)
        printed = capsys.readouterr().out
        if output is not None:
            assert printed.split() == output.split(), f"{page}:{line + 1}"
            continue
        promised = [each for promise in PROMISE.findall(code) for each in promise.split(" | ")]
        if len(promised) == 1:
            promised *= max(1, len(printed.splitlines()))  # the same of every round of a loop
        assert printed.splitlines() == promised, f"{page}:{line + 1}"
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.parametrize("page", all_pages())
def test_what_a_page_shows(page: str) -> None:
    """Pictures are there, and so is one for each that the page draws; code fits into the column."""
    text = (DOCS / page).read_text()
    shown = {((DOCS / page).parent / name).resolve() for name in IMAGE.findall(text)}
    assert all(path.is_file() for path in shown)
    for code, _ in BLOCK.findall(text):
        wide = [line for line in code.splitlines() if len(line) > COLUMN]
        assert not wide, f"{page}: wider than {COLUMN} characters: {wide}"
        drawn = re.findall(r"""(?:savefig|plot)\("(\w+\.png)"\)""", code)
        assert {DOCS / "images" / name for name in drawn} <= shown, f"{page} does not show {drawn}"


INTERNAL = {"interop", "serialization"}  # their functions are exported by others


def test_every_public_module_is_in_the_reference() -> None:
    """A module that says what it exports has a page, made from its docstrings."""
    package = DOCS.parent / "python" / "fusedrnn"
    files = [*package.glob("*.py"), *package.glob("*/__init__.py")]
    public = {
        path.parent.name if path.stem == "__init__" else path.stem for path in files if "\n__all__" in path.read_text()
    }
    reference = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    described = {name.rpartition(".")[2] for name in re.findall(r"automodule:: (\S+)", reference)}
    assert public - described == INTERNAL


def test_code_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ten lines learn a wave; what follows them is written for arrays of the reader's own."""
    monkeypatch.chdir(tmp_path)
    (ten_lines, _), (overview, _) = BLOCK.findall((DOCS.parent / "README.md").read_text())
    names: dict[str, Any] = {}
    exec(compile(ten_lines, "README.md", "exec"), names)
    error = np.mean((names["prediction"] - names["wave"][:, 1:]) ** 2)
    assert names["prediction"].shape == (30, 99, 1) and error < 0.25 * np.var(names["wave"])
    names |= {"input_size": 3, "hidden_size": 5, "x": np.ones((2, 4, 3), np.float32), "lengths": [4, 2]}
    names |= {"dy": np.ones((2, 4, 10), np.float32), "x_t": np.ones((1, 8), np.float32)}
    exec(compile(overview, "README.md", "exec"), names)
    assert names["dx"].shape == (2, 4, 3) and names["h_t"].shape == (1, 32)
