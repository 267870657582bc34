"""Whole training steps: ``fusedrnn.fit`` beside the same loop in PyTorch, with its fused Adam.

Called by ``python bench/compare.py --fit``. Both begin with the same weights and get the same batches; the losses of
the first steps are compared before anything is timed.
"""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

import fusedrnn as fr
from fusedrnn.models import EncoderDecoder, SequenceToSequence, SequenceToVector

STEPS = 8  # of an epoch


@dataclass(frozen=True)
class FitCase:
    """A model in both, and what makes a batch."""

    name: str
    ours: Callable[[], fr.Layer]
    theirs: Callable[[], nn.Module]
    names: dict[str, str]  # prefixes of our parameters' names, and of theirs
    batch: Callable[[np.random.Generator], tuple[Any, Any]]
    loss: str = "cross_entropy"


class Tagger(nn.Module):
    """Tokens or vectors in, an output for each step or for the last one."""

    def __init__(
        self, layer: nn.Module, features: int, outputs: int, tokens: int = 0, size: int = 0, last: bool = False
    ):
        super().__init__()
        self.embedding = nn.Embedding(tokens, size) if tokens else nn.Identity()
        self.layer, self.head, self.last = layer, nn.Linear(features, outputs), last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, T, outputs), or (B, outputs)."""
        y, state = self.layer(self.embedding(x))
        return self.head((state[0] if isinstance(state, tuple) else state)[-1] if self.last else y)


class Translator(nn.Module):
    """An encoder-decoder with Luong's dot attention, taught with its target."""

    def __init__(self, tokens: int, size: int, hidden: int):
        super().__init__()
        self.source, self.target = nn.Embedding(tokens, size), nn.Embedding(tokens, size)
        self.encoder = nn.GRU(size, hidden, batch_first=True)
        self.decoder = nn.GRU(size, hidden, batch_first=True)
        self.combine, self.head = nn.Linear(2 * hidden, hidden, bias=False), nn.Linear(hidden, tokens)

    def forward(self, source: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return (B, T, tokens)."""
        memory, state = self.encoder(self.source(source))
        h, _ = self.decoder(self.target(inputs), state)
        shares = (h @ memory.transpose(1, 2)).softmax(-1)
        return self.head(torch.tanh(self.combine(torch.cat((shares @ memory, h), -1))))


def cases() -> Iterator[FitCase]:
    """Yield what is measured."""
    same = {"": ""}
    for batch, tokens in ((1, 64), (32, 64), (128, 64), (32, 1000), (32, 10_000), (16, 50_000)):
        yield FitCase(
            f"characters B={batch} V={tokens}",
            lambda v=tokens: SequenceToSequence(
                fr.LSTM(64, 128, seed=1), v, embedding=fr.Embedding(v, 64, seed=2), seed=3
            ),
            lambda v=tokens: Tagger(nn.LSTM(64, 128, batch_first=True), 128, v, v, 64),
            same,
            lambda rng, b=batch, v=tokens: (rng.integers(0, v, (b, 50)), rng.integers(0, v, (b, 50))),
        )
    yield FitCase(
        "tagger B=32",
        lambda: SequenceToSequence(fr.LSTM(32, 64, bidirectional=True, seed=1), 12, seed=2),
        lambda: Tagger(nn.LSTM(32, 64, batch_first=True, bidirectional=True), 128, 12),
        same,
        lambda rng: (rng.standard_normal((32, 40, 32)).astype("float32"), rng.integers(0, 12, (32, 40))),
    )
    for batch in (1, 32, 128):
        yield FitCase(
            f"windows B={batch}",
            lambda: SequenceToVector(fr.GRU(6, 32, seed=1), 1, seed=2),
            lambda: Tagger(nn.GRU(6, 32, batch_first=True), 32, 1, last=True),
            same,
            lambda rng, b=batch: (
                rng.standard_normal((b, 48, 6)).astype("float32"),
                rng.standard_normal((b, 1)).astype("float32"),
            ),
            "mse",
        )
    yield FitCase(
        "encoder-decoder B=32",
        lambda: EncoderDecoder(
            fr.GRU(64, 64, seed=1),
            fr.GRU(64, 64, seed=2),
            200,
            source_embedding=fr.Embedding(200, 64, seed=3),
            target_embedding=fr.Embedding(200, 64, seed=4),
            attention="dot",
            start=0,
            end=1,
            seed=5,
        ),
        lambda: Translator(200, 64, 64),
        {
            "source_embedding.": "source.",
            "encoder.": "encoder.",
            "decoder.embedding.": "target.",
            "decoder.layer.": "decoder.",
            "decoder.attention.combine.": "combine.",
            "decoder.head.": "head.",
        },
        lambda rng: ((rng.integers(0, 200, (32, 20)), rng.integers(0, 200, (32, 20))), rng.integers(0, 200, (32, 20))),
    )


def measure(case: FitCase, rounds: int, seconds: float) -> tuple[float, float, float]:
    """Return the median seconds of a step of ours and of theirs, and how far the losses are apart.

    With one thread they are those of the processor, which other work on the machine hardly changes; with more, those
    of the wall. Rounds end early once they have taken ``seconds``.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    rng = np.random.default_rng(0)
    batches = [case.batch(rng) for _ in range(STEPS)]
    model, module = case.ours(), case.theirs()
    _copy(model, module, case.names)
    optimizer, adam = fr.Adam(model), torch.optim.Adam(module.parameters(), fused=True)
    tensors = [
        (tuple(map(torch.from_numpy, x if isinstance(x, tuple) else (x,))), torch.from_numpy(y)) for x, y in batches
    ]
    ours = lambda: _fit(case, model, optimizer, batches)  # noqa: E731
    theirs = lambda: _loop(case, module, adam, tensors)  # noqa: E731
    apart = abs(ours() - theirs())
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    for index in range(rounds):
        for run, taken in zip((ours, theirs), times, strict=True):
            start = clock()
            run()
            taken.append((clock() - start) / STEPS)
        if index >= 2 and time.perf_counter() > end:
            break
    return median(times[0]), median(times[1]), apart


def profile(case: FitCase) -> str:
    """Return where the steps of an epoch of ours spend their time."""
    batches = [case.batch(np.random.default_rng(0)) for _ in range(STEPS)]
    model = case.ours()
    optimizer = fr.Adam(model)
    _fit(case, model, optimizer, batches)
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(_fit, case, model, optimizer, batches)
    calls = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    whole = max(cumulative for _, _, _, cumulative, _ in calls.values())
    own = sorted(((seconds, name) for name, (_, _, seconds, _, _) in calls.items()), reverse=True)[:12]
    lines = [
        f"  {seconds / whole:5.0%}  {file.rpartition('fusedrnn/')[2]}:{line} {name}"
        for seconds, (file, line, name) in own
    ]
    return "\n".join(lines)


def main(rounds: int, seconds: float, words: list[str], profiled: bool) -> int:
    """Print a table of all cases whose names have one of the words, each measured for so many rounds or seconds."""
    print(f"{'one step of training':28} {'fusedrnn':>10} {'PyTorch':>10} {'ratio':>7}   losses apart")
    for case in cases():
        if words and not any(word in case.name for word in words):
            continue
        ours, theirs, apart = measure(case, rounds, seconds)
        print(
            f"{case.name:28} {ours * 1e3:7.2f} ms {theirs * 1e3:7.2f} ms {theirs / ours:6.2f}x   {apart:.1e}",
            flush=True,
        )
        if profiled:
            print(profile(case), flush=True)
    return 0


def _fit(case: FitCase, model: fr.Layer, optimizer: fr.Optimizer, batches: list[Any]) -> float:
    history = fr.fit(
        model, batches, loss=case.loss, optimizer=optimizer, epochs=1, batch_size=1, clip_norm=1.0, progress=False
    )
    return history["loss"][0]


def _loop(case: FitCase, module: nn.Module, adam: torch.optim.Optimizer, batches: list[Any]) -> float:
    losses = []
    for x, y in batches:
        adam.zero_grad()
        pred = module(*x)
        if case.loss == "mse":
            loss = nn.functional.mse_loss(pred, y)
        else:
            loss = nn.functional.cross_entropy(pred.reshape(-1, pred.shape[-1]), y.reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        adam.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def _copy(model: fr.Layer, module: nn.Module, names: dict[str, str]) -> None:
    """Give their module our weights."""
    state = {}
    for name, array in model.params.items():
        prefix = next(each for each in names if name.startswith(each))
        state[names[prefix] + name.removeprefix(prefix)] = torch.from_numpy(array.copy())
    module.load_state_dict(state)
