"""What the examples share: options, the line about the kernels, and the look of the figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fusedrnn as fr

INK, TRUTH, FAINT = "#333333", "#B4BEC9", "#E9ECEF"  # text; what happened, or what fails; lines
BLUE, ORANGE, GREEN = "#1F5FA8", "#E07B39", "#3C8D5A"
STYLE: dict[str, Any] = {
    "axes.spines.left": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.titlecolor": INK,
    "axes.edgecolor": "#C9CFD6",
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    **{f"{axis}tick.{what}": value for axis in "xy" for what, value in {"labelcolor": INK, "major.size": 0}.items()},
    **{f"figure.constrained_layout.{side}_pad": 0.12 for side in "hw"},
}


def make_parser(doc: str | None, script: str) -> argparse.ArgumentParser:
    """Return a parser with --quick and --out; the figure goes to output/ beside the script, by the script's name."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train for some seconds only")
    out = Path(script).parent / "output" / f"{Path(script).stem}.png"
    parser.add_argument("--out", type=Path, default=out, help="where the figure goes")
    return parser


def print_kernels() -> None:
    """Print what computes."""
    config = fr.config()
    print(f"Kernels  fusedrnn {config['version']}, {config['isa']}, threads: {config['threads']}")


def hold_in_8_bits(metric: Callable[..., float], value: float, *models: Any, form: str = ".1%") -> None:
    """Print the metric of the models' copies with weights in 8 bits; leave if it is more than 0.5 % from the value."""
    found = metric(*map(fr.quantize, models))
    print(f"8 bits   {found:{form}} with weights in 8 bits")
    if not abs(found - value) <= 0.005 * value:
        sys.exit(f"FAILED: weights in 8 bits should not change {value:{form}} by more than 0.5 % of it")


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure of matplotlib, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"Plot     {path}")
