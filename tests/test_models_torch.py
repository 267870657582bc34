"""Training equals training of the same model in torch: same initial weights, same order of the data, same optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from tolerance import CURVES
from torch_pairs import LENGTHS, PAIRS, SAMPLES, SOURCE_LENGTHS, nn, torch

BATCH, EPOCHS = 4, 17  # 51 steps


def in_dtype(layer: Any, dtype: str) -> Any:
    """Return the same model in another dtype."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: dtype if k == "dtype" else changed(v) for k, v in value.items()}
        return [changed(v) for v in value] if isinstance(value, list) else value

    twin = type(layer).from_config(changed(layer.config()))
    twin.load_state_dict(layer.state_dict())
    return twin


@dataclass(frozen=True)
class Recipe:
    """An optimizer here and in torch, and how the gradients are clipped."""

    ours: Callable[[Any], fr.training.Optimizer]
    theirs: Callable[[Any], Any]
    clip_norm: float | None = None
    clip_value: float | None = None


RECIPES = {
    "adam": Recipe(lambda m: fr.Adam(m, lr=1e-2), lambda p: torch.optim.Adam(p, lr=1e-2)),
    "sgd, momentum, clipped norm": Recipe(
        lambda m: fr.SGD(m, lr=0.3, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.9), clip_norm=0.1
    ),
    "adamw, clipped values": Recipe(
        lambda m: fr.AdamW(m, lr=1e-2, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
        clip_value=0.02,
    ),
}


def torch_curve(truth: Any, recipe: Recipe, inputs: Any, target: Any, loss: Any, lengths: list[Any]) -> list[float]:
    """Train as ``fit`` with seed 1 does; the clipping must have something to do."""
    optimizer, clipped = recipe.theirs(truth.parameters()), 0
    per_step = target.ndim == 3 or (target.ndim == 2 and target.dtype == torch.int64)
    order_rng, curve = np.random.default_rng(1), []
    for _ in range(EPOCHS):
        order, total, weight = order_rng.permutation(SAMPLES), 0.0, 0
        for start in range(0, SAMPLES, BATCH):
            rows = torch.from_numpy(order[start : start + BATCH])
            optimizer.zero_grad()
            chosen = [n[rows] for n in lengths]
            value = loss(truth(*(x[rows] for x in inputs), *chosen), target[rows], chosen[-1])
            # Every label counts alike over an epoch: a batch of few is weighed by the labels that it lacks.
            count, usual = (
                (int(chosen[-1].sum()), float(lengths[-1].double().mean()) * len(rows)) if per_step else (4, 4)
            )
            (value * (count / usual)).backward()
            if recipe.clip_value is not None:
                clipped += max(float(p.grad.abs().max()) for p in truth.parameters()) > recipe.clip_value
                nn.utils.clip_grad_value_(truth.parameters(), recipe.clip_value)
            if recipe.clip_norm is not None:
                clipped += float(nn.utils.clip_grad_norm_(truth.parameters(), recipe.clip_norm)) > recipe.clip_norm
            optimizer.step()
            total, weight = total + value.item() * count, weight + count
        curve.append(total / weight)
    assert clipped > 0 or (recipe.clip_norm is None and recipe.clip_value is None)
    return curve


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", PAIRS)
def test_loss_curves_equal_torchs(name: str, recipe: str, dtype: str) -> None:
    model, truth, inputs, target, loss, torch_loss = PAIRS[name](np.random.default_rng(3))
    model, truth = in_dtype(model, dtype), truth.to(getattr(torch, dtype))
    truth.load_state_dict({key: torch.from_numpy(value) for key, value in model.state_dict().items()})
    inputs = tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs)
    target = target.astype(dtype) if target.dtype.kind == "f" else target
    timed = not name.startswith("stacked")
    lengths: Any = LENGTHS if timed else None
    if len(inputs) == 2:
        lengths = (SOURCE_LENGTHS, LENGTHS) if name.startswith("encoder-decoder") else (None, LENGTHS)
    chosen = RECIPES[recipe]
    history = fr.fit(
        model,
        inputs if len(inputs) == 2 else inputs[0],
        target,
        lengths=lengths,
        loss=loss,
        optimizer=chosen.ours,
        epochs=EPOCHS,
        batch_size=BATCH,
        clip_norm=chosen.clip_norm,
        clip_value=chosen.clip_value,
        seed=1,
        progress=False,
    )
    used = lengths if isinstance(lengths, tuple) else (LENGTHS,)
    tensors = [torch.from_numpy(n) for n in used if n is not None]
    data = [torch.from_numpy(x) for x in inputs], torch.from_numpy(target)
    curve = torch_curve(truth, chosen, *data, torch_loss, tensors)
    assert history["loss"][-1] < history["loss"][0]
    errors = np.abs(np.array(history["loss"]) - curve)
    assert np.max(errors) <= CURVES[dtype], f"{name}, {recipe}: the curves differ by {np.max(errors):.1e}"
