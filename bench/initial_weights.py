"""Compare learning from the default initial weights and from PyTorch's: the table of docs/howto/initial_weights.md.

python bench/initial_weights.py    # some minutes; needs scikit-learn for its digits
"""

from __future__ import annotations

import pydoc_data.topics
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

import fusedrnn as fr

Array = NDArray[Any]
SEEDS, CELLS = range(5), ("RNN", "LSTM", "GRU")


def digits(cell: str, init: str, seed: int) -> Array:
    """Classify 8x8 images, read row by row; validation loss."""
    data = load_digits()
    x, y = (data.images / 16).astype(np.float32), data.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(x))
    learn, judge = order[:1400], order[1400:]
    model = fr.models.SequenceToVector(getattr(fr, cell)(8, 32, init=init, seed=seed), 10, seed=seed + 100)
    return train(model, x[learn], y[learn], 8, 2e-3, seed, "cross_entropy", (x[judge], y[judge]))


def adding(cell: str, init: str, seed: int) -> Array:
    """Add the two marked numbers of fifty."""
    rng = np.random.default_rng(0)
    values, marks = rng.random((2000, 50)), np.zeros((2000, 50))
    for row in marks:
        row[rng.choice(50, 2, replace=False)] = 1
    x = np.stack([values, marks], axis=-1).astype(np.float32)
    y = (values * marks).sum(axis=1, keepdims=True).astype(np.float32)
    model = fr.models.SequenceToVector(getattr(fr, cell)(2, 32, init=init, seed=seed), 1, seed=seed + 100)
    return train(model, x, y, 15, 2e-3, seed)


def text(cell: str, init: str, seed: int) -> Array:
    """Predict the next character of English."""
    letters = "".join(pydoc_data.topics.topics.values())[:60000]
    tokens = np.unique(list(letters), return_inverse=True)[1].reshape(-1, 50)
    model = fr.models.SequenceToSequence(
        getattr(fr, cell)(16, 64, init=init, seed=seed),
        int(tokens.max()) + 1,
        embedding=fr.Embedding(int(tokens.max()) + 1, 16, seed=seed + 50),
        seed=seed + 100,
    )
    return train(model, tokens[:, :-1], tokens[:, 1:], 5, 3e-3, seed, "cross_entropy")


def train(
    model: Any, x: Array, y: Array, epochs: int, rate: float, seed: int, loss: str = "mse", validation: Any = None
) -> Array:
    """Return the loss after each epoch."""
    history = fr.fit(
        model,
        x,
        y,
        loss=loss,
        optimizer=lambda model: fr.Adam(model, lr=rate),
        epochs=epochs,
        batch_size=32,
        clip_norm=1.0,
        validation_data=validation,
        progress=False,
        seed=seed,
    )
    return np.array(history["loss" if validation is None else "val_loss"])


def main() -> None:
    """Print a row for each task and cell."""
    tasks: tuple[Callable[[str, str, int], Array], ...] = (digits, adding, text)
    print("| task | cell | default | torch | lower with the default | reaches torch's last loss in |")
    for task in tasks:
        for cell in CELLS:
            ours, theirs = (np.array([task(cell, init, seed) for seed in SEEDS]) for init in ("default", "torch"))
            won = int(np.sum(ours[:, -1] < theirs[:, -1]))
            reached = np.flatnonzero(ours.mean(axis=0) <= theirs.mean(axis=0)[-1])
            when = f"{reached[0] + 1} of {ours.shape[1]} epochs" if len(reached) else "not"
            last = f"{ours[:, -1].mean():.3g} | {theirs[:, -1].mean():.3g}"
            print(f"| {task.__name__} | {cell} | {last} | {won} of {len(SEEDS)} | {when} |", flush=True)


if __name__ == "__main__":
    main()
