"""Draw the pictures of the guide: ``python docs/pictures.py`` writes docs/images/*.png, the same each time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import fusedrnn as fr
from fusedrnn.diagnostics import gate_trace, gradient_flow, plot_gradient_flow
from fusedrnn.init import RecurrentInit

DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
INK = "#333333"


def names_of(page: str) -> dict[str, Any]:
    """Run the code of a page, so that a picture shows what the page has made."""
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL):
        exec(code, names)
    return names


def draw_attention() -> None:
    """Draw what each token of the reversed sequence was read from."""
    model = names_of("decoders.md")["model"]
    source = np.array([[5, 2, 6, 4, 3]])
    written = model.generate(source, max_length=8).tokens
    weights = model.attention_weights(source, model.decoder_inputs(written))[0]
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(source[0])), source[0])
    axes.set_yticks(range(len(written[0])), ["end" if token == model.decoder.end else token for token in written[0]])
    axes.set_xlabel("source", color=INK)
    axes.set_ylabel("target, from top to bottom", color=INK)
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(False)
    figure.savefig(IMAGES / "attention.png", dpi=110)


def draw_memory() -> None:
    """Draw gradients over time of an RNN and an LSTM, and the gates of an LSTM."""
    x = np.random.default_rng(0).standard_normal((8, 100, 2))
    lstm = fr.LSTM(2, 16, init=RecurrentInit(memory_steps=100), seed=0)
    flows = {"RNN": gradient_flow(fr.RNN(2, 16, init="torch", seed=0), x), "LSTM": gradient_flow(lstm, x)}
    plot_gradient_flow(flows, IMAGES / "gradient_flow.png")
    gate_trace(fr.LSTM(2, 16, seed=0), x).plot(IMAGES / "gates.png")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    draw_attention()
    draw_memory()
