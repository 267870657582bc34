"""The grid: which problems are timed, how many operations they take, and their data.

T steps, B batch, I input size, H hidden size, as everywhere in the project.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
STREAM_CHECK_STEPS = 6
Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One problem: a cell, what is done with it, and its sizes."""

    cell: str  # lstm, gru, rnn (tanh)
    kind: str  # inference, training, streaming
    size: str  # tiny, small, medium, large, odd, deepbench
    T: int
    B: int
    I: int  # noqa: E741 (the project's name for the input size)
    H: int
    layers: int = 1
    bidirectional: bool = False
    valid: float = 1.0  # share of the T*B steps inside the sequences
    dtype: str = "float32"
    quick: bool = False

    @property
    def variant(self) -> str:
        parts = []
        if self.layers > 1:
            parts.append(f"{self.layers} layers")
        if self.bidirectional:
            parts.append("bidirectional")
        if self.valid < 1:
            parts.append(f"{self.valid:.0%} valid")
        if self.dtype != "float32":
            parts.append(self.dtype)
        return " ".join(parts)

    @property
    def shape(self) -> str:
        return f"{self.T},{self.B},{self.I},{self.H}"

    @property
    def name(self) -> str:
        """The identity of the case in results and in the baseline."""
        return "/".join(filter(None, (self.cell, self.kind, self.shape, self.variant.replace(" ", "-"))))

    @property
    def group(self) -> str:
        """The cases that share a geometric mean."""
        return " ".join(filter(None, (self.cell.upper(), self.kind, self.variant)))

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def input_size(self, layer: int) -> int:
        return self.I if layer == 0 else self.H * self.directions

    def parameter_names(self) -> Iterator[tuple[int, str]]:
        """Yield (layer, suffix) per layer and direction, the suffix as torch has it: l0, l0_reverse, l1 ..."""
        for layer in range(self.layers):
            yield layer, f"l{layer}"
            if self.bidirectional:
                yield layer, f"l{layer}_reverse"

    @property
    def lengths(self) -> Array | None:
        """Evenly spread lengths whose mean is `valid`; the longest is T. Shuffled, so sorting stays a cost."""
        if self.valid == 1:
            return None
        spread = np.linspace((2 * self.valid - 1) * self.T, self.T, self.B).round().clip(1)
        return np.random.default_rng(7).permutation(spread).astype(np.int64)

    @property
    def sample_steps(self) -> int:
        lengths = self.lengths
        return self.T * self.B if lengths is None else int(lengths.sum())

    @property
    def flops(self) -> int:
        """Multiplications and additions of the matrix products of one call; the gate functions are not counted.

        2 per weight and sample-step forward, twice that backward (dx and dW): LSTM 8H(I+H) and 16H(I+H).
        """
        weights = sum(
            GATES[self.cell] * self.H * (self.input_size(layer) + self.H) for layer, _ in self.parameter_names()
        )
        steps = self.B if self.kind == "streaming" else self.sample_steps
        return (6 if self.kind == "training" else 2) * weights * steps

    def dense(self) -> Case:
        return replace(self, valid=1.0)

    def single_precision(self) -> Case:
        return replace(self, dtype="float32")


@dataclass(frozen=True)
class Problem:
    """The arrays of a case, float32; weights under torch's names and in torch's gate order."""

    x: Array  # (T, B, I)
    dy: Array  # (T, B, directions*H); in training the loss is sum(y*dy)
    weights: dict[str, Array]
    lengths: Array | None


