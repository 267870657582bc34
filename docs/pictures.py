"""Draw the pictures of the guide: ``python docs/pictures.py`` writes docs/images/*.png, the same each time."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import fusedrnn as fr
from fusedrnn.diagnostics import gradient_flow, plot_gradient_flow
from fusedrnn.init import RecurrentInit

matplotlib.use("Agg")
matplotlib.rcParams |= {
    "axes.prop_cycle": matplotlib.cycler(color=["#1F5FA8", "#E07B39", "#3C8D5A"]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "savefig.dpi": 130,
}
DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
INK = "#333333"
# Okabe and Ito's colours, which colour-blind readers tell apart.
PEERS = {
    "torch": ("PyTorch", "#D55E00"),
    "onnxruntime": ("ONNX Runtime", "#0072B2"),
    "jax": ("JAX", "#009E73"),
}
SPEED = {
    "lstm/inference/100,1,64,64": "LSTM inference, one sequence, H = 64",
    "lstm/inference/100,32,256,256": "LSTM inference, 32 sequences, H = 256",
    "lstm/training/100,32,256,256": "LSTM training, 32 sequences, H = 256",
    "lstm/training/200,32,64,128/55%-valid": "LSTM training, ragged, H = 128",
    "gru/training/100,32,256,256": "GRU training, 32 sequences, H = 256",
    "lstm/streaming/1,1,32,32": "LSTM, one step per call, H = 32",
}


BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def names_of(page: Path) -> dict[str, Any]:
    """Run the code of a page, so that a picture shows what the page has made; keep the PNG files that it saves."""
    names: dict[str, Any] = {}
    with TemporaryDirectory() as folder, chdir(folder):
        for code in BLOCK.findall(page.read_text()):
            exec(code, names)
        for picture in Path(folder).glob("*.png"):
            shutil.copy(picture, IMAGES)
    return names


@contextmanager
def chdir(folder: str) -> Iterator[None]:
    """Work in a folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def draw_pages() -> None:
    """Run the pages that save pictures of their own."""
    for page in sorted(DOCS.rglob("*.md")):
        if '.png")' in "".join(BLOCK.findall(page.read_text())):
            names_of(page)


def draw_attention() -> None:
    """Draw what each token of the reversed sequence was read from."""
    model = names_of(DOCS / "decoders.md")["model"]
    source = np.array([[5, 2, 6, 4, 3]])
    written = model.generate(source, max_length=8).tokens
    weights = model.attention_weights(source, model.decoder_inputs(written))[0]
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(source[0])), source[0])
    axes.set_yticks(
        range(len(written[0])),
        ["end" if token == model.decoder.end else token for token in written[0]],
    )
    axes.set_xlabel("source", color=INK)
    axes.set_ylabel("target, from top to bottom", color=INK)
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(False)
    figure.savefig(IMAGES / "attention.png", dpi=110)


def draw_memory() -> None:
    """Draw gradients over time of an RNN and an LSTM."""
    x = np.random.default_rng(0).standard_normal((8, 100, 2))
    lstm = fr.LSTM(2, 16, init=RecurrentInit(memory_steps=100), seed=0)
    flows = {
        "RNN": gradient_flow(fr.RNN(2, 16, init="torch", seed=0), x),
        "LSTM": gradient_flow(lstm, x),
    }
    plot_gradient_flow(flows, IMAGES / "gradient_flow.png")


def draw_speed() -> None:
    """Draw the table of README.md: how many times as long the peers take, one core of a Zen 5."""
    lines = (DOCS.parent / "bench" / "results" / "zen5-1t.jsonl").read_text().splitlines()
    times = {
        record["case"]: record["times"] for record in map(json.loads, lines) if "times" in record
    }
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for row, case in enumerate(SPEED):
        peers = [(peer, style) for peer, style in PEERS.items() if peer in times[case]]
        for lane, (peer, (label, colour)) in enumerate(peers):
            ratio, place = times[case][peer]["ratio"], 0.26 * ((len(peers) - 1) / 2 - lane) - row
            axes.barh(
                place,
                ratio - 1,
                left=1,
                height=0.23,
                color=colour,
                label=label if row == 0 else None,
            )
            text = f"{ratio:.2f}" if ratio < 9.95 else f"{ratio:.0f}"
            axes.annotate(
                text,
                (ratio, place),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
            )
    axes.set_yticks([-row for row in range(len(SPEED))], SPEED.values())
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.set(xlim=(1, 55), xticks=[1, 2, 5, 10, 20, 50])
    axes.xaxis.set_major_formatter("{x:g}\N{MULTIPLICATION SIGN}")
    axes.minorticks_off()
    axes.set_xlabel("how many times as long as fusedrnn", color=INK)
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=INK)
    figure.savefig(IMAGES / "speed.png", dpi=130)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    draw_attention()
    draw_memory()
    draw_speed()
    draw_pages()
