"""What the variants of cells cost beside their plain cell.

    python bench/variants.py --quick
    python bench/variants.py                 # on an idle machine: the figures to quote

The variant and the plain cell of the same sizes take turns in one process, on one thread; a figure is the ratio of a
pair of turns, its median and quartiles. A projected LSTM is smaller than the plain one beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import fusedrnn as fr
from harness import FULL, QUICK, interleave, paired_ratio, pin

SIZES = [
    (100, 1, 16),
    (100, 1, 64),
    (100, 1, 128),
    (50, 1, 256),
    (50, 32, 64),
    (50, 8, 128),
    (30, 32, 256),
    (20, 64, 512),
]
VARIANTS: list[tuple[str, Any, dict[str, Any]]] = [
    ("RNN elu", fr.RNN, {"activations": ["elu"]}),
    ("RNN recurrent_dropout", fr.RNN, {"recurrent_dropout": 0.25}),
    ("LSTM clip", fr.LSTM, {"clip": 50.0}),
    ("LSTM peephole", fr.LSTM, {"peephole": True}),
    ("LSTM coupled", fr.LSTM, {"coupled": True}),
    ("LSTM hard_sigmoid", fr.LSTM, {"activations": ["hard_sigmoid", "tanh", "tanh"]}),
    ("LSTM proj_size = H/2", fr.LSTM, {"proj_size": -1}),
    ("LSTM recurrent_dropout", fr.LSTM, {"recurrent_dropout": 0.25}),
    ("LSTM on candidate", fr.LSTM, {"recurrent_dropout": 0.25, "recurrent_dropout_on": "candidate"}),
    ("LSTM zoneout", fr.LSTM, {"zoneout": 0.1}),
    ("LSTM layer_norm", fr.LSTM, {"layer_norm": True}),
    ("GRU clip", fr.GRU, {"clip": 50.0}),
    ("GRU reset_after=False", fr.GRU, {"reset_after": False}),
    ("GRU recurrent_dropout", fr.GRU, {"recurrent_dropout": 0.25}),
    ("GRU zoneout", fr.GRU, {"zoneout": 0.1}),
    ("GRU layer_norm", fr.GRU, {"layer_norm": True}),
]


def training(layer: Any, x: np.ndarray[Any, Any]) -> Callable[[], object]:
    """Return a call of forward and backward."""

    def call() -> None:
        (y, _), tape = layer.forward(x)
        layer.backward(tape, y)

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less time for each case")
    parser.add_argument("--filter", default="", help="variants whose name has this")
    arguments = parser.parse_args()
    pin(1)
    fr.set_num_threads(1)
    budget = QUICK if arguments.quick else FULL
    print("| T, B, H | variant | inference (quartiles) | training (quartiles) |\n|---|---|---|---|")
    for steps, batch, hidden in SIZES:
        x = np.random.default_rng(0).normal(0, 1, (batch, steps, hidden)).astype(np.float32)
        for name, cell, options in VARIANTS:
            if arguments.filter not in name:
                continue
            made = options | ({"proj_size": hidden // 2} if "proj_size" in options else {})
            plain, variant = cell(hidden, hidden, seed=1), cell(hidden, hidden, seed=1, **made)
            cells = []
            for one, other in (
                (lambda layer=plain, x=x: layer(x), lambda layer=variant, x=x: layer(x)),
                (training(plain, x), training(variant, x)),
            ):
                timings, _ = interleave({"plain": one, "variant": other}, budget)
                ratio, low, high = paired_ratio(timings["variant"], timings["plain"])
                cells.append(f"{ratio:.2f} ({low:.2f} to {high:.2f})")
            print(f"| {steps}, {batch}, {hidden} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