def make_problem(case: Case) -> Problem:
    """Draw the data of a case; the same case gives the same data in every run."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    bound = case.H**-0.5
    rows = GATES[case.cell] * case.H
    weights: dict[str, Array] = {}
    for layer, suffix in case.parameter_names():
        for stem, shape in (
            ("weight_ih", (rows, case.input_size(layer))),
            ("weight_hh", (rows, case.H)),
            ("bias_ih", (rows,)),
            ("bias_hh", (rows,)),
        ):
            weights[f"{stem}_{suffix}"] = rng.uniform(-bound, bound, shape).astype(np.float32)
    steps = STREAM_CHECK_STEPS if case.kind == "streaming" else case.T
    x = rng.standard_normal((steps, case.B, case.I), dtype=np.float32)
    dy = rng.standard_normal((steps, case.B, case.directions * case.H), dtype=np.float32)
    return Problem(x, dy, weights, case.lengths)


_BOTH = ("inference", "training")

# (size, (T, B, I, H), kinds, in --quick)
_LSTM: list[tuple[str, tuple[int, int, int, int], tuple[str, ...], bool]] = [
    ("tiny", (100, 1, 16, 16), _BOTH, False),
    ("tiny", (100, 1, 32, 32), _BOTH, True),
    ("tiny", (100, 1, 64, 64), _BOTH, False),
    ("small", (100, 1, 128, 128), _BOTH, False),
    ("small", (50, 8, 64, 64), _BOTH, False),
    ("small", (100, 32, 64, 64), _BOTH, True),
    ("medium", (50, 8, 128, 128), _BOTH, False),
    ("medium", (100, 32, 128, 128), _BOTH, True),
    ("medium", (100, 32, 256, 256), _BOTH, False),
    ("large", (100, 1, 512, 512), _BOTH, False),
    ("large", (25, 16, 512, 512), _BOTH, False),
    ("large", (50, 64, 512, 512), _BOTH, False),
    ("large", (25, 32, 1024, 1024), _BOTH, False),
    ("odd", (60, 7, 39, 100), _BOTH, True),
    ("odd", (60, 7, 80, 200), _BOTH, False),
    ("odd", (60, 7, 123, 300), _BOTH, False),
    ("deepbench", (150, 1, 256, 256), ("inference",), False),
    ("deepbench", (25, 4, 512, 512), ("inference",), False),
    ("deepbench", (25, 1, 1024, 1024), ("inference",), False),
    ("deepbench", (150, 16, 256, 256), _BOTH, False),
    ("deepbench", (25, 64, 512, 512), _BOTH, False),
    ("deepbench", (25, 16, 1024, 1024), _BOTH, False),
    ("deepbench", (50, 8, 1536, 1536), _BOTH, False),
]
_OTHER_CELLS: list[tuple[str, tuple[int, int, int, int], tuple[str, ...], bool]] = [
    ("tiny", (100, 1, 32, 32), _BOTH, True),
    ("tiny", (100, 1, 64, 64), _BOTH, False),
    ("small", (100, 32, 64, 64), _BOTH, False),
    ("medium", (100, 32, 256, 256), _BOTH, False),
    ("large", (25, 16, 512, 512), _BOTH, False),
    ("odd", (60, 7, 80, 200), _BOTH, False),
]
_DEEPBENCH_OTHER: list[tuple[str, tuple[int, int, int, int], tuple[str, ...]]] = [
    ("gru", (1, 32, 512, 512), ("inference",)),
    ("gru", (187, 1, 1536, 1536), ("inference",)),
    ("rnn", (672, 1, 32, 32), ("inference",)),
    ("rnn", (96, 1, 64, 64), ("inference",)),
    ("rnn", (50, 16, 1760, 1760), _BOTH),
]
_INT8: list[tuple[str, tuple[int, int, int, int], bool]] = [
    ("tiny", (100, 1, 64, 64), True),
    ("small", (100, 1, 128, 128), False),
    ("medium", (100, 1, 256, 256), True),
    ("large", (50, 1, 512, 512), False),
    ("large", (25, 1, 1024, 1024), False),
    ("medium", (50, 8, 256, 256), True),
    ("large", (50, 32, 512, 512), False),
    ("odd", (60, 7, 39, 100), False),
    ("odd", (60, 7, 123, 300), False),
]


def grid() -> list[Case]:
    """Every case, in the order in which tables and plots show them."""
    cases = [Case("lstm", kind, size, *shape, quick=quick) for size, shape, kinds, quick in _LSTM for kind in kinds]
    for cell in ("gru", "rnn"):
        cases += [
            Case(cell, kind, size, *shape, quick=quick and kind == "training")
            for size, shape, kinds, quick in _OTHER_CELLS
            for kind in kinds
        ]
    cases += [Case(cell, kind, "deepbench", *shape) for cell, shape, kinds in _DEEPBENCH_OTHER for kind in kinds]
    for kind in _BOTH:
        quick = kind == "training"
        cases += [
            Case("lstm", kind, "small", 60, 16, 64, 64, valid=0.55, quick=quick),
            Case("lstm", kind, "medium", 200, 32, 64, 128, valid=0.55),
            Case("lstm", kind, "medium", 100, 32, 256, 256, valid=0.55),
            Case("gru", kind, "small", 100, 32, 64, 64, valid=0.55),
            Case("lstm", kind, "small", 50, 8, 64, 64, bidirectional=True, quick=quick),
            Case("lstm", kind, "medium", 100, 16, 128, 128, bidirectional=True),
            Case("lstm", kind, "large", 50, 32, 512, 512, bidirectional=True),
            Case("gru", kind, "medium", 100, 16, 128, 128, bidirectional=True),
            Case("lstm", kind, "tiny", 100, 1, 64, 64, layers=2),
            Case("lstm", kind, "medium", 100, 16, 128, 128, layers=2, quick=quick),
            Case("lstm", kind, "large", 50, 32, 512, 512, layers=2),
            Case("gru", kind, "medium", 100, 16, 128, 128, layers=2),
            Case("lstm", kind, "large", 100, 1, 512, 512, dtype="bfloat16"),
            Case("lstm", kind, "odd", 60, 7, 123, 300, dtype="bfloat16"),
            Case("lstm", kind, "medium", 100, 32, 256, 256, dtype="bfloat16"),
            Case("lstm", kind, "large", 50, 64, 512, 512, dtype="bfloat16"),
            Case("lstm", kind, "large", 25, 32, 1024, 1024, dtype="bfloat16"),
        ]
    for H in (16, 32, 64, 128, 256):
        cases.append(Case("lstm", "streaming", "tiny" if H < 128 else "small", 1, 1, H, H, quick=H == 32))
    cases += [Case(cell, "streaming", "tiny", 1, 1, 32, 32) for cell in ("gru", "rnn")]
    cases += [Case("lstm", "inference", size, *shape, dtype="int8", quick=quick) for size, shape, quick in _INT8]
    for cell in ("gru", "rnn"):
        cases += [
            Case(cell, "inference", size, *shape, dtype="int8")
            for size, shape, _ in _INT8
            if shape[3] in (64, 256, 512)
        ]
    for H in (64, 128, 256, 512):
        cases.append(Case("lstm", "streaming", "small", 1, 1, H, H, dtype="int8"))
    cases.append(Case("gru", "streaming", "small", 1, 1, 256, 256, dtype="int8"))
    cases.sort(key=lambda case: (case.dtype != "float32", case.kind == "streaming"))
    return cases


def random_cases(count: int, seed: int) -> list[Case]:
    """Draw cases that nobody tuned for: sizes log-uniform, every cell and variant, at most about 0.1 s a call."""
    rng = np.random.default_rng(seed)

    def size(low: int, high: int) -> int:
        return int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))

    cases: list[Case] = []
    while len(cases) < count:
        case = Case(
            str(rng.choice(["lstm", "lstm", "gru", "rnn"])),
            str(rng.choice(_BOTH)),
            "random",
            T=size(5, 500),
            B=size(1, 128),
            I=size(2, 1024),
            H=size(8, 1024),
            layers=int(rng.choice([1, 1, 1, 1, 2, 3])),
            bidirectional=bool(rng.random() < 0.15),
        )
        if case.B >= 4 and rng.random() < 0.15:
            case = replace(case, valid=0.55)
        if case.flops < 8e9:
            cases.append(case)
    return cases


def select(filters: list[str], *, quick: bool) -> list[Case]:
    """Return the cases whose name or size contains all words of one filter ("lstm+training", "odd")."""
    return select_from([case for case in grid() if case.quick or not quick], filters)


def select_from(cases: list[Case], filters: list[str]) -> list[Case]:
    """Return those of the cases that one of the filters describes; all without filters."""
    if not filters:
        return cases

    def matches(case: Case, text: str) -> bool:
        words = f"{case.name} {case.size}".replace("/", " ").split()
        return all(any(word in have for have in words) for word in text.split("+"))

    return [case for case in cases if any(matches(case, text) for text in filters)]
