"""Models drawn at random train as the same ones in torch: fifty steps of ``fit``. For as many as wanted:

FUSEDRNN_TRIES=120 pytest tests/test_torch_drawn_models.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.models import SequenceToSequence, SequenceToVector

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

TRIES = int(os.environ.get("FUSEDRNN_TRIES", "24"))
STEPS = 50
CELLS = {
    "lstm": (fr.LSTM, nn.LSTM, {}),
    "gru": (fr.GRU, nn.GRU, {}),
    "rnn": (fr.RNN, nn.RNN, {}),
    "relu": (fr.RNN, nn.RNN, {"nonlinearity": "relu"}),
}
OPTIMIZERS = {
    "sgd": (fr.SGD, torch.optim.SGD, {"lr": 0.05}),
    "momentum": (fr.SGD, torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (fr.SGD, torch.optim.SGD, {"lr": 0.02, "momentum": 0.8, "nesterov": True}),
    "rmsprop": (fr.RMSprop, torch.optim.RMSprop, {"lr": 3e-3}),
    "adam": (fr.Adam, torch.optim.Adam, {"lr": 5e-3, "weight_decay": 0.01}),
    "adamw": (fr.AdamW, torch.optim.AdamW, {"lr": 5e-3, "weight_decay": 0.1}),
}
LOSSES = {
    "mse": F.mse_loss,
    "huber": F.huber_loss,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "cross_entropy": F.cross_entropy,
}


class Truth(nn.Module):
    """The model in torch, of padded sequences and their lengths."""

    def __init__(self, layer: nn.Module, features: int, outputs: int, pooling: str | None, tokens: int, size: int):
        super().__init__()
        if tokens:
            self.embedding = nn.Embedding(tokens, size)
        self.layer, self.head, self.pooling = layer, nn.Linear(features, outputs), pooling
        self.double()

    def forward(self, x: Any, lengths: Any) -> Any:
        """Return (B, T, outputs), or (B, outputs) of the pooled states."""
        x = self.embedding(x) if hasattr(self, "embedding") else x
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, state = self.layer(packed)
        y = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0]
        valid = torch.arange(x.shape[1])[None, :, None] < lengths[:, None, None]
        if self.pooling == "last":
            h = state[0] if isinstance(state, tuple) else state
            y = torch.cat(tuple(h[-2:] if self.layer.bidirectional else h[-1:]), -1)
        elif self.pooling == "mean":
            y = y.sum(1) / lengths[:, None]
        elif self.pooling == "max":
            y = y.masked_fill(~valid, -torch.inf).amax(1)
        return self.head(y)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """For torch, whose threads cost more than such small models gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("seed", range(TRIES))
def test_fifty_steps_equal_torchs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = list(CELLS)[seed % len(CELLS)]
    recipe = list(OPTIMIZERS)[seed // len(CELLS) % len(OPTIMIZERS)]
    loss, pooling = rng.choice(list(LOSSES)), rng.choice(["", "last", "mean", "max"]) or None
    inputs, hidden, outputs = rng.integers(1, 12), rng.integers(1, 20), rng.integers(2, 7)
    tokens, ragged = int(rng.integers(0, 2) * rng.integers(3, 20)), bool(rng.integers(0, 2))
    batch, steps = rng.integers(2, 9), rng.integers(2, 14)
    clip = float(rng.choice([0.05, 0.5])) if rng.integers(0, 2) else None
    ours, theirs, special = CELLS[cell]
    options: dict[str, Any] = {"num_layers": int(rng.integers(1, 4)), "bidirectional": bool(rng.integers(0, 2))}
    options["bias"] = bool(rng.integers(0, 4))
    options |= special
    layer = ours(int(inputs), int(hidden), dtype="float64", seed=seed, **options)
    embedding = fr.Embedding(tokens, int(inputs), dtype="float64", seed=seed + 1) if tokens else None
    model: Any = (
        SequenceToVector(layer, int(outputs), pooling=pooling, embedding=embedding, seed=seed + 2)
        if pooling
        else SequenceToSequence(layer, int(outputs), embedding=embedding, seed=seed + 2)
    )
    twin = theirs(int(inputs), int(hidden), batch_first=True, **options)
    features = int(hidden) * (1 + options["bidirectional"])
    truth = Truth(twin, features, int(outputs), pooling, tokens, int(inputs))
    truth.load_state_dict({name: torch.from_numpy(value) for name, value in model.state_dict().items()})

    lengths = rng.integers(1, steps + 1, batch) if ragged else np.full(batch, steps)
    lengths[rng.integers(batch)] = steps
    x = rng.integers(0, tokens, (batch, steps)) if tokens else rng.standard_normal((batch, steps, inputs))
    leading = (batch,) if pooling else (batch, steps)
    y: Any = rng.standard_normal((*leading, outputs))
    if loss == "cross_entropy":
        y = rng.integers(0, outputs, leading)
    elif loss == "binary_cross_entropy":
        y = (y > 0).astype(float)

    make, theirs_make, arguments = OPTIMIZERS[recipe]
    history = fr.fit(
        model,
        [(x, y, lengths)] if ragged else [(x, y)],
        loss=str(loss),
        optimizer=lambda each: make(each, **arguments),
        epochs=STEPS,
        batch_size=int(batch),
        clip_norm=clip,
        progress=False,
    )
    optimizer = theirs_make(truth.parameters(), **arguments)
    counts = torch.ones(batch, dtype=torch.bool)
    if pooling is None:
        counts = torch.arange(steps)[None] < torch.from_numpy(lengths)[:, None]
    curve = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        pred = truth(torch.from_numpy(x), torch.from_numpy(lengths))
        value = LOSSES[loss](pred[counts], torch.from_numpy(y)[counts])
        value.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(truth.parameters(), clip)
        optimizer.step()
        curve.append(value.item())
    np.testing.assert_allclose(history["loss"], curve, rtol=1e-9, atol=1e-12)
    for name, param in truth.state_dict().items():
        np.testing.assert_allclose(model.params[name], param.numpy(), rtol=1e-6, atol=1e-8, err_msg=name)
    assert curve[-1] < curve[0]
