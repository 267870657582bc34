"""Say in words which number an image shows: "forty two" for the handwritten digits 4 and 2 side by side.

The image, one vector, sets the initial state of an LSTM and stays before its eyes while it says what it sees: one word
for 07 or 13, two for 42, and then the end. It sees no training image twice: each is moved, turned and stretched a
little every time, so that it cannot be learnt by heart. Those that judge are of digits it never saw. The baselines
name each of the two digits by itself and need no words: a logistic regression, and a support vector machine with a
Gaussian kernel, a strong one on digits.

    python examples/caption_digits.py             # one or two minutes; saves examples/output/caption_digits.png
    python examples/caption_digits.py --quick     # some seconds
    python examples/caption_digits.py --seed 1    # another split of the digits, other initial weights
    python examples/caption_digits.py --validate  # how the settings were chosen: without the digits that judge

Data: 1,797 handwritten digits, scikit-learn's load_digits; num2words spells. The exit code is not 0
unless nearly all captions are right, and after a full run more of them than either baseline has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from num2words import num2words
from numpy.typing import NDArray
from shared import FAINT, INK, ORANGE, hold_in_8_bits, make_parser, print_kernels, save_figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import fusedrnn as fr

Array = NDArray[Any]
SPELLED = [num2words(number).split("-") for number in range(100)]
WORDS = ["<start>", "<end>", *sorted({word for words in SPELLED for word in words})]
START, END, SIDE, PIXELS, STEPS = 0, 1, 8, 64, 3
CAPTIONS = np.array([[*map(WORDS.index, words), END, END][:STEPS] for words in SPELLED])
LENGTHS = np.array([len(words) + 1 for words in SPELLED])  # a caption counts up to its end token
STRETCH, SHIFT, NOISE = 0.15, 0.7, 0.05


def warp(images: Array, rng: np.random.Generator) -> Array:
    """Return images (N, 64), each turned and stretched by a random matrix near 1 and moved by up to SHIFT pixels."""
    matrix = np.eye(2) + STRETCH * rng.uniform(-1, 1, (len(images), 2, 2))
    middle = (SIDE - 1) / 2
    grid = np.stack(np.meshgrid(*2 * [np.arange(SIDE)], indexing="ij"), axis=-1).reshape(PIXELS, 2) - middle
    source = grid @ matrix.transpose(0, 2, 1) + middle + SHIFT * rng.uniform(-1, 1, (len(images), 1, 2))
    corner = np.floor(source).astype(int)
    share = source - corner
    padded = np.pad(images.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    samples, warped = np.arange(len(images))[:, np.newaxis], np.zeros(images.shape)
    for offset in np.ndindex(2, 2):  # the four pixels around each source point, by their nearness
        row, column = np.moveaxis(np.clip(corner + offset + 1, 0, SIDE + 1), -1, 0)
        warped += np.abs(1 - np.array(offset) - share).prod(axis=-1) * padded[samples, row, column]
    return warped


def batches(images: Array, digits: Array, count: int, size: int, rng: np.random.Generator) -> Iterator[Any]:
    """Yield batches of fresh images (B, 128) of two digits with the decoder's inputs, captions and lengths."""
    left, right = rng.integers(len(images), size=(2, count))
    x = np.concatenate((warp(images[left], rng), warp(images[right], rng)), axis=1)
    x += NOISE * rng.standard_normal(x.shape)
    numbers = 10 * digits[left] + digits[right]
    inputs = fr.models.shift_right(CAPTIONS, START)
    for first in range(0, count, size):
        chosen = numbers[first : first + size]
        yield (x[first : first + size], inputs[chosen]), CAPTIONS[chosen], (None, LENGTHS[chosen])


