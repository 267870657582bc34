"""Faults to plant in the CUDA backend: every barrier, wait, second buffer and copy of weights, left out on its own.

The sources are copied with a switch at each place; EMULATOR_MUTANT names the one that is off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Statements to leave out, wherever they stand in csrc/cuda; the twin is what the others are compared with.
_STATEMENTS = [
    r"__syncthreads\(\);",
    r"device_\.wait\([^;]*;",
    r"check\(cudaStreamWaitEvent\([^;]*;",
    r"(?<![\w.])wait\((?:0|lane), [^;]*;",
    r"device_\.run_phases\([^;]*\bTranspose<[^;]*;",
    r"device_\.each\([^;]*\bFillRows<[^;]*;",
]
_LEFT_ALONE = {"device.h", "host_device.h"}
# Expressions that choose one of two places, which become one: (file, expressions, what is in the places).
_BUFFERS = [
    ("forward.h", ["s % 2 * place", "(s + 1) % 2 * place"], "h of the fused path"),
    ("backward.h", ["s % 2 * place", "(s + 1) % 2 * place"], "dz of the fused path"),
]


@dataclass(frozen=True)
class Mutant:
    """A fault: what it leaves out, in which file, and the text to put in place of what lies between two offsets."""

    name: str
    path: Path
    edits: list[tuple[int, int, str]]

    @property
    def is_of_fused_path(self) -> bool:
        """Whether no other path can show it."""
        return any(word in self.name for word in ("fused path", "Transpose<", "FillRows<"))


def mutants(csrc: Path) -> list[Mutant]:
    """Return all of them; the place in the list is the number of the switch."""
    found: list[Mutant] = []
    for path in sorted((csrc / "cuda").rglob("*")):
        if not path.is_file() or path.name in _LEFT_ALONE:
            continue
        source = path.read_text()
        for match in (match for statement in _STATEMENTS for match in re.finditer(statement, source)):
            line = source.count("\n", 0, match.start()) + 1
            switched = f"if (emulator_kept({len(found)})) {{ {match[0]} }}"
            name = f"{path.name}:{line} {' '.join(match[0].split())}"
            found.append(Mutant(name, path.relative_to(csrc), [(*match.span(), switched)]))
        for file, expressions, what in _BUFFERS:
            if file != path.name:
                continue
            edits = []
            for expression in expressions:
                matches = list(re.finditer(r"(?<![\w)] )" + re.escape(expression), source))
                assert matches, f"{file} has no {expression!r} any more"
                edits += [(*m.span(), f"(emulator_kept({len(found)}) ? {m[0]} : 0)") for m in matches]
            found.append(Mutant(f"{file} one place for {what}", path.relative_to(csrc), edits))
    return found


def write(csrc: Path, copy: Path) -> list[Mutant]:
    """Copy the sources with a switch for each mutant; return them. A file that is there already and right stays."""
    every = mutants(csrc)
    for path in (path.relative_to(csrc) for path in csrc.rglob("*") if path.is_file()):
        source = (csrc / path).read_text()
        edits = [edit for mutant in every if mutant.path == path for edit in mutant.edits]
        for begin, end, text in sorted(edits, reverse=True):
            source = source[:begin] + text + source[end:]
        if edits:
            lines = source.split("\n")
            first = next(i for i, line in enumerate(lines) if line.startswith("#include"))
            lines.insert(first, 'extern "C" bool emulator_kept(int number);')
            source = "\n".join(lines)
        target = copy / path
        if not target.exists() or target.read_text() != source:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source)
    return every
