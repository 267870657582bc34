"""Learn to write like the Python manual, one character after the other, and count the bits that each one costs.

An LSTM reads the manual's text and predicts, at every character, the next one. A perfect compressor that knew its
probabilities would spend -log2 p bits on each character of text that it never saw. The baselines know how often each
character followed the one before (a bigram model), and the last four (a 5-gram model, smoothed as Witten and Bell do,
which of all n is the best one here).

    python examples/next_character.py             # two minutes; saves examples/output/next_character.png
    python examples/next_character.py --quick     # some seconds

Data: the help texts of the standard library, pydoc_data.topics. The exit code is not 0 unless the LSTM wins clearly:
against both, with --quick against the bigram model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import INK, ORANGE, hold_in_8_bits, make_parser, print_kernels, save_figure

import fusedrnn as fr
from fusedrnn.layers.activation import softmax

Array = NDArray[Any]
MAX_BITS = 8.0  # of the scale of the figure


def read_text() -> str:
    """Return the help texts without tables; what several topics share comes once, so that none is learnt and judged."""
    paragraphs = dict.fromkeys(part for topic in topics.values() for part in topic.split("\n\n"))
    return "\n\n".join(part for part in paragraphs if "+-" not in part and not part.startswith("|"))


def pieces(text: Array, length: int, characters: int) -> Array:
    """Return each piece of so many characters as one integer, whose lowest place is the last of them."""
    return np.lib.stride_tricks.sliding_window_view(text, length) @ characters ** np.arange(length - 1, -1, -1)


def ngram_bits(learn: Array, judge: Array, characters: int, length: int) -> Array:
    """Return the bits that each character of ``judge`` but the first costs an n-gram model of ``learn``.

    It knows how often each character followed the last length - 1 ones, and mixes that with what it knows of the last
    length - 2 ones, and so on: the more, the more kinds of characters followed (Witten and Bell 1991).
    """
    text = np.concatenate((learn[-length:], judge))
    probability = np.full(len(judge) - 1, 1 / characters)
    for size in range(1, length + 1):
        known, counts = np.unique(pieces(learn, size, characters), return_counts=True)
        contexts, at = np.unique(known // characters, return_inverse=True)
        wanted = pieces(text, size, characters)[-len(probability) :]
        count = found(known, counts, wanted)
        total, kinds = (
            found(contexts, np.bincount(at, weights), wanted // characters) for weights in (counts, np.ones(len(at)))
        )
        probability = np.where(kinds > 0, (count + kinds * probability) / np.maximum(total + kinds, 1), probability)
    bits: Array = -np.log2(probability)
    return bits


def found(keys: Array, values: Array, wanted: Array) -> Array:
    """Return the values of the wanted keys, 0 for those that are not there; the keys are sorted."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    there: Array = np.where(keys[at] == wanted, values[at], 0)
    return there


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

    bits = {"LSTM": network_bits(model, judge)}
    bits |= {name: ngram_bits(learn, judge, len(alphabet), n) for name, n in (("5-gram", 5), ("bigram", 2))}
    lstm, five, bigram = (values.mean() for values in bits.values())
    print(f"Bits per character of the unseen text: LSTM {lstm:.3f}, 5-gram {five:.3f}, bigram {bigram:.3f}")
    hold_in_8_bits(lambda model: network_bits(model, judge).mean(), lstm, model, form=".3f")
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
    shown = {name: bits[name][begin : begin + len(passage)] for name in ("LSTM", "5-gram")}
    plot(passage, shown, options.out)
    name, most = ("bigram", bigram - 0.5) if options.quick else ("5-gram", five - 0.15)
    if not lstm <= most:
        sys.exit(f"FAILED: the LSTM should need {most:.2f} bits at most, clearly less than the {name} model")


if __name__ == "__main__":
    main()
