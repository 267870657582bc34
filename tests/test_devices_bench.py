"""The benchmark on a GPU, as far as it can be tested without one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fusedrnn import _core, cuda
from twin import needs_cuda_module, twin_stack

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a module of the benchmark."""
    monkeypatch.syspath_prepend(str(BENCH))
    return import_module


class Tape:
    def __init__(self, core: Any) -> None:
        self._core = core

    def backward(self, dy: Any, dh: Any, dc: Any, gradients: list[Any], want_dx: bool = True) -> tuple[Any, ...]:
        arrays = [gradient.numpy() for gradient in gradients]
        dx, dh0, dc0, *_ = self._core.backward(dy.numpy(), dh, dc, arrays, want_dx)
        return torch.from_numpy(dx), dh0, dc0


class Stack:
    """The CPU kernels behind the interface of those on a GPU, for torch's tensors."""

    def __init__(self, cell: str, dtype: str, **sizes: Any) -> None:
        self._core = _core.Stack(cell, dtype, **sizes)

    def plan(self, time: int, batch: int) -> str:
        return self._core.plan(time, batch)

    def forward(self, weights: list[Any], x: Any, h0: Any, c0: Any, *rest: Any) -> tuple[Any, ...]:
        values = [weight.numpy() for weight in weights]
        y, h, c, tape = self._core.forward(values, x.numpy(), h0, c0, *rest)
        return torch.from_numpy(np.array(y)), h, c, tape and Tape(tape)


class Swapped(Stack):
    """A mistake: two gates in each other's place."""

    def forward(self, weights: list[Any], *rest: Any) -> tuple[Any, ...]:
        return super().forward([torch.roll(weights[0], weights[1].shape[1], 0), *weights[1:]], *rest)


def run(gpu: Any, case: Any, stack: Any) -> dict[str, Any]:
    timing = gpu("gpu.timing")
    budget = timing.Budget(warm_up=0, block=1e-4, seconds=1e-3, min_rounds=3, max_rounds=4)
    result: dict[str, Any] = gpu("gpu.run").run_case(torch, case, "cpu", stack, timing.WallClock(), budget)
    return result


VARIANTS: list[dict[str, Any]] = [{}, {"bidirectional": True, "layers": 2}, {"valid": 0.55}]


