"""What a person reads: the table, the geometric means, what our own figures say about each other, and the plot."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peers import PEERS

Record = dict[str, Any]
FOREIGN_LIMIT = 0.05  # above this share of the cores taken by other work, a figure is marked as disturbed


def read(path: Path) -> list[Record]:
    """Read a results file: one JSON object a line."""
    with path.open() as lines:
        return [json.loads(line) for line in lines if line.strip()]


def timed(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if "times" in record]


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs))


def peers_in(records: Iterable[Record]) -> list[str]:
    present = {name for record in records for name in record["times"]}
    return [name for name in PEERS if name in present]


def milliseconds(seconds: float) -> str:
    """Three significant digits, without an exponent."""
    value = seconds * 1e3
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def factor(ratio: float) -> str:
    """Return the ratio; below 1 it is marked, so that a lost case catches the eye."""
    text = f"{ratio:.0f}" if ratio >= 99.5 else f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"
    return f"{text}x" if ratio >= 1 else f"{text}x<"


def table(records: list[Record]) -> str:
    """All cases, one block per number of threads and group; peers as "milliseconds  ratio to ours"."""
    lines: list[str] = []
    for threads in sorted({record["threads"] for record in records}):
        mine = [record for record in records if record["threads"] == threads]
        done = timed(mine)
        if done:
            first = done[0]
            peaks: dict[str, float] = {}
            for record in done:
                dtype = "int8" if "errors" in record else "float32"
                peaks[dtype] = max(peaks.get(dtype, 0), record["peak_gflops"])
            rates = " and ".join(f"{peak:.0f} GFLOP/s {dtype}" for dtype, peak in peaks.items())
            lines += [
                "",
                f"{first['cpu']}, {first['isa']}, {threads} thread{'s' * (threads > 1)}, "
                f"peak {rates}, commit {first['commit']}, {first['date']}",
            ]
        names = peers_in(done)
        head = f"{'T,B,I,H':<18}{'ours ms':>9}{'±':>5}{'GFLOP/s':>9}{'peak':>6}"
        head += "".join(f" {name:>11} ms{'ratio':>7}" for name in names)
        for group in dict.fromkeys(record["group"] for record in done):
            lines += ["", f"{group}", head]
            lines += [_row(record, names) for record in done if record["group"] == group]
        for record in mine:
            if "error" in record:
                lines.append(f"FAILED  {record['case']}: {record['error']}")
        skipped = {record["skipped"]: 0 for record in mine if "skipped" in record}
        for record in mine:
            if "skipped" in record:
                skipped[record["skipped"]] += 1
        lines += [f"skipped {count} cases: {why}" for why, count in skipped.items()]
    return "\n".join(lines)


def _row(record: Record, names: list[str]) -> str:
    ours = record["times"]["ours"]
    low, high = ours["quartiles"]
    spread = (high - low) / 2 / ours["seconds"]
    text = f"{record['shape']:<18}{milliseconds(ours['seconds']):>9}{spread:>5.0%}"
    text += f"{record['gflops']:>9.1f}{record['peak_share']:>6.0%}"
    for name in names:
        peer = record["times"].get(name)
        text += (
            f"{'-':>15}{'':>7}" if peer is None else f"{milliseconds(peer['seconds']):>15}{factor(peer['ratio']):>7}"
        )
    if "errors" in record:
        text += "   error " + " ".join(f"{record['errors'].get(name, math.nan):.1e}" for name in ["ours", *names])
    return text + (f"  ! {record['foreign']:.0%} other work" if record["foreign"] > FOREIGN_LIMIT else "")


def summary(records: list[Record]) -> str:
    """Geometric means of the ratios per group, the lost cases, and our own figures against each other."""
    done = timed(records)
    if not done:
        return "nothing was timed"
    names = peers_in(done)
    lines = ["", "Geometric mean of (time of the peer / our time)"]
    lines.append(
        f"{'':<40}{'threads':>8}{'cases':>7}" + "".join(f"{name:>13}" for name in names) + f"{'best peer':>13}"
    )
    keys = dict.fromkeys((record["group"], record["threads"]) for record in done)
    for group, threads in sorted(keys, key=lambda key: key[1]):
        lines.append(_means(group, [r for r in done if (r["group"], r["threads"]) == (group, threads)], names))
    for threads in sorted({record["threads"] for record in done}):
        lines.append(_means("all", [r for r in done if r["threads"] == threads], names))
    lost = [(_best_peer(record), record) for record in done if _best_peer(record) < 1]
    if lost:
        lines += ["", "Slower than the fastest peer"]
        lines += [
            f"{r['case']:<48}{r['threads']} thread(s)  {ratio:.2f}x" for ratio, r in sorted(lost, key=lambda x: x[0])
        ]
    return "\n".join(lines + _own(done))


def _best_peer(record: Record) -> float:
    return min((record["times"][name]["ratio"] for name in peers_in([record])), default=math.inf)


def _means(label: str, records: list[Record], names: list[str]) -> str:
    text = f"{label:<40}{records[0]['threads']:>8}{len(records):>7}"
    for name in names:
        ratios = [record["times"][name]["ratio"] for record in records if name in record["times"]]
        text += f"{factor(geometric_mean(ratios)) if ratios else '-':>13}"
    best = [ratio for ratio in map(_best_peer, records) if ratio < math.inf]
    return text + f"{factor(geometric_mean(best)) if best else '-':>13}"


def _own(done: list[Record]) -> list[str]:
    """Our figures against our own: ragged against dense, 8 and 16 bits against float32, two threads against one."""
    lines: list[str] = []
    for record in done:
        times = record["times"]
        where = f"{record['case']:<48}{record['threads']} thread(s)"
        if "ours_dense" in times:
            cost = 1 / times["ours_dense"]["ratio"]
            share = record["valid"]
            lines.append(
                f"{where}  costs {cost:.2f} of the dense batch, {cost / share:.2f}x its valid share {share:.2f}"
            )
        if "ours_float32" in times:
            lines.append(f"{where}  {times['ours_float32']['ratio']:.2f}x as fast as our float32")
    single = {record["case"]: record["times"]["ours"]["seconds"] for record in done if record["threads"] == 1}
    for record in done:
        if record["threads"] > 1 and record["case"] in single:
            gain = single[record["case"]] / record["times"]["ours"]["seconds"]
            lines.append(f"{record['case']:<48}{record['threads']} thread(s)  {gain:.2f}x as fast as 1 thread")
    return ["", "Ours against ours", *lines] if lines else []
