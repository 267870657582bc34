"""Clean noisy handwritten digits with a stacked denoising autoencoder, and compare it with PCA of the same code size.

Eight by eight pixels go through dense layers down to a code of 2 or 16 numbers and up again. In training noise is added
to the input, never to the target, so the network cannot copy: it has to learn what digits look like. PCA is the best
that a linear encoder and decoder can do. Both are judged by digits that neither saw.

    python examples/denoise_digits.py             # half a minute; draws examples/output/denoise_digits.png
    python examples/denoise_digits.py --quick     # a few seconds
    python examples/denoise_digits.py --seed 1    # another split of the digits, other initial weights
    python examples/denoise_digits.py --validate  # how the settings were chosen: without the digits that judge

The exit code is not 0 if the autoencoder does not beat PCA by a clear margin.
Data: load_digits of scikit-learn, 1,797 digits of the UCI's optical recognition data set.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import INK, STYLE, make_parser, print_kernels, save_figure
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier

import fusedrnn as fr

Array = NDArray[Any]
NOISE, SHOWN = 0.25, 12
SIZES = {2: (64, 128, 64, 32, 2), 16: (64, 256, 16)}  # down to the code; and the same way up
EPOCHS = {2: 200, 16: 100}


def train(code_size: int, digits: Array, epochs: int, seed: int) -> fr.models.StackedAutoencoder:
    """Train an autoencoder to return the digits without the noise that is added to them."""
    model = fr.models.StackedAutoencoder(SIZES[code_size], noise=NOISE, output_activation="sigmoid", seed=seed)
    rate = fr.LearningRate(fr.training.schedules.cosine(3e-3, epochs))
    fr.fit(model, digits, digits, loss="mse", epochs=epochs, batch_size=32, callbacks=[rate], seed=seed)
    return model


def split(images: Array, labels: Array, seed: int) -> Any:
    """Return images to learn from and to judge, and the labels of both; a quarter judges."""
    return train_test_split(images, labels, test_size=0.25, random_state=seed, stratify=labels)


def separation(codes: Array, labels: Array) -> float:
    """Return how often the five nearest other codes tell the digit."""
    return float(cross_val_score(KNeighborsClassifier(5), codes, labels).mean())


def plot(maps: dict[str, Array], labels: Array, rows: dict[str, Array], path: Path) -> None:
    """Draw the codes of two numbers as maps, and below them the digits of each row."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(11, 9.2), layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=[1.65, 1])
        colours = matplotlib.colormaps["tab10"]
        for axes, (title, codes) in zip(above.subplots(1, 2), maps.items(), strict=True):
            axes.set_title(title)
            axes.axis("off")
            codes = np.arcsinh(2 * (codes - np.median(codes, axis=0)) / codes.std(axis=0))  # far points nearer, to fit
            axes.scatter(*codes.T, c=labels, cmap=colours, s=14, alpha=0.45, linewidths=0)
            for digit in range(10):
                at = np.median(codes[labels == digit], axis=0)
                box = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": colours(digit), "linewidth": 2}
                axes.annotate(str(digit), at, ha="center", va="center", color=INK, fontsize=12, bbox=box)
        grid = below.subplots(len(rows), SHOWN)
        for line, (name, images) in zip(grid, rows.items(), strict=True):
            for axes, image in zip(line, images, strict=False):
                axes.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center", color=INK, labelpad=12)
        save_figure(figure, path)


def main() -> None:
    """Read, train, judge, draw."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--seed", type=int, default=0, help="of the split of the digits and of the weights")
    parser.add_argument("--validate", action="store_true", help="judge by a part of the digits to learn from")
    options = parser.parse_args()
    data = load_digits()
    digits, held_out, known, labels = split((data.data / 16).astype(np.float32), data.target, options.seed)
    if options.validate:
        digits, held_out, known, labels = split(digits, known, options.seed)
    random = np.random.default_rng(options.seed)
    noisy = held_out + NOISE * random.standard_normal(held_out.shape, dtype=np.float32)
    print(
        f"Data     {len(digits)} digits to learn from, {len(held_out)} to judge, noise of {NOISE} on pixels in [0, 1]"
    )
    print_kernels()

    lines, ratios, models, linear = [], {}, {}, {}
    for size in SIZES:
        models[size] = train(size, digits, EPOCHS[size] // (6 if options.quick else 1), options.seed)
        linear[size] = PCA(size, random_state=0).fit(digits)
        for name, images in (("clean", held_out), ("noisy", noisy)):
            ours, pca = models[size](images), linear[size].inverse_transform(linear[size].transform(images))
            errors = [float(np.mean(np.square(made - held_out))) for made in (ours, pca)]
            ratios[size, name] = errors[0] / errors[1]
            lines.append(f"  code of {size:2}, from {name} digits   {errors[0]:10.4f} {errors[1]:10.4f}")
    print("\nMean square error of held-out digits   autoencoder      PCA", *lines, sep="\n")

    codes = {"autoencoder": models[2].encode(held_out), "PCA": linear[2].transform(held_out)}
    apart = {name: separation(each, labels) for name, each in codes.items()}
    print(f"  digit told by its neighbours on the map  {apart['autoencoder']:8.1%} {apart['PCA']:10.1%}")
    maps = {f"Codes of two numbers (asinh), {name}: {apart[name]:.0%} told apart": each for name, each in codes.items()}
    restored = linear[16].inverse_transform(linear[16].transform(noisy[:SHOWN]))
    rows = {"digit": held_out, "noisy": noisy, "autoencoder": models[16](noisy[:SHOWN]), "PCA": restored}
    print()
    plot(maps, labels, rows, options.out)
    least = {(2, "clean"): 0.85 if options.quick else 0.7, (16, "noisy"): 0.85 if options.quick else 0.7}
    for case, limit in least.items():
        if not ratios[case] <= limit:
            sys.exit(
                f"FAILED: code of {case[0]}, {case[1]}: {ratios[case]:.2f} of PCA's error; expected at most {limit}"
            )


if __name__ == "__main__":
    main()
