"""Translate number words from English to French with attention, and see which word each word was read from.

A bidirectional GRU reads "seventy-one thousand", a second one with attention writes "soixante et onze mille", and a
beam search keeps the four best sentences. French counts otherwise than English (97 is four twenties, ten, seven; a
twenty takes an s if nothing follows), so the baseline, each word replaced by its translation, is seldom right.

    python examples/translate_numbers.py             # a minute; saves examples/output/translate_numbers.png
    python examples/translate_numbers.py --quick     # some seconds, numbers below 10,000
    python examples/translate_numbers.py --seed 1    # other numbers, other initial weights

Data: spelled by the package num2words. The exit code is not 0 unless nearly all held-out numbers are exactly right.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from num2words import num2words
from numpy.typing import NDArray
from shared import BLUE, FAINT, INK, hold_in_8_bits, make_parser, print_kernels, save_figure

import fusedrnn as fr

Array = NDArray[Any]
START, END = 0, 1


def spell(number: int, language: str) -> list[str]:
    """Return the words of a number, each with the hyphen or comma that follows it."""
    return re.findall(r"\w+[-,]?", num2words(number, lang=language))


def join(words: list[str]) -> str:
    """Return the text of such words."""
    return " ".join(words).replace("- ", "-")


def word_for_word(words: list[str]) -> str:
    """Return the translation of each English word by itself."""
    names = {num2words(n): num2words(n, lang="fr") for n in [*range(20), *range(20, 100, 10)]}
    names |= {"hundred": "cent", "thousand": "mille", "and": ""}
    return " ".join(filter(None, (names[word.strip("-,")] for word in words)))


def pad(sentences: list[list[str]], vocabulary: dict[str, int]) -> tuple[Array, Array]:
    """Return the tokens (N, T) of the sentences, END after each, and their lengths (N,)."""
    lengths = np.array([len(words) + 1 for words in sentences])
    tokens = np.full((len(sentences), lengths.max()), END)
    for row, words in zip(tokens, sentences, strict=True):
        row[: len(words)] = [vocabulary[word] for word in words]
    return tokens, lengths


def plot(
    model: fr.models.EncoderDecoder, source: Array, target: Array, words: list[list[list[str]]], path: Path
) -> None:
    """Draw how much each French word reads of each English one, a panel a number."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    colours = LinearSegmentedColormap.from_list("share", ["white", BLUE])
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    panels = figure.subplots(1, len(words), width_ratios=[len(english) + 4 for english, _ in words])
    for axes, (english, french), read, written in zip(panels, words, source, target, strict=True):
        lengths = np.array([len(english) + 1]), np.array([len(french) + 1])
        tokens = written[np.newaxis, : lengths[1][0]]
        shares = model.attention_weights(read[np.newaxis, : lengths[0][0]], model.decoder_inputs(tokens), lengths)
        image = axes.imshow(shares[0], cmap=colours, vmin=0, vmax=1, aspect="equal")
        axes.set_xticks(range(lengths[0][0]), [*english, "end"], rotation=55, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(lengths[1][0]), [*french, "end"])
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelcolor=INK)
        axes.set_xticks(np.arange(lengths[0][0]) + 0.5, minor=True)
        axes.set_yticks(np.arange(lengths[1][0]) + 0.5, minor=True)
        axes.grid(True, which="minor", color=FAINT)
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_color("#C9CFD6")
    figure.suptitle("Where each French word is read: a state of the encoder knows the words around it, too", color=INK)
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.5, label="share of the attention")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=INK)
    save_figure(figure, path)


def main() -> None:
    """Spell, train, translate, judge, draw."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--seed", type=int, default=0, help="of the numbers and of the weights")
    options = parser.parse_args()
    below, learn, judge = (10_000, 2000, 300) if options.quick else (1_000_000, 8000, 1000)
    numbers = np.random.default_rng(options.seed).choice(below, learn + judge, replace=False).tolist()
    english, french = ([spell(number, language) for number in numbers] for language in ("en", "fr"))
    tables: list[dict[str, int]] = [
        {word: index for index, word in enumerate(["<start>", "<end>", *sorted({w for s in each for w in s})])}
        for each in (english, french)
    ]
    (source, source_lengths), (target, lengths) = pad(english, tables[0]), pad(french, tables[1])
    print(f"Data     {learn} numbers below {below:,} to learn from, {judge} others judge; ", end="")
    print(f"{len(tables[0]) - 2} English and {len(tables[1]) - 2} French words")
    print_kernels()

    hidden, epochs, batch = 64, 8 if options.quick else 12, 32
    seeds = np.random.SeedSequence(options.seed).generate_state(6).tolist()
    model = fr.models.EncoderDecoder(
        fr.GRU(32, hidden, bidirectional=True, seed=seeds[0]),
        fr.GRU(32, hidden, seed=seeds[1]),
        len(tables[1]),
        source_embedding=fr.Embedding(len(tables[0]), 32, seed=seeds[2]),
        target_embedding=fr.Embedding(len(tables[1]), 32, seed=seeds[3]),
        attention="general",
        start=START,
        end=END,
        seed=seeds[4],
    )
    history = fr.fit(
        model,
        (source[:learn], model.decoder_inputs(target[:learn])),
        target[:learn],
        lengths=(source_lengths[:learn], lengths[:learn]),
        loss="cross_entropy",
        epochs=epochs,
        batch_size=batch,
        clip_norm=1.0,
        callbacks=[fr.LearningRate(fr.training.schedules.cosine(4e-3, epochs * -(-learn // batch)), every="step")],
        seed=seeds[5],
    )
    print(f"Loss     {history['loss'][0]:.3f} -> {history['loss'][-1]:.4f} in {sum(history['seconds']):.0f} s")

    unseen, ends, truth = source[learn:], source_lengths[learn:], [join(words) for words in french[learn:]]
    words = list(tables[1])

    def translate(model: fr.models.EncoderDecoder, method: str) -> list[str]:
        found = model.generate(unseen, 2 * target.shape[1], lengths=ends, method=method)
        return [join([words[t] for t in row[: n - 1]]) for row, n in zip(found.tokens, found.lengths, strict=True)]

    def exact(written: list[str]) -> float:
        return float(np.mean([ours == right for ours, right in zip(written, truth, strict=True)]))

    written = translate(model, "beam")
    share = {"greedy": exact(translate(model, "greedy")), "beam": exact(written)}
    naive = np.mean([word_for_word(words) == right for words, right in zip(english[learn:], truth, strict=True)])
    print(f"Exact    beam search {share['beam']:.1%}, greedy {share['greedy']:.1%}, word for word {naive:.1%}")
    hold_in_8_bits(lambda model: exact(translate(model, "greedy")), share["greedy"], model)
    print()
    for index in range(6):
        print(f"  {numbers[learn + index]:>9,}  {join(english[learn + index])}\n{'':11}  {written[index]}")
    for index in [i for i, ours in enumerate(written) if ours != truth[i]][:3]:
        print(f"  wrong: {numbers[learn + index]:,}  {written[index]}  instead of  {truth[index]}")

    print()
    picked = [learn + i for i in np.argsort([-len(sentence) for sentence in french[learn:]], kind="stable")[[0, 40]]]
    plot(model, source[picked], target[picked], [[english[i], french[i]] for i in picked], options.out)
    least = 0.8 if options.quick else 0.95
    if not share["beam"] > least:
        sys.exit(f"FAILED: more than {least:.0%} of the held-out numbers should be exactly right")


if __name__ == "__main__":
    main()
