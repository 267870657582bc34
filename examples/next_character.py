"""Learn to write like the Python manual, one character after the other, and count the bits that each one costs.

An LSTM reads the manual's text and predicts, at every character, the next one. A perfect compressor that knew its
probabilities would spend -log2 p bits on each character of text that it never saw. The baseline, a bigram model, knows
how often each character follows each other one.

    python examples/next_character.py             # two minutes; saves examples/output/next_character.png
    python examples/next_character.py --quick     # some seconds

Data: the help texts of the standard library, pydoc_data.topics. The exit code is not 0 unless the LSTM wins clearly.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import INK, ORANGE, make_parser, print_kernels, save_figure

import fusedrnn as fr
from fusedrnn.layers.activation import softmax

Array = NDArray[Any]
MAX_BITS = 8.0  # of the scale of the figure


def read_text() -> str:
    """Return the help texts without tables; what several topics share comes once, so that none is learnt and judged."""
    paragraphs = dict.fromkeys(part for topic in topics.values() for part in topic.split("\n\n"))
    return "\n\n".join(part for part in paragraphs if "+-" not in part and not part.startswith("|"))


def bigram_bits(learn: Array, judge: Array, characters: int) -> Array:
    """Return the bits that each character of ``judge`` but the first costs a bigram model of ``learn``."""
    counts = np.full((characters, characters), 0.1)  # so that no pair is impossible
    np.add.at(counts, (learn[:-1], learn[1:]), 1)
    bits: Array = -np.log2(counts / counts.sum(axis=1, keepdims=True))[judge[:-1], judge[1:]]
    return bits


def network_bits(model: fr.models.SequenceToSequence, judge: Array) -> Array:
    """Return the bits that each character of ``judge`` but the first costs the network, which reads all before it."""
    probabilities = softmax(model(judge[np.newaxis, :-1])[0].astype(np.float64))
    bits: Array = -np.log2(probabilities[np.arange(len(judge) - 1), judge[1:]])
    return bits


def plot(passage: str, bits: dict[str, Array], path: Path) -> None:
    """Draw a passage once a model, the background of each character the darker the more bits it cost."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    rows = passage.split("\n")
    columns = max(map(len, rows))
    figure = Figure(figsize=(11, 0.5 + 0.46 * len(rows)), layout="constrained")
    colours = LinearSegmentedColormap.from_list("bits", ["white", ORANGE])
    for axes, (name, cost) in zip(figure.subplots(len(bits), 1), bits.items(), strict=True):
        grid, start = np.zeros((len(rows), columns)), 0
        for row, line in enumerate(rows):
            grid[row, : len(line)] = cost[start : start + len(line)]
            start += len(line) + 1
            for column, character in enumerate(line):
                axes.text(column, row, character, family="monospace", fontsize=10, ha="center", va="center", color=INK)
        image = axes.imshow(grid, cmap=colours, vmin=0, vmax=MAX_BITS, aspect="auto")
        axes.set_title(f"{name}: {cost.mean():.2f} bits per character here", loc="left", color=INK, fontsize=11)
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=figure.axes, location="bottom", shrink=0.3, aspect=40, label="bits")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=INK)
    save_figure(figure, path)


def main() -> None:
    """Read, train, judge, write."""
    options = make_parser(__doc__, __file__).parse_args()
    text = read_text()
    alphabet = sorted(set(text))
    ids = np.array([alphabet.index(character) for character in text])
    learn, judge = np.split(ids, [int(0.9 * len(ids))])
    steps = 64
    batch, epochs, hidden, peak = (16, 2, 64, 1e-2) if options.quick else (32, 12, 192, 6e-3)
    print(f"Data     {len(text):,} characters, {len(alphabet)} different ones; the last {len(judge):,} judge")
    print_kernels()

    layer, table = fr.LSTM(32, hidden, seed=0), fr.Embedding(len(alphabet), 32, seed=1)
    model = fr.models.SequenceToSequence(layer, len(alphabet), embedding=table, seed=2)
    windows = (len(learn) - 1) // steps
    x, y = (learn[shift : shift + windows * steps].reshape(windows, steps) for shift in (0, 1))
    rate = fr.training.schedules.cosine(peak, epochs * -(-windows // batch))
    history = fr.fit(
        model,
        x,
        y,
        loss="cross_entropy",
        epochs=epochs,
        batch_size=batch,
        clip_norm=1.0,
        callbacks=[fr.LearningRate(rate, every="step")],
        seed=3,
    )
    seconds = sum(history["seconds"])
    print(f"Speed    {x.size * history.epochs / seconds:,.0f} characters per second in training, {seconds:.0f} s")

    bits = {"LSTM": network_bits(model, judge), "bigram": bigram_bits(learn, judge, len(alphabet))}
    lstm, bigram = (values.mean() for values in bits.values())
    print(f"Bits per character of the unseen text: LSTM {lstm:.3f}, bigram {bigram:.3f}")
    prompt = "The "
    start = np.array([[alphabet.index(character) for character in prompt]])
    for temperature in (0.5, 0.8):
        tokens = model.generate(start, 400, method="sample", temperature=temperature, seed=4).tokens[0]
        written = prompt + "".join(alphabet[token] for token in tokens)
        print(
            f"\nWritten by the LSTM at temperature {temperature}\n" + "\n".join("  " + s for s in written.split("\n"))
        )

    unseen = text[len(learn) + 1 :]
    begin = unseen.index("\n", 2000) + 1
    passage = "\n".join(unseen[begin:].split("\n")[:12])
    print()
    plot(passage, {name: values[begin : begin + len(passage)] for name, values in bits.items()}, options.out)
    margin = 0.5 if options.quick else 1.3
    if not lstm <= bigram - margin:
        sys.exit(f"FAILED: the LSTM should be {margin} bits better than the bigram model")


if __name__ == "__main__":
    main()
