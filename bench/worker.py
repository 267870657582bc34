"""One measuring process: pinned, one number of threads, every implementation in it; one JSON line a case.

`compare.py` starts it, because thread pools take their size from the environment and the affinity mask once, at import.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import harness

CPUS: list[int] = []

# float32: outputs elementwise, gradients by the norm of the difference over the norm. The paths differ in the order of
# their sums and in their exp; 1e-6 is common, a wrong gate or a dropped step is above 1e-2. bfloat16 keeps 8 bits. With
# int8 each rounds in its own way, and how far it is from float32 is a result (`errors`).
TOLERANCE = {"float32": (1e-5, 1e-4), "bfloat16": (4e-2, 8e-2), "int8": (2e-1, 0)}


class Mismatch(Exception):
    """Two implementations disagree."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--peers", nargs="*", required=True)
    parser.add_argument("--filter", nargs="*", default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    CPUS[:] = harness.pin(options.threads)

    # Only now: importing makes thread pools.
    from threadpoolctl import threadpool_limits

    import fusedrnn as fr
    import peers
    from cases import make_problem, random_cases, select, select_from

    threadpool_limits(options.threads)
    implementations = {}
    for name in ("ours", *options.peers):
        try:
            implementations[name] = peers.load(name)
        except ImportError as error:
            if name == "ours":
                raise
            print(f"  {name}: not installed ({error})", file=sys.stderr)
            continue
        implementations[name].configure(options.threads)
    config = fr.config()
    record = harness.describe(peers.PACKAGES) | {
        "threads": options.threads,
        "pinned": CPUS,
        "isa": config["isa"],
        "config": config,
        "quick": options.quick,
        "device": "cpu",
    }
    budget = harness.QUICK if options.quick else harness.FULL
    roofs = {dtype: harness.Roof(fr._core.fma_peak, options.threads, dtype) for dtype in ("float32", "int8")}
    if options.random:
        chosen = select_from(random_cases(options.random, options.seed), options.filter)
    else:
        chosen = select(options.filter, quick=options.quick)
    with options.out.open("a") as out:
        for number, case in enumerate(chosen, 1):
            print(
                f"\r\033[K  {options.threads} thread(s)  {number}/{len(chosen)}  {case.name}", end="", file=sys.stderr
            )
            sys.stderr.flush()
            if why := implementations["ours"].refuses(case):
                result: dict[str, Any] = {"skipped": why}
            else:
                roof = roofs.get(case.dtype, roofs["float32"])
                result = measure(case, make_problem(case), implementations, budget, roof)
            out.write(json.dumps({**_identity(case), **result, **record}, default=str) + "\n")
            out.flush()
            if "error" in result:
                print(f"\r\033[K  {case.name}: {result['error']}", file=sys.stderr)
    print("\r\033[K", end="", file=sys.stderr)


def _identity(case: Any) -> dict[str, Any]:
    return {
        "case": case.name,
        "group": case.group,
        "kind": case.kind,
        "size": case.size,
        "shape": case.shape,
        "flops": case.flops,
        "valid": case.sample_steps / (case.T * case.B),
    }


def measure(
    case: Any, problem: Any, implementations: dict[str, Any], budget: harness.Budget, roof: Any
) -> dict[str, Any]:
    """Check that all implementations agree, then time them; {"error": ...} where one does not."""
    runners = {name: peer.build(case, problem) for name, peer in implementations.items() if not peer.refuses(case)}
    try:
        expected = runners["ours"].check()
        agreement = {
            name: worst(case.dtype, name, expected, runner.check())
            for name, runner in runners.items()
            if name != "ours"
        }
    except Mismatch as error:
        return {"error": str(error)}
    calls = {name: runner.call for name, runner in runners.items()}
    ours = implementations["ours"]
    errors = {}
    if case.dtype == "int8":
        truth = ours.build(case.single_precision(), problem).check()
        for name, runner in runners.items():
            errors[name] = max(float(abs(value - truth[key]).max()) for key, value in runner.check().items())
    if case.valid < 1:
        calls["ours_dense"] = ours.build(case.dense(), replace(problem, lengths=None)).call
    if case.dtype != "float32":
        calls["ours_float32"] = ours.build(case.single_precision(), problem).call
    foreign = harness.Foreign(CPUS)
    timings, roofs = harness.interleave(calls, budget, roof=roof)
    gflops = case.flops / timings["ours"].median * 1e-9
    times = {}
    for name, timing in timings.items():
        first, third = timing.quartiles
        ratio, low, high = harness.paired_ratio(timing, timings["ours"])
        times[name] = {
            "seconds": timing.median,
            "quartiles": [first, third],
            "rounds": len(timing.rounds),
            "samples": len(timing.samples),
            "ratio": ratio,
            "ratio_quartiles": [low, high],
        }
    peak = median(roofs)
    return {
        "times": times,
        "gflops": gflops,
        "peak_gflops": peak,
        "peak_share": gflops / peak,
        "difference": agreement,
        **({"errors": errors} if errors else {}),
        "foreign": round(foreign.share(), 3),
    }


def worst(dtype: str, name: str, expected: dict[str, Any], got: dict[str, Any]) -> float:
    """Return the largest difference as a share of its tolerance (see TOLERANCE); raise Mismatch above 1."""
    import numpy as np

    absolute, relative = TOLERANCE[dtype]
    if expected.keys() != got.keys():
        raise Mismatch(f"{name} returns {sorted(got)}, ours {sorted(expected)}")
    largest = 0.0
    for key, ours in expected.items():
        theirs = got[key]
        if ours.shape != theirs.shape:
            raise Mismatch(f"{key}: {name} has shape {theirs.shape}, ours {ours.shape}")
        if key in ("y", "h"):
            difference = float(np.max(np.abs(ours - theirs), initial=0)) / absolute
        else:
            norm = float(np.linalg.norm(theirs)) or 1.0
            difference = float(np.linalg.norm(ours - theirs)) / norm / relative
        if not difference <= 1:
            raise Mismatch(f"{key}: ours and {name} differ by {difference:.3g} times the tolerance; not timed")
        largest = max(largest, difference)
    return largest


if __name__ == "__main__":
    main()
