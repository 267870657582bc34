"""The picture for the README: every case of a run, as the ratio of each peer's time to ours, on a log axis."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from report import Record, geometric_mean, peers_in, timed

# Okabe and Ito's colours: told apart by colour-blind readers; the markers say the same once more.
STYLE = {
    "torch": ("PyTorch", "#D55E00", "o"),
    "onnxruntime": ("ONNX Runtime", "#0072B2", "s"),
    "jax": ("JAX", "#009E73", "D"),
    "keras": ("Keras / TensorFlow", "#CC79A7", "^"),
    "onnxruntime-int8": ("ONNX Runtime, 8 bits", "#56B4E9", "s"),
    "torch-int8": ("PyTorch, 8 bits", "#E69F00", "o"),
}
PANELS = {"inference": "Inference", "training": "Training (forward + backward)"}
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
TIMES = "\N{MULTIPLICATION SIGN}"
INK, FAINT = "#222222", "#8A8A8A"


def draw(records: list[Record], stem: Path) -> list[Path]:
    """Write one PNG per number of threads, <stem>-<n>t.png; return their paths."""
    paths = []
    for threads in sorted({record["threads"] for record in timed(records)}):
        path = stem.with_name(f"{stem.name}-{threads}t.png")
        _figure([record for record in timed(records) if record["threads"] == threads], path)
        paths.append(path)
    return paths


def _rows(records: list[Record]) -> list[tuple[str, str]]:
    """Return (heading, shape) per row, the shape of a heading's own row empty; streaming sits in the left panel."""
    rows: dict[tuple[str, str], None] = {}
    for heading in dict.fromkeys(_heading(record) for record in records):
        rows[heading, ""] = None
        rows.update({(heading, r["shape"]): None for r in records if _heading(r) == heading})
    return list(rows)


def _heading(record: Record) -> str:
    words = record["group"].split()
    return " ".join(word for word in words if word not in PANELS)


def _panel(record: Record) -> str:
    return "training" if record["kind"] == "training" else "inference"


def _figure(records: list[Record], path: Path) -> None:
    rows = _rows(records)
    position = {row: -index for index, row in enumerate(rows)}
    height = 0.2 * len(rows) + 2.2
    figure, axes = plt.subplots(1, 2, sharey=True, sharex=True, figsize=(11, height), constrained_layout=True)
    extremes = [1.0]
    for axis, (panel, title) in zip(axes, PANELS.items(), strict=True):
        mine = [record for record in records if _panel(record) == panel]
        _lanes(axis, rows, position)
        for name in peers_in(records):
            extremes += _points(axis, mine, position, name)
        axis.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    low, high = min(0.45, 0.8 * min(extremes)), max(4.0, 1.25 * max(extremes))
    for axis in axes:
        _scale(axis, low, high, rows)
    axes[0].set_yticks([position[row] for row in rows], [shape or heading for heading, shape in rows])
    for label, (_, shape) in zip(axes[0].get_yticklabels(), rows, strict=True):
        label.set(fontsize=8, color=INK, fontweight="normal" if shape else "bold")
    _words(figure, records)
    figure.savefig(path, dpi=150, facecolor="white")
    plt.close(figure)


def _lanes(axis: Any, rows: list[tuple[str, str]], position: dict[tuple[str, str], int]) -> None:
    for row in rows:
        if row[1]:
            axis.axhline(position[row], color="#EEEEEE", linewidth=0.8, zorder=0)


def _points(axis: Any, records: list[Record], position: dict[tuple[str, str], int], name: str) -> list[float]:
    """Draw one peer's ratios with the quartiles of the rounds as whiskers; return the ratios."""
    mine = [record for record in records if name in record["times"]]
    _, colour, marker = STYLE[name]
    ys = [position[_heading(record), record["shape"]] for record in mine]
    ratios = [record["times"][name]["ratio"] for record in mine]
    for y, record in zip(ys, mine, strict=True):
        axis.plot(record["times"][name]["ratio_quartiles"], [y, y], color=colour, linewidth=1.4, alpha=0.55, zorder=2)
    axis.scatter(ratios, ys, s=26, color=colour, marker=marker, edgecolor="white", linewidth=0.5, label=name, zorder=3)
    return ratios


def _scale(axis: Any, low: float, high: float, rows: list[tuple[str, str]]) -> None:
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.set_ylim(-len(rows) + 0.2, 0.9)
    axis.axvspan(low, 1, color="#F7ECEA", zorder=-1)
    axis.axvline(1, color=INK, linewidth=1.2, zorder=1)
    axis.xaxis.set_major_locator(FixedLocator([tick for tick in TICKS if low <= tick <= high]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{TIMES}"))
    axis.tick_params(length=0, labelsize=8, colors=INK)
    axis.grid(axis="x", color="#E3E3E3", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.text(0.94, 0.35, "peer faster", ha="right", fontsize=7.5, color="#A34A3A", va="center")
    axis.text(1.06, 0.35, "fusedrnn faster", ha="left", fontsize=7.5, color=FAINT, va="center")


def _words(figure: Any, records: list[Record]) -> None:
    first = records[0]
    threads = f"{first['threads']} thread{'s' * (first['threads'] > 1)}"
    handles, names = figure.axes[0].get_legend_handles_labels()
    labels = [f"{STYLE[name][0]} (geometric mean {_mean(records, name):.1f}{TIMES})" for name in names]
    title = f"How many times as long as fusedrnn each peer takes, {threads}\n"  # its empty second line is the legend's
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK)
    below_title = (0.0, 1 - 0.24 / figure.get_figheight())
    style = {"frameon": False, "fontsize": 8.5, "handletextpad": 0.2}
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=below_title, ncols=len(labels), **style)
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    note = (
        f"{first['cpu']}, {first['isa']}, {first['date'][:10]}, commit {first['commit']}; {versions}. "
        f"float32 unless a heading says otherwise; rows: T, B, I, H. All {len(records)} cases of the run; medians, "
        "interleaved on pinned cores; whiskers: quartiles over the rounds."
    )
    figure.supxlabel("\n".join(textwrap.wrap(note, 165)), x=0.01, ha="left", fontsize=7.5, color=FAINT)


def _mean(records: list[Record], name: str) -> float:
    return geometric_mean(record["times"][name]["ratio"] for record in records if name in record["times"])
