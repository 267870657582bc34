"""What a person reads of the measurements on a GPU: the table, the geometric means, and the promised floors."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cases import Case
from gpu.cases import FLOORS
from report import factor, geometric_mean, milliseconds, timed

Record = dict[str, Any]


def outcome(record: Record) -> str:
    """One case in one line."""
    if "error" in record:
        return f"FAILED: {record['error']}"
    times = record["times"]
    return (
        f"{milliseconds(times['ours']['seconds'])} ms, "
        f"torch {milliseconds(times['torch']['seconds'])} ms, {factor(times['torch']['ratio'])}"
    )


def table(records: list[Record]) -> str:
    """All cases, a block for each group; below 1x torch is faster."""
    lines = []
    if records:
        first = records[0]
        versions = f"CUDA {first['cuda']}, cuDNN {first['cudnn']}, torch {first['versions'].get('torch')}"
        lines.append(f"\n{first['gpu']}, {versions}, commit {first['commit']}, {first['date']}")
    head = f"{'T,B,I,H':<20}{'ours ms':>9}{'±':>5}{'TFLOP/s':>9}{'torch ms':>10}{'ratio':>8}  {'cuDNN':<11}our path"
    done = timed(records)
    for group in dict.fromkeys(record["group"] for record in done):
        lines += ["", group, head]
        lines += [_row(record) for record in done if record["group"] == group]
    lines += [f"FAILED  {record['case']}: {record['error']}" for record in records if "error" in record]
    return "\n".join(lines)


def summary(records: list[Record]) -> str:
    """Geometric means by group, and the worst case of each floor."""
    done = timed(records)
    lines = ["", "geometric mean of torch's time over ours"]
    for group in dict.fromkeys(record["group"] for record in done):
        ratios = [record["times"]["torch"]["ratio"] for record in done if record["group"] == group]
        lines.append(f"{group:<45}{factor(geometric_mean(ratios)):>8}  ({len(ratios)} cases)")
    lines += ["", "floors"]
    for what, concerns, least in FLOORS:
        by_case = {record["case"]: record["times"]["torch"]["ratio"] for record in done if concerns(_case(record))}
        if not by_case:
            lines.append(f"{what}: not measured")
            continue
        below, worst = sum(ratio < least for ratio in by_case.values()), min(by_case, key=by_case.__getitem__)
        verdict = f"{below} of {len(by_case)} cases below" if below else f"all {len(by_case)} cases above"
        lines.append(f"{what}: {verdict} {least:g}x; the worst is {factor(by_case[worst])}, {worst}")
    return "\n".join(lines)


def _row(record: Record) -> str:
    times = record["times"]
    mine, other = times["ours"], times["torch"]
    low, high = mine["quartiles"]
    spread = f"{50 * (high - low) / mine['seconds']:.0f}%"
    path = record["path"].removeprefix("cuda: ")
    shape = ",".join(str(record[name]) for name in ("T", "B", "I", "H"))
    return (
        f"{shape:<20}{milliseconds(mine['seconds']):>9}{spread:>5}{record['tflops']:>9.2f}"
        f"{milliseconds(other['seconds']):>10}{factor(other['ratio']):>8}  {record['cudnn_algorithm']:<11}{path}"
    )


def _case(record: Record) -> Case:
    return Case(**{field.name: record[field.name] for field in fields(Case)})
