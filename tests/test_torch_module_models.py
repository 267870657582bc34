"""Models as people write them, trained with torch.nn's layers and with ours from one seed: the same losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fusedrnn.torch as ft

STEPS = 50
TEXT = "the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. " * 12


class CharacterModel(nn.Module):
    """A language model with tied weights and a recurrent matrix of which training drops a part (Merity et al. 2017)."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 24)
        self.lstm = layers.LSTM(24, 24, 2, dropout=0.2)
        self.head = nn.Linear(24, 40)
        self.head.weight = self.embedding.weight
        raw = self.lstm.weight_hh_l0
        del self.lstm._parameters["weight_hh_l0"]
        self.raw = nn.Parameter(raw.detach().clone())
        self.state: Any = None

    def loss(self, step: int) -> Any:
        self.lstm.weight_hh_l0 = F.dropout(self.raw, 0.3, self.training)
        letters = torch.tensor([ord(c) % 40 for c in TEXT[: 8 * 120]]).reshape(8, 120).t()
        at = step % 5 * 20
        x, target = letters[at : at + 20], letters[at + 1 : at + 21]
        y, state = self.lstm(self.embedding(x), self.state if at else None)
        self.state = tuple(s.detach() for s in state)
        return F.cross_entropy(self.head(y[: len(target)]).flatten(0, 1), target.flatten())


class Reader(nn.Module):
    """Convolutions, a recurrent layer in both directions, and CTC (Shi et al. 2015)."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1)))
        self.rnn = layers.GRU(6 * 4, 16, 2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(32, 11)
        generator = torch.Generator().manual_seed(7)
        self.images = torch.randn(6, 1, 8, 24, generator=generator)
        self.targets = torch.randint(1, 11, (6, 5), generator=generator)

    def loss(self, step: int) -> Any:
        columns = self.conv(self.images).flatten(1, 2).transpose(1, 2)  # (B, T, features), not contiguous
        y, _ = self.rnn(columns)
        scores = self.head(y).log_softmax(-1).transpose(0, 1)
        return F.ctc_loss(scores, self.targets, torch.full((6,), 24), torch.full((6,), 5))


class Policy(nn.Module):
    """A recurrent actor and critic on episodes of unequal length inside one rollout."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.ours = layers is ft
        self.lstm = layers.LSTM(5, 20)
        self.actor, self.critic = nn.Linear(20, 3), nn.Linear(20, 1)
        generator = torch.Generator().manual_seed(3)
        self.observations = torch.randn(STEPS, 30, 8, 5, generator=generator)
        self.starts = torch.rand(STEPS, 30, 8, generator=generator) < 0.1
        self.actions = torch.randint(3, (STEPS, 30, 8), generator=generator)
        self.returns = torch.randn(STEPS, 30, 8, generator=generator)

    def loss(self, step: int) -> Any:
        x, starts = self.observations[step], self.starts[step]
        if self.ours:
            y, _ = self.lstm(x, resets=starts)
        else:  # as libraries write it
            state: Any = (torch.zeros(1, 8, 20), torch.zeros(1, 8, 20))
            rows = []
            for row, start in zip(x, starts, strict=True):
                state = tuple(s * (~start).float()[None, :, None] for s in state)
                out, state = self.lstm(row[None], state)
                rows.append(out)
            y = torch.cat(rows)
        chosen = self.actor(y).log_softmax(-1).gather(-1, self.actions[step][..., None])[..., 0]
        value = self.critic(y)[..., 0]
        advantage = (self.returns[step] - value).detach()
        return -(chosen * advantage).mean() + F.mse_loss(value, self.returns[step])


class Translator(nn.Module):
    """An encoder over a packed batch, and a decoder that starts from its state and is taught letter by letter."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(20, 12, padding_idx=0), nn.Embedding(20, 12)
        self.encoder = layers.GRU(12, 18, bidirectional=True)
        self.bridge = nn.Linear(36, 18)
        self.decoder = layers.RNN(12, 18)
        self.cell = layers.GRUCell(18, 18)
        self.head = nn.Linear(18, 20)
        generator = torch.Generator().manual_seed(9)
        self.lengths = torch.tensor([7, 3, 9, 1, 5])
        self.x = torch.randint(1, 20, (9, 5), generator=generator)
        self.y = torch.randint(20, (6, 5), generator=generator)

    def loss(self, step: int) -> Any:
        packed = pack_padded_sequence(self.source(self.x), self.lengths, enforce_sorted=False)
        y, h = self.encoder(packed)
        padded, _ = pad_packed_sequence(y)
        start = torch.tanh(self.bridge(torch.cat([h[0], h[1]], -1))) + 0.01 * padded.sum(0)[:, :18]
        out, _ = self.decoder(self.target(self.y[:-1]), start[None])
        state = start
        rows = []
        for row in out:
            state = self.cell(row, state)
            rows.append(state)
        return F.cross_entropy(self.head(torch.stack(rows)).flatten(0, 1), self.y[1:].flatten())


def losses(make: Callable[[], Any], change: Callable[[Any], Any] = lambda model: None) -> list[float]:
    torch.manual_seed(0)
    model = make()
    change(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    curve = []
    for step in range(STEPS):
        torch.manual_seed(step)  # of dropout
        optimizer.zero_grad()
        loss = model.loss(step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        curve.append(float(loss.detach()))
    return curve


@pytest.mark.parametrize("model", [CharacterModel, Reader, Policy, Translator])
def test_losses_are_torchs(model: Any) -> None:
    """From one seed, over 50 steps with Adam and clipping; and they fall where there is something to learn."""
    expected = losses(lambda: model(nn))
    actual = losses(lambda: model(ft))
    worst = max(abs(a - e) / max(1, abs(e)) for a, e in zip(actual, expected, strict=True))
    assert worst <= 1e-4, f"{model.__name__}: {worst:.1e}"
    if model is not Policy:
        assert actual[-1] < 0.9 * actual[0]
        replaced = losses(lambda: model(nn), ft.replace)
        assert replaced == actual  # bit for bit
