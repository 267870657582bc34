"""Measure fusedrnn beside every installed peer: python bench/compare.py --help."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import harness
import report
from peers import PEERS

HERE = Path(__file__).resolve().parent


def main() -> int:
    options = _arguments()
    if options.fit:
        return _fit(options)
    if options.device == "cuda":
        from gpu.run import main as run_on_gpu

        return run_on_gpu(options)
    if options.torch_module:
        import torch_module

        return torch_module.main(options.quick, options.threads)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: other work is running here (load {load:.1f}); these figures are not to be quoted\n")
    out = options.out or HERE / "results" / time.strftime("%Y%m%d-%H%M%S.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        raise SystemExit(f"{out} exists; name another file with --out")

    began = time.monotonic()
    status = 0
    for threads in options.threads:
        try:
            harness.separate_cores(threads)
        except RuntimeError as error:
            raise SystemExit(str(error)) from None
        command = [sys.executable, str(HERE / "worker.py"), "--threads", str(threads), "--out", str(out)]
        command += ["--peers", *options.peers, "--filter", *options.filter] + ["--quick"] * options.quick
        command += ["--random", str(options.random), "--seed", str(options.seed)]
        status |= subprocess.run(command, env=harness.environment(threads, options.isa)).returncode
    if not out.exists():
        return 1
    records = report.read(out)
    print(report.table(records))
    print(report.summary(records))
    print(f"\n{time.monotonic() - began:.0f} s; {out}")
    if options.plot and report.timed(records):
        import plot

        for path in plot.draw(records, out.with_suffix("")):
            print(path)
    return 1 if status or any("error" in record for record in records) else 0


def _fit(options: argparse.Namespace) -> int:
    """Measure whole steps of training in a process for each number of threads."""
    code = "import sys, torch, fit; torch.set_num_threads({0}); sys.exit(fit.main({1}, {2}, {3}, {4}))"
    status = 0
    for threads in options.threads:
        print(f"\n{threads} thread{'s' * (threads > 1)}")
        call = code.format(threads, *((5, 3.0) if options.quick else (40, 8.0)), options.filter, options.profile)
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r}); {call}"]
        status |= subprocess.run(command, env=harness.environment(threads, options.isa)).returncode
    return status


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time fusedrnn and its peers side by side, after comparing their results."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a dozen cases, short: under a minute; for a first look only"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, help="default: all installed; without keras in --quick (slow to import)"
    )
    parser.add_argument(
        "--filter",
        nargs="+",
        default=[],
        metavar="WORDS",
        help="cases with these words: lstm+training odd gru+inference+100,1",
    )
    parser.add_argument(
        "--random", type=int, default=0, metavar="N", help="N cases of random cells, variants and sizes, not the grid"
    )
    parser.add_argument("--seed", type=int, default=0, help="which random cases")
    parser.add_argument("--fit", action="store_true", help="whole steps of fit beside PyTorch's loop, not the kernels")
    parser.add_argument("--profile", action="store_true", help="with --fit: where a step spends its time")
    parser.add_argument("--isa", help="force an ISA (FUSEDRNN_ISA); avx2 also holds the peers to it that can be held")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cpu", help="cuda: beside torch (cuDNN) on a GPU, see README.md"
    )
    parser.add_argument(
        "--torch-module", action="store_true", help="fusedrnn.torch beside torch.nn: steps with Adam, packed, resets"
    )
    parser.add_argument("--out", type=Path, help="results file; default bench/results/<date>.jsonl")
    parser.add_argument("--no-plot", dest="plot", action="store_false")
    options = parser.parse_args()
    if options.peers is None:
        options.peers = [name for name in PEERS if not (options.quick and name == "keras")]
    return options


if __name__ == "__main__":
    sys.exit(main())
