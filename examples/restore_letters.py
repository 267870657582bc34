"""Restore the letters that a damaged text has lost: a network that reads both ways against one that reads the past.

One character in eight is hidden ("the val_e of t_e argument"). A bidirectional LSTM sees what stands on both sides of
each gap, an LSTM of one direction, of as many parameters and trained alike, what stands before it. The third guess is
the most frequent character after the one before.

    python examples/restore_letters.py             # a minute; saves examples/output/restore_letters.png
    python examples/restore_letters.py --quick     # some seconds

Data: the help texts of the standard library, pydoc_data.topics, in small letters. The exit code is not 0 unless reading
both ways is clearly better.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import BLUE, ORANGE, STYLE, make_parser, print_kernels, save_figure

import fusedrnn as fr

Array = NDArray[Any]
LETTERS = " abcdefghijklmnopqrstuvwxyz"
HIDDEN = len(LETTERS)  # the token in the place of a lost character
IGNORED = fr.training.losses.IGNORE_INDEX


def read_text() -> str:
    """Return the help texts in small letters and blanks; what several topics share comes once."""
    paragraphs = dict.fromkeys(part for topic in topics.values() for part in topic.split("\n\n"))
    return re.sub("[^a-z]+", " ", " ".join(paragraphs).lower())


def damage(characters: Array, copies: int, steps: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return damaged windows x (N, T) and the targets y (N, T), IGNORED where nothing is missing."""
    whole = np.tile(characters[: len(characters) // steps * steps].reshape(-1, steps), (copies, 1))
    lost = rng.random(whole.shape) < 1 / 8
    return np.where(lost, HIDDEN, whole), np.where(lost, whole, IGNORED)


def bigram_guess(learn: Array, x: Array) -> Array:
    """Return the most frequent successor of the character before each one, of any character where that is lost, too."""
    counts = np.zeros((HIDDEN + 1, HIDDEN))
    np.add.at(counts, (learn[:-1], learn[1:]), 1)
    counts[HIDDEN] = counts.sum(axis=0)
    before = np.concatenate((np.full_like(x[:, :1], HIDDEN), x[:, :-1]), axis=1)
    guess: Array = counts.argmax(axis=1)[before]
    return guess


def show(x: Array, y: Array, guesses: dict[str, Array]) -> None:
    """Print a damaged line, and how each restores it: a wrong letter is a capital, a wrong blank #."""
    print("\n  damaged    " + "".join((LETTERS + "_")[token] for token in x))
    for name, guess in guesses.items():
        filled = np.where(x == HIDDEN, guess, x)
        wrong = (y != IGNORED) & (filled != y)
        text = "".join(
            LETTERS[token].upper().replace(" ", "#") if bad else LETTERS[token]
            for token, bad in zip(filled, wrong, strict=True)
        )
        print(f"  {name:10} {text}")


def plot(y: Array, guesses: dict[str, Array], path: Path) -> None:
    """Draw how often each character was restored by the two networks."""
    import matplotlib
    from matplotlib.figure import Figure

    count = np.array([(y == token).sum() for token in range(HIDDEN)])
    past, both = (
        np.array([100 * np.mean(guess[y == token] == token) if n else np.nan for token, n in enumerate(count)])
        for guess in (guesses["past"], guesses["both sides"])
    )
    order = np.argsort(-count, kind="stable")
    order = order[count[order] >= 20]  # of a rarer letter, a share says little
    places = np.arange(len(order))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.vlines(places, past[order], both[order], color="#C9CFD6", linewidth=2.5, zorder=1)
        axes.scatter(places, past[order], s=65, color=ORANGE, label="reads the past", zorder=2)
        axes.scatter(places, both[order], s=65, color=BLUE, label="reads both sides", zorder=2)
        axes.set_xticks(places, ["blank" if token == 0 else LETTERS[token] for token in order])
        axes.set_title("Lost characters restored, the frequent ones first")
        axes.set_ylim(-3, 103)
        axes.yaxis.set_major_formatter("{x:.0f} %")
        figure.legend(loc="outside lower center", ncols=2)
        save_figure(figure, path)


def main() -> None:
    """Read, damage, train both, judge, draw."""
    options = make_parser(__doc__, __file__).parse_args()
    characters = np.array([LETTERS.index(letter) for letter in read_text()])
    learn, judge = np.split(characters, [int(0.9 * len(characters))])
    rng, steps, batch = np.random.default_rng(0), 64, 32
    copies, epochs, one_way, each_way = (1, 2, 88, 56) if options.quick else (4, 3, 152, 96)
    x, y = damage(learn, copies, steps, rng)
    unseen, truth = damage(judge, 1, steps, rng)
    lost = truth != IGNORED
    print(f"Data     {len(characters):,} characters; the last {len(judge):,}, of which {lost.sum():,} are lost, judge")
    print_kernels()

    layers = {
        "past": fr.LSTM(24, one_way, seed=1),
        "both sides": fr.LSTM(24, each_way, bidirectional=True, seed=1),
    }
    guesses, rate = (
        {"bigram": bigram_guess(learn, unseen)},
        fr.training.schedules.cosine(8e-3, epochs * -(-len(x) // batch)),
    )
    for name, layer in layers.items():
        model = fr.models.SequenceToSequence(layer, HIDDEN, embedding=fr.Embedding(HIDDEN + 1, 24, seed=2), seed=3)
        history = fr.fit(
            model,
            x,
            y,
            loss="cross_entropy",
            epochs=epochs,
            batch_size=batch,
            clip_norm=1.0,
            callbacks=[fr.LearningRate(rate, every="step")],
            seed=4,
        )
        guesses[name] = model(unseen).argmax(axis=2)
        losses, seconds = history["loss"], sum(history["seconds"])
        print(
            f"Loss     {losses[0]:.3f} -> {losses[-1]:.3f} in {seconds:.0f} s; {name}, {model.num_parameters:,} weights"
        )

    right = {name: np.mean(guess[lost] == truth[lost]) for name, guess in guesses.items()}
    print("Restored " + ", ".join(f"{name} {share:.1%}" for name, share in right.items()))
    for row in (10, 40, 70):
        show(unseen[row], truth[row], {name: guess[row] for name, guess in guesses.items()})
    print()
    plot(truth, guesses, options.out)
    margin = 0.06 if options.quick else 0.15
    if not right["both sides"] >= right["past"] + margin or not right["past"] > right["bigram"]:
        sys.exit(f"FAILED: reading both sides should restore {margin:.0%} more letters than reading the past")


if __name__ == "__main__":
    main()