def plot(x: Array, said: list[str], right: Array, path: Path) -> None:
    """Draw images with what was said of them, in colour where it is wrong."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), layout="constrained")
    for axes, image, words, correct in zip(figure.subplots(5, 6).ravel(), x, said, right, strict=False):
        axes.imshow(np.concatenate(tuple(image.reshape(2, SIDE, SIDE)), axis=1), cmap="Greys", vmin=0, vmax=1.2)
        axes.set_title(words, color=INK if correct else ORANGE, fontsize=11, weight="normal" if correct else "bold")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color(FAINT if correct else ORANGE)
    figure.suptitle("What the LSTM says of images of unseen digits; its mistakes are shown first", color=INK)
    save_figure(figure, path)


def main() -> None:
    """Read, train, caption, judge, draw."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--seed", type=int, default=0, help="of the split of the digits and of the weights")
    parser.add_argument("--validate", action="store_true", help="judge by a part of the digits to learn from")
    options = parser.parse_args()

    data = load_digits()
    parts = data.data / data.data.max(), data.target
    learn, judge, digits, truth = train_test_split(
        *parts, test_size=0.2, random_state=options.seed, stratify=data.target
    )
    if options.validate:
        learn, judge, digits, truth = train_test_split(
            learn, digits, test_size=0.2, random_state=options.seed, stratify=digits
        )
    left, right = np.random.default_rng(options.seed).integers(len(judge), size=(2, 4000))
    unseen, numbers = np.concatenate((judge[left], judge[right]), axis=1), 10 * truth[left] + truth[right]
    count, epochs, size, peak = (12_000, 4, 64, 5e-3) if options.quick else (60_000, 12, 128, 6e-3)
    pairs = f"{epochs * count:,} pairs of {len(learn)} digits to learn from"
    print(f"Data     {pairs}, {len(unseen):,} of {len(judge)} others to {'validate' if options.validate else 'judge'}")
    print_kernels()

    seeds = np.random.SeedSequence(options.seed).generate_state(4).tolist()
    model = fr.models.VectorToSequence(
        fr.LSTM(16 + 2 * PIXELS, 128, seed=seeds[0]),
        len(WORDS),
        vector_size=2 * PIXELS,
        embedding=fr.Embedding(len(WORDS), 16, seed=seeds[1]),
        condition_inputs=True,
        start=START,
        end=END,
        seed=seeds[2],
    )
    steps = epochs * -(-count // size)
    history = fr.fit(
        model,
        lambda epoch: batches(learn, digits, count, size, np.random.default_rng([seeds[3], epoch])),
        loss="cross_entropy",
        epochs=epochs,
        batch_size=size,
        steps_per_epoch=steps // epochs,
        clip_norm=1.0,
        callbacks=[fr.LearningRate(fr.training.schedules.cosine(peak, steps), every="step")],
        seed=seeds[3],
    )
    print(f"Loss     {history['loss'][0]:.3f} -> {history['loss'][-1]:.4f} in {sum(history['seconds']):.0f} s")

    def caption(model: fr.models.VectorToSequence) -> list[str]:
        tokens = model.generate(unseen, STEPS).tokens
        return [" ".join(WORDS[token] for token in row if token != END) for row in tokens]

    def judged(said: list[str]) -> Array:
        return np.array([words == " ".join(SPELLED[number]) for words, number in zip(said, numbers, strict=True)])

    said = caption(model)
    exact = judged(said)
    print(f"Exact    {exact.mean():.1%} of the captions of unseen images; digit by digit, and given the words:")
    best = 0.0
    for name, classifier in (
        ("logistic regression", LogisticRegression(max_iter=2000)),
        ("RBF SVC", SVC(C=10)),
    ):
        classifier.fit(learn, digits)
        tens, units = (classifier.predict(unseen[:, half]) for half in (slice(PIXELS), slice(PIXELS, None)))
        baseline = np.mean(10 * tens + units == numbers)
        best = max(best, baseline)
        print(f"         {baseline:.1%} by {name}")
    hold_in_8_bits(lambda model: judged(caption(model)).mean(), exact.mean(), model)
    print()
    wrong = list({(numbers[i], said[i]): i for i in np.flatnonzero(~exact)}.values())[:6]
    shown = np.concatenate((wrong, np.flatnonzero(exact)[: 30 - len(wrong)]))
    print("\n".join(f"  {numbers[i]:02d}  {said[i]}{'' if exact[i] else '   wrong'}" for i in shown[:12]) + "\n")
    plot(unseen[shown], [said[i] for i in shown], exact[shown], options.out)
    least = 0.85 if options.quick else max(0.95, best)
    if not exact.mean() > least:
        sys.exit(f"FAILED: more than {least:.1%} of the captions should be exactly right")


if __name__ == "__main__":
    main()
