"""Put capital letters back into small print, with a PyTorch model: once with torch.nn's LSTM, once with fusedrnn's.

A bidirectional LSTM reads each sentence letter by letter, all in small letters, and tags those that were capitals. The
model is plain PyTorch and so is its training: packed sequences, Adam, clipping. The one line that makes it faster is
``fusedrnn.torch.replace(model)``; the weights, the batches and, to rounding, the losses are the same.

    python examples/torch_tagger.py             # two minutes; saves examples/output/torch_tagger.png
    python examples/torch_tagger.py --quick     # some seconds

Data: the help topics of Python's standard library. The exit code is not 0 if the two runs differ in their losses, or
the tagger does not beat the rule "the first letter of a sentence".
"""

from __future__ import annotations

import random
import re
import sys
import time
from pydoc_data.topics import topics
from typing import Any

import torch
from shared import BLUE, ORANGE, STYLE, make_parser, print_kernels, save_figure
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_sequence

import fusedrnn.torch as ft

LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789.,:;()[]{}'\"`*-_=<>/\\#!?+%&|~@^$"
CODE = {letter: index + 1 for index, letter in enumerate(LETTERS)}  # 0: any other


def read_sentences() -> tuple[list[Tensor], list[Tensor]]:
    """Return the letters of each sentence as numbers, and 1 for those that are capitals."""
    text = " ".join(topics[name] for name in sorted(topics))
    sentences = [" ".join(s.split()) for s in re.split(r"(?<=[.:]) +(?=\S)|\n\s*\n", text)]
    sentences = sorted({s for s in sentences if 20 <= len(s) <= 300 and s[0].isalpha()})
    random.Random(0).shuffle(sentences)
    letters = [torch.tensor([CODE.get(c, 0) for c in s.lower()]) for s in sentences]
    return letters, [torch.tensor([float(c.isupper()) for c in s]) for s in sentences]


class Tagger(nn.Module):
    """Letters to the logits of "this was a capital", for a packed batch."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS) + 1, 32)
        self.lstm = nn.LSTM(32, hidden, 2, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 1)

    def forward(self, packed: Any) -> Tensor:
        """Return the logits in the order of the packed letters."""
        y, _ = self.lstm(packed._replace(data=self.embedding(packed.data)))
        logits: Tensor = self.head(y.data)[:, 0]
        return logits


def batches(letters: list[Tensor], capitals: list[Tensor], size: int, seed: int) -> list[tuple[Any, Tensor]]:
    """Return packed batches in a random order."""
    order = torch.randperm(len(letters), generator=torch.Generator().manual_seed(seed)).split(size)
    pack = lambda values, part: pack_sequence([values[i] for i in part], enforce_sorted=False)  # noqa: E731
    return [(pack(letters, part), pack(capitals, part).data) for part in order]


def train(model: Tagger, letters: list[Tensor], capitals: list[Tensor], epochs: int) -> tuple[list[float], float]:
    """Return the loss of each batch and the seconds."""
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    losses, seconds = [], 0.0
    for epoch in range(epochs):
        for packed, target in batches(letters, capitals, 32, epoch):
            began = time.perf_counter()
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(model(packed), target)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            seconds += time.perf_counter() - began
            losses.append(float(loss.detach()))
    return losses, seconds


def f1(found: Tensor, truth: Tensor) -> float:
    """Return the harmonic mean of precision and recall."""
    right = float((found & truth).sum())
    return 2 * right / max(1.0, float(found.sum() + truth.sum()))


def main() -> None:
    """Read, train both ways, judge, draw."""
    parser = make_parser(__doc__, __file__)
    parser.add_argument("--threads", type=int, default=1, help="of torch, and so of the kernels")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    hidden, epochs = (32, 2) if options.quick else (64, 4)
    letters, capitals = read_sentences()
    if options.quick:
        letters, capitals = letters[::16], capitals[::16]
    cut = len(letters) // 10
    train_letters, train_capitals = letters[cut:], capitals[cut:]
    count = sum(map(len, letters))
    print(f"Data     {len(letters):,} sentences, {count:,} letters; {cut:,} sentences judge")
    print_kernels()
    print(f"Threads  {options.threads}")

    curves, times = {}, {}
    for name in ("torch.nn", "fusedrnn"):
        torch.manual_seed(0)
        model = Tagger(hidden)
        if name == "fusedrnn":
            print(f"\n{ft.replace(model)}")
        curves[name], times[name] = train(model, train_letters, train_capitals, epochs)
        print(f"{name:9}{times[name]:.1f} s, loss {curves[name][0]:.3f} -> {curves[name][-1]:.3f}")
    apart = [abs(a - b) for a, b in zip(*curves.values(), strict=True)]
    print(f"         {times['torch.nn'] / times['fusedrnn']:.1f} times as fast; losses at most {max(apart):.1e} apart")

    with torch.no_grad():
        packed, target = batches(letters[:cut], capitals[:cut], cut, 0)[0]
        found, truth = model(packed) > 0, target > 0.5
    first = torch.arange(len(truth)) < packed.batch_sizes[0]
    ours, rule = f1(found, truth), f1(first, truth)
    print(f"F1       LSTM {ours:.3f}, the first letter of a sentence {rule:.3f}")

    from matplotlib import pyplot
    from matplotlib.figure import Figure

    with pyplot.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.plot(
            curves["torch.nn"], color=ORANGE, linewidth=4, alpha=0.5, label=f"torch.nn, {times['torch.nn']:.1f} s"
        )
        axes.plot(curves["fusedrnn"], color=BLUE, linewidth=1, label=f"fusedrnn, {times['fusedrnn']:.1f} s")
        axes.set(title="The same losses, sooner", xlabel="batch", ylabel="loss", yscale="log")
        axes.legend()
        save_figure(figure, options.out)
    if max(apart[:50]) > 1e-3:
        sys.exit("FAILED: the losses should be the same")
    if not curves["fusedrnn"][-1] < 0.9 * curves["fusedrnn"][0] or not (options.quick or ours > rule):
        sys.exit("FAILED: the tagger should learn, and in a full run beat the rule")


if __name__ == "__main__":
    main()
