"""See gradients vanish and explode on their way back through time, and what helps.

A recurrent network without its non-linearity has dh(t)/dh(0) = (W^T)^t: over 200 steps, a spectral radius of 0.9 leaves
1e-9 of a gradient, one of 1.1 makes it 1e8 times as large. Two problems need a memory of 200 steps:

    adding  Two of 200 random numbers are marked, one in each half. Say their sum at the end. The mean squared error of
            always answering 1 is 1/6.
    recall  The copy problem with one symbol: read one of 8 symbols, then 200 blanks, then a cue. Say the symbol.

Each remedy is trained beside the same network without it, which fails. Errors are measured on validation samples as
training goes on; the weights that did best there are judged once, by other samples.

    python examples/gradient_flow.py             # a minute or two; saves figures to examples/output/
    python examples/gradient_flow.py --quick     # 100 steps instead of 200, and not all remedies: 20 seconds

The exit code is not 0 if a remedy does not help.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shared import BLUE, GREEN, INK, ORANGE, STYLE, TRUTH, print_kernels

import fusedrnn as fr
from fusedrnn.diagnostics import gate_trace, gradient_flow, plot_gradient_flow
from fusedrnn.init import RecurrentInit
from fusedrnn.models import Residual, SequenceToVector
from fusedrnn.training import SpectralNormLimit, accuracy, mse

Array = NDArray[Any]
SYMBOLS, BATCH, DEPTH, POINTS = 8, 32, 6, 12
FAILS, COLOURS = TRUTH, (BLUE, GREEN, ORANGE)


def adding(rng: np.random.Generator, samples: int, steps: int) -> tuple[Array, Array]:
    """Return x (N, T, 2), random numbers beside their marks, and y (N, 1)."""
    marks = np.stack((rng.integers(0, steps // 2, samples), rng.integers(steps // 2, steps, samples)), axis=1)
    rows = np.arange(samples)[:, np.newaxis]
    x = np.zeros((samples, steps, 2), np.float32)
    x[..., 0] = rng.random((samples, steps))
    x[rows, marks, 1] = 1
    return x, x[rows, marks, 0].sum(axis=1, keepdims=True)


def recall(rng: np.random.Generator, samples: int, steps: int) -> tuple[Array, Array]:
    """Return x (N, T + 2, 9), a symbol, blanks and a cue, and the symbols y (N,)."""
    y = rng.integers(0, SYMBOLS, samples)
    x = np.zeros((samples, steps + 2, SYMBOLS + 1), np.float32)
    x[np.arange(samples), 0, y] = 1
    x[:, -1, SYMBOLS] = 1
    return x, y


@dataclass
class Run:
    """One network on one problem, its errors on validation samples, and that of its best weights on others.

    ``remedy`` says whether it has what should help; ``must`` whether this program fails unless the network does.
    """

    name: str
    make: Callable[[], fr.Layer]
    lr: float
    remedy: bool = True
    must: str = "learn"
    clip: float | None = 1.0
    clip_value: float | None = None
    optimizer: Callable[..., fr.training.Optimizer] = fr.Adam
    callbacks: tuple[fr.training.Callback, ...] = ()
    curve: list[float] = field(default_factory=list)
    judged: float = float("nan")
    model: Any = None


RNN = partial(fr.RNN, seed=1)
LSTM = partial(fr.LSTM, seed=1)


def adding_runs(steps: int, quick: bool) -> list[Run]:
    """Gates, the forget bias, and clipping, which takes too long for ``quick``."""
    relu = partial(RNN, 2, 32, nonlinearity="relu", init=RecurrentInit("identity"))
    clipping = [
        Run("RNN, relu, W = identity, not clipped", relu, 1e-3, remedy=False, must="fail", clip=None),
        Run("the same, gradients clipped to norm 1", relu, 1e-3),
    ]
    return [
        Run("RNN", partial(RNN, 2, 32, init="torch"), 1e-3, remedy=False, must="fail"),
        *([] if quick else clipping),
        Run("LSTM, forget bias 1", partial(LSTM, 2, 32), 2e-2, remedy=False, must=""),
        Run("LSTM, biases for long memory", partial(LSTM, 2, 32, init=RecurrentInit(memory_steps=steps)), 2e-2),
    ]


def recall_runs() -> list[Run]:
    """Orthogonal matrices, the limit of the spectral norm, and clipping of each element."""
    inputs = SYMBOLS + 1
    large, growing = (partial(RNN, inputs, 64, init=RecurrentInit(gain=gain)) for gain in (3.0, 1.1))
    sgd = partial(Run, make=growing, lr=0.03, optimizer=fr.SGD, clip=None)
    return [
        Run("RNN", partial(RNN, inputs, 64, init="torch"), 1e-3, remedy=False, must="fail"),
        Run("RNN, W orthogonal", partial(RNN, inputs, 64), 1e-3),
        Run("RNN, spectral norm 3", large, 1e-3, remedy=False, must=""),
        Run("the same, kept at a norm of at most 1", large, 1e-3, callbacks=(SpectralNormLimit(1.0),)),
        sgd("RNN, spectral norm 1.1, SGD, not clipped", remedy=False, must="fail"),
        sgd("the same, gradients clipped to ±0.01", clip_value=0.01),
    ]


def deep_runs(steps: int) -> list[Run]:
    """Skip connections."""
    lstm = partial(fr.LSTM, init=RecurrentInit(memory_steps=steps))

    def residual() -> fr.Layer:
        return Residual(*(lstm(32 if k else SYMBOLS + 1, 32, seed=10 + k) for k in range(DEPTH)), seed=9)

    return [
        Run(f"{DEPTH} LSTMs for long memory", partial(lstm, SYMBOLS + 1, 32, DEPTH, seed=1), 1e-2, False, must="fail"),
        Run("the same with skip connections", residual, 1e-2),
    ]


def train(run: Run, problem: Any, steps: int, updates: int) -> None:
    """Train on fresh samples, validate at POINTS moments, and judge the best weights by samples of their own."""
    begin = time.perf_counter()
    rng, valid, unseen = (
        np.random.default_rng(0),
        *(problem(np.random.default_rng(seed), 400, steps) for seed in (99, 7)),
    )
    classes = problem is recall
    model = SequenceToVector(run.make(), SYMBOLS if classes else 1, seed=2)
    optimizer = run.optimizer(model, lr=run.lr)
    run.curve.append(error(model, *valid))
    best = model.state_dict()
    with np.errstate(over="ignore", invalid="ignore"):  # an explosion is what some runs show
        for part in range(POINTS):
            fr.fit(
                model,
                *problem(rng, BATCH * (updates // POINTS), steps),
                loss="cross_entropy" if classes else "mse",
                optimizer=optimizer,
                epochs=1,
                batch_size=BATCH,
                clip_norm=run.clip,
                clip_value=run.clip_value,
                callbacks=run.callbacks,
                progress=False,
                seed=part,
            )
            run.curve.append(error(model, *valid))
            if run.curve[-1] <= min(run.curve):
                best = model.state_dict()
    model.load_state_dict(best)
    run.model, run.judged = model, error(model, *unseen)
    what = "symbols recalled" if classes else "mean squared error"
    shown = f"{1 - run.judged:6.1%}" if classes else f"{run.judged:6.4f}"
    print(f"  {run.name:40s} {what} {shown}   ({time.perf_counter() - begin:.0f} s)", flush=True)


def error(model: fr.Layer, x: Array, y: Array) -> float:
    """Return the share of wrong symbols, or the mean squared error."""
    pred = model(x)
    return 1 - accuracy(pred, y) if y.ndim == 1 else mse(pred, y)[0]


def draw_flows(steps: int, path: Path) -> None:
    """Compare networks before any training."""
    x, _ = adding(np.random.default_rng(5), 16, steps)
    layers = {
        "RNN": RNN(2, 32, init="torch"),
        "RNN, W too large": RNN(2, 32, init=RecurrentInit(gain=1.6)),
        "LSTM": LSTM(2, 32),
        "LSTM for long memory": LSTM(2, 32, init=RecurrentInit(memory_steps=steps)),
    }
    plot_gradient_flow({name: gradient_flow(layer, x) for name, layer in layers.items()}, path)


def draw_curves(panels: list[tuple[str, str, float, list[Run]]], updates: list[int], path: Path) -> None:
    """Draw the validation errors over the updates, a panel a problem, the networks without the remedy in grey."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.9 * len(panels), 5.2), layout="constrained")
        grid = figure.subplots(1, len(panels))
        for axes, (title, label, chance, runs), count in zip(grid, panels, updates, strict=True):
            shown = np.linspace(0, count // POINTS * POINTS, POINTS + 1)
            axes.axhline(chance, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label="knowing nothing")
            helped, patterns = iter(COLOURS), iter([(1, 0), (3, 1), (1, 1)])
            for run in runs:
                colour, dashes = (next(helped), (1, 0)) if run.remedy else (FAILS, next(patterns))
                axes.plot(shown, run.curve, color=colour, linewidth=2.2, dashes=dashes, label=run.name)
            axes.set(title=title, xlabel="updates", ylabel=label, ylim=(0, 1.3 * chance))
            axes.legend(fontsize=9, loc="upper left", bbox_to_anchor=(0, -0.14))
        figure.savefig(path, dpi=150)


def main() -> int:
    """Train everything, draw the figures, and say whether each remedy helped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 steps instead of 200, not all remedies")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "output", help="folder of the figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    steps = 100 if options.quick else 200
    updates = [240, 96, 96] if options.quick else [900, 240, 180]

    print_kernels()
    print(f"gradients before training, over {steps} steps")
    for name, layer in (("RNN", RNN(2, 32, init="torch")), ("LSTM", LSTM(2, 32))):
        flow = gradient_flow(layer, adding(np.random.default_rng(5), 16, steps)[0], jacobian_samples=0)["l0"]
        print(f"  {name:40s} norm of dL/dh(0) {np.median(flow.dh[:, 0]):.1e}, x {flow.gain_per_step:.3f} a step back")
    draw_flows(steps, options.out / "gradient_flow.png")

    panels = [
        (f"adding, {steps} steps", "mean squared error", 1 / 6, adding_runs(steps, options.quick)),
        (f"recall after {steps} steps", "share of wrong symbols", 1 - 1 / SYMBOLS, recall_runs()),
        (f"recall after {steps} steps, {DEPTH} layers", "share of wrong symbols", 1 - 1 / SYMBOLS, deep_runs(steps)),
    ]
    for (title, _, _, runs), problem, count in zip(panels, (adding, recall, recall), updates, strict=True):
        print(f"{title}, {count} updates")
        for run in runs:
            train(run, problem, steps, count)
    draw_curves(panels, updates, options.out / "gradient_flow_remedies.png")
    x, _ = adding(np.random.default_rng(7), 1, steps)
    gate_trace(panels[0][3][-1].model, x).plot(options.out / "gradient_flow_gates.png")
    print(f"figures: {options.out}/gradient_flow*.png")

    wrong = []
    for title, _, chance, runs in panels:
        for run in runs:
            held = {"learn": run.judged <= 0.5 * chance, "fail": run.judged >= 0.7 * chance, "": True}
            if not held[run.must]:
                wrong.append(f"{title}: {run.name} should {run.must}; its error is {run.judged:.3f}")
    print("\n".join(wrong) if wrong else "every remedy helped")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