@pytest.mark.parametrize("kind", ["inference", "training"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("options", VARIANTS)
def test_both_sides_agree_and_are_timed(gpu: Any, cell: str, kind: str, options: dict[str, Any]) -> None:
    """The comparison itself, with the CPU kernels and torch's on the CPU."""
    case = gpu("cases").Case(cell, kind, "odd", 7, 3, 5, 6, **options)
    record = run(gpu, case, Stack)
    assert "error" not in record, record
    assert record["difference"] <= 1 and record["tflops"] > 0 and record["path"]
    assert record["times"]["torch"]["ratio"] > 0 and 3 <= record["times"]["ours"]["rounds"] <= 4


@needs_cuda_module
@pytest.mark.parametrize("kind", ["inference", "training"])
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
def test_every_dtype_with_the_twin_of_the_kernels(gpu: Any, dtype: str, kind: str) -> None:
    record = run(gpu, gpu("cases").Case("gru", kind, "odd", 7, 3, 5, 6, valid=0.55, dtype=dtype), twin_stack)
    assert "error" not in record, record
    assert record["difference"] <= 0.5


@pytest.mark.parametrize("kind", ["inference", "training"])
def test_what_disagrees_is_not_timed(gpu: Any, kind: str) -> None:
    record = run(gpu, gpu("cases").Case("lstm", kind, "odd", 7, 3, 5, 6), Swapped)
    assert record.keys() == {"error"}
    assert re.fullmatch(r"y: ours and torch differ by .* times the tolerance; not timed", record["error"])


@pytest.mark.parametrize(
    ("message", "error"),
    [("out of memory: 9 GiB\nsee above", "out of memory: 9 GiB"), ("", "MemoryError"), ("\n", "MemoryError")],
)
def test_what_cannot_run_is_recorded(gpu: Any, message: str, error: str) -> None:
    def no_memory(*_: Any, **__: Any) -> None:
        raise MemoryError(message)

    assert run(gpu, gpu("cases").Case("lstm", "training", "odd", 7, 3, 5, 6), no_memory) == {"error": error}


def test_the_grid_holds_what_is_promised(gpu: Any) -> None:
    cases = gpu("gpu.cases").grid()
    assert len({case.name for case in cases}) == len(cases)
    for cell in ("lstm", "gru", "rnn"):
        mine = [case for case in cases if case.cell == cell]
        assert {case.kind for case in mine} == {"inference", "training"}
        assert any(case.T == 1000 and case.H == 64 for case in mine)
    lstm = [case for case in cases if case.cell == "lstm"]
    assert {case.dtype for case in lstm} == {"float32", "tf32", "bfloat16", "float16"}
    assert min(case.H for case in lstm) == 64 and max(case.H for case in lstm) == 4096
    assert {1, 16, 64, 128} <= {case.B for case in lstm}
    for condition in (lambda c: c.bidirectional, lambda c: c.valid < 1, lambda c: c.layers > 1, lambda c: c.H % 8):
        assert {case.kind for case in cases if condition(case)} == {"inference", "training"}


def test_deepbench_is_complete(gpu: Any) -> None:
    got = {(c.cell, c.T, c.B, c.H, c.dtype, c.kind) for c in gpu("gpu.cases").grid() if c.I == c.H and c.layers == 1}
    shapes = [("rnn", 50, B, H) for H in (1760, 2048, 2560) for B in (16, 32, 64, 128)]
    shapes += [("lstm", 25, B, H) for H in (512, 1024, 2048, 4096) for B in (16, 32, 64, 128)]
    shapes += [("lstm", 50, B, 1536) for B in (8, 16, 32)] + [("lstm", 150, B, 256) for B in (16, 32, 64)]
    shapes += [("gru", T, 32, H) for H in (2816, 2048, 1536, 2560) for T in (1500, 750, 375, 187)]
    shapes += [("gru", 1500, B, 1024) for B in (32, 64)]
    for dtype in ("float32", "float16"):
        for kind in ("inference", "training"):
            assert not {(*shape, dtype, kind) for shape in shapes} - got


def test_filters_and_quick(gpu: Any) -> None:
    select = gpu("gpu.cases").select
    chosen = select(["packed+gru+training", "overhead+float16"], quick=False)
    assert {case.size for case in chosen} == {"packed", "overhead"}
    assert all(case.dtype == "float16" or (case.cell, case.kind) == ("gru", "training") for case in chosen)
    quick = select([], quick=True)
    assert 10 <= len(quick) <= 30
    assert {case.size for case in quick} >= {"sweep", "overhead", "packed", "both", "stacked"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "persistent"),
        ({"dtype": "bfloat16"}, "standard"),
        ({"cell": "gru"}, "standard"),
        ({"H": 1280}, "standard"),
        ({"B": 12}, "standard"),
        ({"layers": 2}, "standard"),
        ({"H": 128, "dtype": "float32"}, "small"),
        ({"H": 192, "I": 100}, "standard"),
        ({"H": 192, "kind": "inference"}, "small"),
        ({"H": 64, "valid": 0.5}, "standard"),
    ],
)
def test_what_torch_asks_of_cudnn(gpu: Any, changes: dict[str, Any], expected: str) -> None:
    case = gpu("cases").Case("lstm", "training", "sweep", 50, 16, 512, 512, dtype="float16")
    assert gpu("gpu.cases").cudnn_algorithm(replace(case, **changes)) == expected


def test_the_report_names_the_floors_and_what_is_below(gpu: Any) -> None:
    report, cases = gpu("gpu.report"), gpu("gpu.cases").select([], quick=True)
    machine = {"gpu": "A GPU", "cuda": "13.0", "cudnn": 91000, "versions": {}, "commit": "abc", "date": "today"}
    records = []
    for case in cases:
        ratio = 0.5 if case.valid < 1 else 3.0
        time = {"seconds": 1e-3, "quartiles": [9e-4, 1.1e-3], "ratio": ratio}
        times = {"ours": time, "torch": time}
        records.append(
            {**machine, **gpu("gpu.run")._identity(case), "path": "cuda: stepwise", "tflops": 1.0, "times": times}
        )
    records.append({**machine, **asdict(cases[0]), "case": "lost", "error": "differs"})
    records = json.loads(json.dumps(records))
    table, summary = report.table(records), report.summary(records)
    assert "A GPU" in table and "FAILED  lost: differs" in table and table.count("0.50x<") == 2
    assert table.count("stepwise") == len(cases)
    assert "packed batches of sequences of unlike length: 2 of 2 cases below 5x; the worst is 0.50x<" in summary
    assert re.search(r"overhead: T = 1000, H = 64: all \d+ cases above 2x; the worst is 3.00x", summary)


def test_without_a_gpu_the_command_says_why() -> None:
    """On a machine with one, it says that there is no such case."""
    command = [sys.executable, str(BENCH / "compare.py"), "--device", "cuda", "--quick", "--filter", "nothing-has-this"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if cuda.unavailable() is None and torch.cuda.is_available():
        expected = "no case has all words of one of nothing-has-this"
    else:
        expected = "(no GPU can be used: .|torch .* sees no GPU: )"
    assert result.returncode == 1
    assert re.match(rf"compare.py --device cuda: {expected}", result.stderr), result.stderr
