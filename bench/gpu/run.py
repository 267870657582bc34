"""Measure on a GPU: one process, both implementations, one JSON line a case."""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

import harness
from cases import Case
from gpu import report
from gpu.cases import cudnn_algorithm, select
from gpu.implementations import allow_tf32, make_problem, ours, theirs
from gpu.timing import FULL, QUICK, Budget, Clock, Events, interleave

PACKAGES = ("fusedrnn", "numpy", "torch")

# y: elementwise; gradients: the norm of the difference over the norm. float32: what torch allows cuDNN beside its own
# CPU kernels. The others keep 10 bits (tf32, float16) or 7 (bfloat16) of each factor; a wrong gate is off by over 0.1.
TOLERANCE = {"float32": (5e-5, 5e-4), "tf32": (5e-3, 2e-2), "float16": (1e-2, 2e-2), "bfloat16": (4e-2, 8e-2)}


class Mismatch(Exception):
    """The two implementations disagree."""


def main(options: Namespace) -> int:
    """Run the cases that the options choose; return the exit status."""
    torch = _torch()
    from fusedrnn.cuda.stack import Stack

    cases = select(options.filter, quick=options.quick)
    if not cases:
        raise SystemExit(f"compare.py --device cuda: no case has all words of one of {' '.join(options.filter)}")
    machine = _machine(torch)
    slug = re.sub(r"[^a-z0-9]+", "-", machine["gpu"].lower()).strip("-")
    out = options.out or Path(__file__).parents[1] / "results" / f"{slug}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        raise SystemExit(f"{out} exists; name another file with --out")
    began = time.monotonic()
    records = []
    with out.open("x") as file:
        for number, case in enumerate(cases, 1):
            measured = run_case(torch, case, "cuda", Stack, Events(torch), QUICK if options.quick else FULL)
            records.append({**machine, **_identity(case), **measured})
            file.write(json.dumps(records[-1]) + "\n")
            file.flush()  # what is measured stays, should time run out
            print(f"[{number}/{len(cases)}] {case.name}: {report.outcome(records[-1])}", file=sys.stderr, flush=True)
            torch.cuda.empty_cache()
    print(report.table(records))
    print(report.summary(records))
    print(f"\n{time.monotonic() - began:.0f} s; {out}")
    return 1 if any("error" in record for record in records) else 0


def run_case(torch: Any, case: Case, device: str, make_stack: Any, clock: Clock, budget: Budget) -> dict[str, Any]:
    """Compare the results of both, then time them; {"error": why} where they differ or one cannot."""
    try:
        problem = make_problem(torch, case, device)
        allow_tf32(torch, case.dtype == "tf32")
        runners = {"ours": ours(torch, case, problem, make_stack), "torch": theirs(torch, case, problem)}
        difference = worst(torch, case.dtype, *(runner.results() for runner in runners.values()))
        timings = interleave({name: runner.call for name, runner in runners.items()}, clock, budget)
    except (Mismatch, RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        return {"error": (str(error).strip() or type(error).__name__).splitlines()[0]}
    times = {}
    for name, timing in timings.items():
        ratio, low, high = harness.paired_ratio(timing, timings["ours"])
        times[name] = {
            "seconds": timing.median,
            "quartiles": timing.quartiles,
            "rounds": len(timing.rounds),
            "ratio": ratio,
            "ratio_quartiles": [low, high],
        }
    tflops = case.flops / timings["ours"].median * 1e-12
    return {"path": runners["ours"].path, "times": times, "difference": difference, "tflops": tflops}


def worst(torch: Any, dtype: str, expected: dict[str, Any], got: dict[str, Any]) -> float:
    """Return the largest difference as a share of its tolerance; raise Mismatch above 1."""
    absolute, relative = TOLERANCE[dtype]
    if expected.keys() != got.keys():
        raise Mismatch(f"torch returns {sorted(got)}, ours {sorted(expected)}")
    largest = 0.0
    for key, mine in expected.items():
        other = got[key]
        if mine.shape != other.shape:
            raise Mismatch(f"{key}: torch has shape {tuple(other.shape)}, ours {tuple(mine.shape)}")
        apart = (mine - other).float()
        if key == "y":
            difference = float(apart.abs().max()) / absolute
        else:
            difference = float(apart.norm()) / (float(other.float().norm()) or 1.0) / relative
        if not difference <= 1:
            raise Mismatch(f"{key}: ours and torch differ by {difference:.3g} times the tolerance; not timed")
        largest = max(largest, difference)
    return largest


def _torch() -> Any:
    """Return torch, if it and the kernels can use a GPU; say what is missing, if not."""
    from fusedrnn import cuda

    reason = cuda.unavailable()
    if reason is not None:
        raise SystemExit(f"compare.py --device cuda: no GPU can be used: {reason}")
    try:
        import torch
    except ImportError:
        raise SystemExit("compare.py --device cuda: torch is not installed: pip install torch") from None
    if not torch.cuda.is_available():
        raise SystemExit(f"compare.py --device cuda: torch {torch.__version__} sees no GPU: install a build with CUDA")
    return torch


def _machine(torch: Any) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return harness.describe(PACKAGES) | {
        "device": "cuda",
        "gpu": properties.name,
        "capability": [properties.major, properties.minor],
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _identity(case: Case) -> dict[str, Any]:
    return {"case": case.name, "group": case.group, "cudnn_algorithm": cudnn_algorithm(case), **asdict(case)}
