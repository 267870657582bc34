"""The grid on a GPU, and what is promised about it.

float32 forbids TF32 to both sides, tf32 allows it to both; float16 and bfloat16 are what arrays hold, sums are float32.
"""

from __future__ import annotations

from collections.abc import Iterator

from cases import Case, select_from

DTYPES = ("float32", "tf32", "bfloat16", "float16")
_BOTH = ("inference", "training")

# DeepBench, training: hidden size (= input size), batches, time steps; one layer, one direction.
_DEEPBENCH: list[tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
    ("rnn", (1760, 2048, 2560), (16, 32, 64, 128), (50,)),
    ("lstm", (512, 1024, 2048, 4096), (16, 32, 64, 128), (25,)),
    ("lstm", (1536,), (8, 16, 32), (50,)),
    ("lstm", (256,), (16, 32, 64), (150,)),
    ("gru", (2816, 2048, 1536, 2560), (32,), (1500, 750, 375, 187)),
    ("gru", (1024,), (32, 64), (1500,)),
]
_QUICK = {
    ("lstm", 64, 16, "float32"),
    ("lstm", 512, 16, "float32"),
    ("lstm", 512, 16, "tf32"),
    ("lstm", 512, 16, "bfloat16"),
    ("lstm", 1024, 64, "float16"),
    ("gru", 256, 16, "float32"),
    ("rnn", 256, 16, "float32"),
}


def grid() -> list[Case]:
    """Every case once, in the order in which the table shows them."""
    cases = [*_sweep(), *_overhead(), *_variants(), *_odd(), *_deepbench()]
    return list({case.name: case for case in reversed(cases)}.values())[::-1]


def select(filters: list[str], *, quick: bool) -> list[Case]:
    """Return the cases whose name or size contains all words of one filter ("lstm+training", "deepbench+float16")."""
    return select_from([case for case in grid() if case.quick or not quick], filters)


def _sweep() -> Iterator[Case]:
    for cell in ("lstm", "gru", "rnn"):
        full = cell == "lstm"
        for dtype in DTYPES if full else ("float32", "bfloat16"):
            for H in (64, 128, 256, 512, 1024, 2048, 4096) if full else (64, 256, 1024, 2048):
                for B in (1, 16, 64, 128) if full else (1, 8, 16, 64):
                    quick = (cell, H, B, dtype) in _QUICK
                    for kind in _BOTH:
                        yield Case(cell, kind, "sweep", 100 if H <= 1024 else 50, B, H, H, dtype=dtype, quick=quick)


def _overhead() -> Iterator[Case]:
    """So little arithmetic that only the cost of a step is left."""
    for cell in ("lstm", "gru", "rnn"):
        for dtype in ("float32", "float16"):
            for B in (1, 16, 64):
                for kind in _BOTH:
                    quick = cell == "lstm" and B == 1 and dtype == "float32"
                    yield Case(cell, kind, "overhead", 1000, B, 64, 64, dtype=dtype, quick=quick)


def _variants() -> Iterator[Case]:
    for dtype in ("float32", "bfloat16"):
        for kind in _BOTH:
            quick = dtype == "float32"
            for H in (128, 512, 1024):
                for cell in ("lstm", "gru"):
                    middle = quick and H == 512 and cell == "lstm"
                    yield Case(cell, kind, "both", 100, 32, H, H, bidirectional=True, dtype=dtype, quick=middle)
                    yield Case(cell, kind, "stacked", 100, 32, H, H, layers=2, dtype=dtype, quick=middle)
                yield Case("lstm", kind, "stacked", 100, 32, H, H, layers=4, dtype=dtype)
            for T, B, H in ((100, 16, 128), (100, 64, 512), (500, 32, 256), (1000, 64, 128)):
                for cell in ("lstm", "gru"):
                    one = quick and T == 500 and cell == "lstm"
                    yield Case(cell, kind, "packed", T, B, H, H, valid=0.55, dtype=dtype, quick=one)
            yield Case("lstm", kind, "packed", 200, 32, 256, 256, 2, True, valid=0.55, dtype=dtype)


def _odd() -> Iterator[Case]:
    for kind in _BOTH:
        for dtype in ("float32", "float16"):
            for B, I, H in ((7, 39, 100), (7, 80, 200), (13, 123, 300)):  # noqa: E741 (the input size)
                yield Case("lstm", kind, "odd", 100, B, I, H, dtype=dtype)
        for dtype in ("bfloat16", "float16"):
            yield Case("lstm", kind, "published", 1024, 16, 768, 768, dtype=dtype)  # by FlashRNN's authors, of cuDNN


def _deepbench() -> Iterator[Case]:
    for dtype in ("float32", "float16"):
        for cell, sizes, batches, steps in _DEEPBENCH:
            for H in sizes:
                for B in batches:
                    for T in steps:
                        for kind in _BOTH:
                            yield Case(cell, kind, "deepbench", T, B, H, H, dtype=dtype)


def cudnn_algorithm(case: Case) -> str:
    """Return what torch asks of cuDNN: "standard", "persistent", or "small" (persistent for small H).

    The conditions of aten/src/ATen/native/cudnn/RNN.cpp; cuDNN may still decide otherwise.
    """
    if case.valid < 1:
        return "standard"
    small = 192 if case.kind == "inference" else 128
    if small >= case.H:
        return "small"
    one = case.layers == 1 and not case.bidirectional and case.cell != "gru"
    sizes = case.H <= 1024 and case.H % 128 == 0 and case.I % 128 == 0 and case.B % 8 == 0 and case.B <= 128
    return "persistent" if case.dtype == "float16" and one and sizes else "standard"


# (what, whether it is about a case, the smallest ratio of torch's time to ours)
FLOORS = [
    ("any shape, where torch takes cuDNN's standard algorithm", lambda c: cudnn_algorithm(c) == "standard", 0.9),
    ("packed batches of sequences of unlike length", lambda c: c.valid < 1, 5.0),
    ("GRU and RNN, B <= 16", lambda c: c.cell != "lstm" and c.B <= 16 and c.valid == 1, 1.5),
    ("overhead: T = 1000, H = 64", lambda c: c.size == "overhead", 2.0),
]
