"""Say in words which number an image shows: "forty two" for the handwritten digits 4 and 2 side by side.

The image, one vector, sets the initial state of an LSTM and stays before its eyes while it says what it sees: one word
for 07 or 13, two for 42, and then the end. The baseline, a logistic regression for each of the two digits, needs no
words. Some noise on the training images keeps the network from learning them by heart; those that judge are of digits
it never saw.

    python examples/caption_digits.py             # a minute; saves examples/output/caption_digits.png
    python examples/caption_digits.py --quick     # some seconds

Data: 1,797 handwritten digits, scikit-learn's load_digits; num2words spells. The exit code is not 0
unless nearly all captions are right.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from num2words import num2words
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import fusedrnn as fr

Array = NDArray[Any]
INK, WRONG = "#333333", "#E07B39"
WORDS = ["<start>", "<end>", *sorted({word for n in range(100) for word in num2words(n).split("-")})]
START, END, PIXELS, STEPS = 0, 1, 64, 3


def pairs(images: Array, digits: Array, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return images x (N, 128) of two digits beside each other, their numbers (N,), and the captions (N, STEPS)."""
    chosen = rng.integers(len(images), size=(2, count))
    numbers = 10 * digits[chosen[0]] + digits[chosen[1]]
    captions = np.full((count, STEPS), END)
    for row, number in zip(captions, numbers, strict=True):
        words = num2words(number).split("-")
        row[: len(words)] = [WORDS.index(word) for word in words]
    return np.concatenate(tuple(images[chosen]), axis=1).astype(np.float32), numbers, captions


def plot(x: Array, said: list[str], right: Array, path: Path) -> None:
    """Draw images with what was said of them, in colour where it is wrong."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), layout="constrained")
    for axes, image, words, correct in zip(figure.subplots(5, 6).ravel(), x, said, right, strict=False):
        axes.imshow(np.concatenate(tuple(image.reshape(2, 8, 8)), axis=1), cmap="Greys", vmin=0, vmax=1.2)
        axes.set_title(words, color=INK if correct else WRONG, fontsize=11, weight="normal" if correct else "bold")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#E9ECEF" if correct else WRONG)
    figure.suptitle("What the LSTM sees in images of unseen digits; the mistakes come oftener here", color=INK)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Read, train, caption, judge, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train for some seconds")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "output" / "caption_digits.png")
    options = parser.parse_args()

    data = load_digits()
    images, digits = data.data / data.data.max(), data.target
    learn, judge, learn_digits, judge_digits = train_test_split(images, digits, test_size=0.2, random_state=0)
    rng = np.random.default_rng(1)
    count, epochs, batch = (10_000, 4, 64) if options.quick else (40_000, 8, 64)
    x, _, captions = pairs(learn, learn_digits, count, rng)
    x += 0.15 * rng.standard_normal(x.shape, np.float32)
    unseen, numbers, _ = pairs(judge, judge_digits, 2000, rng)
    config = fr.config()
    print(
        f"Data     {count:,} pairs of {len(learn)} digits to learn from, {len(unseen):,} pairs of {len(judge)} others"
    )
    print(f"Kernels  fusedrnn {config['version']}, {config['isa']}, threads: {config['threads']}")

    model = fr.models.VectorToSequence(
        fr.LSTM(16 + 2 * PIXELS, 128, seed=0),
        len(WORDS),
        vector_size=2 * PIXELS,
        embedding=fr.Embedding(len(WORDS), 16, seed=1),
        condition_inputs=True,
        start=START,
        end=END,
        seed=2,
    )
    # A caption counts up to its end token.
    lengths = (captions != END).sum(axis=1) + 1
    history = fr.fit(
        model,
        (x, model.decoder_inputs(captions)),
        captions,
        lengths=(None, lengths),
        loss="cross_entropy",
        epochs=epochs,
        batch_size=batch,
        clip_norm=1.0,
        callbacks=[fr.LearningRate(fr.training.schedules.cosine(5e-3, epochs * -(-count // batch)), every="step")],
        seed=3,
    )
    print(f"Loss     {history['loss'][0]:.3f} -> {history['loss'][-1]:.4f} in {sum(history['seconds']):.0f} s")

    found = model.generate(unseen, STEPS)
    said = [" ".join(WORDS[t] for t in row if t != END) for row in found.tokens]
    right = np.array([words == num2words(n).replace("-", " ") for words, n in zip(said, numbers, strict=True)])
    classifier = LogisticRegression(max_iter=2000).fit(learn, learn_digits)
    tens, units = (classifier.predict(unseen[:, half]) for half in (slice(PIXELS), slice(PIXELS, None)))
    baseline = np.mean(10 * tens + units == numbers)
    print(f"Exact    {right.mean():.1%} of the captions of unseen images; ", end="")
    print(f"{baseline:.1%} by logistic regression, digit by digit, and given the words\n")
    wrong = np.flatnonzero(~right)[:6]
    print("\n".join(f"  {numbers[i]:02d}  {said[i]}" for i in [*range(6), *wrong]))

    # The first ones and the first mistakes, so that these can be judged too.
    shown = np.sort(np.concatenate((np.flatnonzero(right)[: 30 - len(wrong)], wrong)))
    plot(unseen[shown], [said[i] for i in shown], right[shown], options.out)
    print(f"\nPlot     {options.out}")
    least = 0.85 if options.quick else 0.95
    if not right.mean() > least:
        sys.exit(f"more than {least:.0%} of the captions should be exactly right")


if __name__ == "__main__":
    main()
