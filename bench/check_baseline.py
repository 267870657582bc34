"""Say what got slower: python bench/check_baseline.py RESULTS.jsonl [--update].

The baseline holds ratios to peers, not seconds: a busy machine slows all of them down. It is kept apart per CPU, ISA
and number of threads. Exit code 0: nothing got slower; 1: something did, or a case failed; 2: nothing to compare with.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import report

BASELINE = Path(__file__).resolve().parent / "baseline.json"
Ratios = dict[str, list[float]]  # peer -> [ratio, half-width of its 95 % interval as a share of the ratio]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--threshold", type=float, default=0.08, help="smallest loss that counts (default 0.08)")
    parser.add_argument("--update", action="store_true", help="write these results into the baseline instead")
    options = parser.parse_args()
    records = report.read(options.results)
    baseline = json.loads(options.baseline.read_text()) if options.baseline.exists() else {}
    if options.update:
        return _update(records, baseline, options.baseline)
    return _compare(records, baseline, options.threshold)


def _key(record: dict[str, Any]) -> str:
    return f"{record['cpu']}/{record['isa']}/{record['threads']}t"


def _ratios(record: dict[str, Any]) -> Ratios:
    """Keep each peer's ratio and its noise: the notch of a box plot, 1.57 IQR / sqrt(rounds)."""
    ratios: Ratios = {}
    for name in report.peers_in([record]):
        time = record["times"][name]
        low, high = time["ratio_quartiles"]
        noise = 1.57 * (high - low) / math.sqrt(time["rounds"]) / time["ratio"]
        ratios[name] = [round(time["ratio"], 4), round(noise, 4)]
    return ratios


def _judged(records: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for record in report.timed(records):
        if record["foreign"] <= report.FOREIGN_LIMIT:
            yield record
        else:
            print(f"not judged  {_key(record)}  {record['case']}: other work took {record['foreign']:.0%} of the cores")


def _update(records: list[dict[str, Any]], baseline: dict[str, Any], path: Path) -> int:
    if any(record["quick"] for record in records):
        print("a --quick run is too short for a baseline")
        return 2
    for record in _judged(records):
        part = baseline.setdefault(_key(record), {"cases": {}})
        part |= {name: record[name] for name in ("commit", "date", "versions")}
        part["cases"][record["case"]] = _ratios(record)
    path.write_text(json.dumps(baseline, indent=1, sort_keys=True) + "\n")
    for key, part in sorted(baseline.items()):
        print(f"{path.name}  {key}: {len(part['cases'])} cases")
    return 0


def change(old: Ratios, new: Ratios) -> tuple[float, float] | None:
    """Return our speed now over then, and its noise, from the peers that both runs have; None where there is none.

    The geometric mean over the peers: one peer that got faster or had a bad round moves it less than our own change.
    """
    common = sorted(old.keys() & new.keys())
    if not common:
        return None
    noise = math.hypot(*(value for name in common for value in (old[name][1], new[name][1]))) / len(common)
    return report.geometric_mean(new[name][0] / old[name][0] for name in common), noise


def _compare(records: list[dict[str, Any]], baseline: dict[str, Any], threshold: float) -> int:
    failed = [record for record in records if "error" in record]
    compared = 0
    slower: list[str] = []
    faster: list[str] = []
    keys = dict.fromkeys(map(_key, report.timed(records)))
    for key in keys:
        if key not in baseline:
            print(f"no baseline for {key}; make one with --update")
    _warn(records, baseline)
    for record in _judged(records):
        key = _key(record)
        old = baseline.get(key, {"cases": {}})["cases"].get(record["case"])
        verdict = change(old, _ratios(record)) if old else None
        if verdict is None:
            continue
        compared += 1
        gain, noise = verdict
        line = f"{key}  {record['case']:<48}{gain:.2f}x the speed of the baseline (noise {noise:.0%})"
        if gain < 1 - max(threshold, 2 * noise):
            slower.append(line)
        elif gain > 1 + max(threshold, 2 * noise):
            faster.append(line)
    for title, lines in (("faster", faster), ("SLOWER", slower)):
        for line in sorted(lines):
            print(f"{title}  {line}")
    for record in failed:
        print(f"FAILED  {record['case']}: {record['error']}")
    print(f"{compared} cases compared, {len(slower)} slower, {len(faster)} faster, {len(failed)} failed")
    if slower or failed:
        return 1
    return 0 if compared else 2


def _warn(records: list[dict[str, Any]], baseline: dict[str, Any]) -> None:
    """Name what else differs from the baseline's run and may move a ratio."""
    seen: set[str] = set()
    for record in report.timed(records):
        part = baseline.get(_key(record))
        if part is None:
            continue
        for name, version in part["versions"].items():
            if name != "fusedrnn" and record["versions"].get(name) not in (None, version):
                seen.add(f"{name} was {version}, is {record['versions'][name]}")
    for line in sorted(seen):
        print(f"note  {line}")


if __name__ == "__main__":
    sys.exit(main())
