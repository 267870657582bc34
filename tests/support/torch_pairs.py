"""Models of every pattern and the same written in torch, with data, loss, and submodules named as the children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
from fusedrnn import models

torch = pytest.importorskip("torch")

Array = NDArray[Any]
nn = torch.nn
SAMPLES = 12
LENGTHS = np.array([3, 1, 7, 5, 2, 6, 4, 7, 1, 3, 6, 2])
SOURCE_LENGTHS = np.array([2, 5, 1, 4, 3, 6, 1, 2, 6, 3, 5, 4])


def mask(lengths: Any, steps: int) -> Any:
    return torch.arange(steps) < lengths[:, None]


def packed(layer: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
    """Run a torch layer on the valid steps only."""
    bundle = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, state = layer(bundle)
    return nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], state


def sides(h: Any) -> Any:
    return torch.cat((h[-2], h[-1]), dim=1)


def valid_mse(pred: Any, target: Any, lengths: Any) -> Any:
    valid = mask(lengths, target.shape[1])
    return ((pred - target) ** 2)[valid].mean()


def cross_entropy(pred: Any, target: Any, lengths: Any) -> Any:
    valid = mask(lengths, target.shape[1])
    return nn.functional.cross_entropy(pred[valid], target[valid])


class Torch(nn.Module):  # type: ignore[misc, name-defined]
    """Submodules with the names of the model's children, and a forward function."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.compute = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any) -> Any:
        return self.compute(self, *args)


def group(**parts: Any) -> Any:
    return Torch(lambda self: None, **parts)


def attention() -> Any:
    module = group(combine=nn.Linear(10 + 6, 6, bias=False))
    module.weight = nn.Parameter(torch.zeros(6, 10))
    return module


def seq2seq(rng: np.random.Generator) -> tuple[Any, Any, Any, Any, Any, Any]:
    model = models.SequenceToSequence(fr.LSTM(3, 5, 2, bidirectional=True, seed=1), 2, seed=2)
    truth = Torch(
        lambda m, x, n: m.head(packed(m.layer, x, n)[0]),
        layer=nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True),
        head=nn.Linear(10, 2),
    )
    return model, truth, (rng.standard_normal((SAMPLES, 7, 3)),), rng.standard_normal((SAMPLES, 7, 2)), "mse", valid_mse


def seq2vec(rng: np.random.Generator, pooling: str) -> tuple[Any, Any, Any, Any, Any, Any]:
    model = models.SequenceToVector(
        fr.GRU(4, 5, bidirectional=True, seed=1), 3, pooling=pooling, embedding=fr.Embedding(9, 4, seed=3), seed=2
    )

    def forward(m: Any, x: Any, n: Any) -> Any:
        y, h = packed(m.layer, m.embedding(x), n)
        if pooling == "last":
            return m.head(sides(h))
        if pooling == "mean":
            return m.head(y.sum(1) / n[:, None])
        return m.head(y.masked_fill(~mask(n, y.shape[1])[..., None], -torch.inf).max(1).values)

    truth = Torch(
        forward,
        embedding=nn.Embedding(9, 4),
        layer=nn.GRU(4, 5, bidirectional=True, batch_first=True),
        head=nn.Linear(10, 3),
    )
    x, y = rng.integers(0, 9, (SAMPLES, 7)), rng.integers(0, 3, SAMPLES)
    return model, truth, (x,), y, "cross_entropy", lambda pred, target, n: nn.functional.cross_entropy(pred, target)


def vec2seq(rng: np.random.Generator) -> tuple[Any, Any, Any, Any, Any, Any]:
    model = models.VectorToSequence(
        fr.LSTM(4 + 3, 5, seed=1),
        8,
        vector_size=3,
        embedding=fr.Embedding(8, 4, seed=3),
        condition_inputs=True,
        start=7,
        seed=2,
    )

    def forward(m: Any, v: Any, x: Any, n: Any) -> Any:
        h, c = m.bridge.linear(v).tanh().split(5, dim=1)
        e = torch.cat((m.decoder.embedding(x), v[:, None].expand(-1, x.shape[1], -1)), dim=2)
        return m.decoder.head(m.decoder.layer(e, (h[None], c[None]))[0])

    truth = Torch(
        forward,
        bridge=group(linear=nn.Linear(3, 10)),
        decoder=group(embedding=nn.Embedding(8, 4), layer=nn.LSTM(7, 5, batch_first=True), head=nn.Linear(5, 8)),
    )
    target = rng.integers(0, 8, (SAMPLES, 7))
    inputs = (rng.standard_normal((SAMPLES, 3)), model.decoder_inputs(target))
    return model, truth, inputs, target, "cross_entropy", cross_entropy


def vec2seq_values(rng: np.random.Generator) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Values instead of tokens, two layers, and the vector in the initial state only."""
    model = models.VectorToSequence(fr.GRU(2, 5, 2, seed=1), 2, vector_size=3, seed=2)

    def forward(m: Any, v: Any, x: Any, n: Any) -> Any:
        h = m.bridge.linear(v).tanh().reshape(-1, 2, 5).transpose(0, 1).contiguous()
        return m.decoder.head(m.decoder.layer(x, h)[0])

    truth = Torch(
        forward,
        bridge=group(linear=nn.Linear(3, 10)),
        decoder=group(layer=nn.GRU(2, 5, 2, batch_first=True), head=nn.Linear(5, 2)),
    )
    target = rng.standard_normal((SAMPLES, 7, 2))
    inputs = (rng.standard_normal((SAMPLES, 3)), model.decoder_inputs(target))
    return model, truth, inputs, target, "mse", valid_mse


def encoder_decoder(rng: np.random.Generator) -> tuple[Any, Any, Any, Any, Any, Any]:
    model = models.EncoderDecoder(
        fr.GRU(4, 5, bidirectional=True, seed=1),
        fr.LSTM(4, 6, 2, seed=2),
        8,
        source_embedding=fr.Embedding(9, 4, seed=3),
        target_embedding=fr.Embedding(8, 4, seed=4),
        attention="general",
        start=0,
        end=1,
        seed=5,
    )

    def forward(m: Any, source: Any, x: Any, source_n: Any, n: Any) -> Any:
        memory, final = packed(m.encoder, m.source_embedding(source), source_n)
        state = m.bridge.linear(sides(final)).tanh().reshape(-1, 2, 2, 6).permute(1, 2, 0, 3).contiguous()
        h, _ = m.decoder.layer(m.decoder.embedding(x), (state[0], state[1]))
        scores = h @ m.decoder.attention.weight @ memory.transpose(1, 2)
        scores = scores.masked_fill(~mask(source_n, memory.shape[1])[:, None], -torch.inf)
        context = scores.softmax(-1) @ memory
        return m.decoder.head(m.decoder.attention.combine(torch.cat((context, h), dim=-1)).tanh())

    truth = Torch(
        forward,
        source_embedding=nn.Embedding(9, 4),
        encoder=nn.GRU(4, 5, bidirectional=True, batch_first=True),
        bridge=group(linear=nn.Linear(10, 24)),
        decoder=group(
            embedding=nn.Embedding(8, 4),
            layer=nn.LSTM(4, 6, 2, batch_first=True),
            attention=attention(),
            head=nn.Linear(6, 8),
        ),
    )
    target = rng.integers(0, 8, (SAMPLES, 7))
    inputs = (rng.integers(0, 9, (SAMPLES, 6)), model.decoder_inputs(target))
    return model, truth, inputs, target, "cross_entropy", cross_entropy


def encoder_decoder_dot(rng: np.random.Generator) -> tuple[Any, Any, Any, Any, Any, Any]:
    """The state goes over as it is, the decoder reads values, and scores are plain products."""
    model = models.EncoderDecoder(fr.LSTM(3, 6, seed=1), fr.LSTM(2, 6, seed=2), 2, attention="dot", seed=3)

    def forward(m: Any, source: Any, x: Any, source_n: Any, n: Any) -> Any:
        memory, state = packed(m.encoder, source, source_n)
        h, _ = m.decoder.layer(x, state)
        scores = (h @ memory.transpose(1, 2)).masked_fill(~mask(source_n, memory.shape[1])[:, None], -torch.inf)
        context = scores.softmax(-1) @ memory
        return m.decoder.head(m.decoder.attention.combine(torch.cat((context, h), dim=-1)).tanh())

    truth = Torch(
        forward,
        encoder=nn.LSTM(3, 6, batch_first=True),
        decoder=group(
            layer=nn.LSTM(2, 6, batch_first=True),
            attention=group(combine=nn.Linear(12, 6, bias=False)),
            head=nn.Linear(6, 2),
        ),
    )
    target = rng.standard_normal((SAMPLES, 7, 2))
    inputs = (rng.standard_normal((SAMPLES, 6, 3)), model.decoder_inputs(target))
    return model, truth, inputs, target, "mse", valid_mse


def encoder_decoder_plain(rng: np.random.Generator) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Without attention, and with RNNs: the state is all that the decoder knows of the source."""
    model = models.EncoderDecoder(
        fr.RNN(4, 5, 2, seed=1),
        fr.RNN(4, 5, 2, seed=2),
        8,
        source_embedding=fr.Embedding(9, 4, seed=3),
        target_embedding=fr.Embedding(8, 4, seed=4),
        seed=5,
    )

    def forward(m: Any, source: Any, x: Any, source_n: Any, n: Any) -> Any:
        state = packed(m.encoder, m.source_embedding(source), source_n)[1]
        return m.decoder.head(m.decoder.layer(m.decoder.embedding(x), state)[0])

    truth = Torch(
        forward,
        source_embedding=nn.Embedding(9, 4),
        encoder=nn.RNN(4, 5, 2, batch_first=True),
        decoder=group(embedding=nn.Embedding(8, 4), layer=nn.RNN(4, 5, 2, batch_first=True), head=nn.Linear(5, 8)),
    )
    target = rng.integers(0, 8, (SAMPLES, 7))
    inputs = (rng.integers(0, 9, (SAMPLES, 6)), model.decoder_inputs(target))
    return model, truth, inputs, target, "cross_entropy", cross_entropy


def reversed_steps(x: Any, n: Any) -> Any:
    """Return each sample's valid steps in reverse."""
    steps = torch.arange(x.shape[1])[None]
    at = torch.where(steps < n[:, None], n[:, None] - 1 - steps, steps)
    return x.gather(1, at[..., None].expand_as(x))


def autoencoder(rng: np.random.Generator, inputs: str) -> tuple[Any, Any, Any, Any, Any, Any]:
    reads = {"teacher": 3, "free": 3 + 4, "code": 4}[inputs]
    reverse = inputs != "teacher"
    model = models.SequenceAutoencoder(
        fr.GRU(3, 5, 2, seed=1),
        fr.LSTM(reads, 6, seed=2),
        code_size=4,
        inputs=inputs,
        condition_inputs=inputs == "free",
        reverse=reverse,
        seed=3,
    )

    def forward(m: Any, x: Any, n: Any) -> Any:
        code = m.code(packed(m.encoder, x, n)[1][-1])
        h, c = (each[None].contiguous() for each in m.bridge.linear(code).tanh().split(6, dim=1))
        every = code[:, None].expand(-1, x.shape[1], -1)
        if inputs == "free":
            read, outputs = torch.zeros_like(x[:, :1]), []
            for _ in range(x.shape[1]):
                y, (h, c) = m.decoder.layer(torch.cat((read, every[:, :1]), dim=2), (h, c))
                read = m.decoder.head(y)
                outputs.append(read)
            return reversed_steps(torch.cat(outputs, dim=1), n)
        if inputs == "code":
            return reversed_steps(m.decoder.head(m.decoder.layer(every, (h, c))[0]), n)
        read = torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
        return m.decoder.head(m.decoder.layer(read, (h, c))[0])

    truth = Torch(
        forward,
        encoder=nn.GRU(3, 5, 2, batch_first=True),
        code=nn.Linear(5, 4),
        bridge=group(linear=nn.Linear(4, 12)),
        decoder=group(layer=nn.LSTM(reads, 6, batch_first=True), head=nn.Linear(6, 3)),
    )
    x = rng.standard_normal((SAMPLES, 7, 3))
    return model, truth, (x,), x, "mse", valid_mse


def stacked(rng: np.random.Generator, tied: bool) -> tuple[Any, Any, Any, Any, Any, Any]:
    model = models.StackedAutoencoder((6, 5, 2), activation="tanh", tied=tied, seed=1)

    def forward(m: Any, x: Any, n: Any) -> Any:
        if not tied:
            return m.decoder(m.encoder(x))
        first, second = m.encoder[0], m.encoder[2]
        h = nn.functional.linear(m.encoder(x), second.weight.T, getattr(m.decoder, "0").bias).tanh()
        return nn.functional.linear(h, first.weight.T, getattr(m.decoder, "2").bias)

    if tied:
        decoder = Torch(lambda m: None, **{"0": group(), "2": group()})
        getattr(decoder, "0").bias = nn.Parameter(torch.zeros(5))
        getattr(decoder, "2").bias = nn.Parameter(torch.zeros(6))
    else:
        decoder = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 6))
    truth = Torch(forward, encoder=nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), decoder=decoder)
    x = rng.standard_normal((SAMPLES, 6))
    return model, truth, (x,), x, "mse", lambda pred, target, n: nn.functional.mse_loss(pred, target)


def residual(rng: np.random.Generator) -> tuple[Any, Any, Any, Any, Any, Any]:
    layers = models.Residual(fr.LSTM(3, 5, seed=1), fr.LSTM(5, 5, seed=2), seed=3)
    model = models.SequenceToVector(layers, 2, seed=4)

    def forward(m: Any, x: Any, n: Any) -> Any:
        layer0, layer1 = getattr(m.layer, "0"), getattr(m.layer, "1")
        y = m.layer.shortcut0(x) + packed(layer0, x, n)[0]
        y = y + packed(layer1, y, n)[0]
        return m.head(y[torch.arange(len(n)), n - 1])

    stack = {"0": nn.LSTM(3, 5, batch_first=True), "1": nn.LSTM(5, 5, batch_first=True)}
    truth = Torch(forward, layer=group(**stack, shortcut0=nn.Linear(3, 5, bias=False)), head=nn.Linear(5, 2))
    x, y = rng.standard_normal((SAMPLES, 7, 3)), rng.standard_normal((SAMPLES, 2))
    return model, truth, (x,), y, "mse", lambda pred, target, n: nn.functional.mse_loss(pred, target)


PAIRS: dict[str, Callable[[np.random.Generator], tuple[Any, Any, Any, Any, Any, Any]]] = {
    "seq2seq": seq2seq,
    "seq2vec last": lambda rng: seq2vec(rng, "last"),
    "seq2vec mean": lambda rng: seq2vec(rng, "mean"),
    "seq2vec max": lambda rng: seq2vec(rng, "max"),
    "vec2seq": vec2seq,
    "vec2seq values": vec2seq_values,
    "encoder-decoder general": encoder_decoder,
    "encoder-decoder dot": encoder_decoder_dot,
    "encoder-decoder plain": encoder_decoder_plain,
    "autoencoder teacher": lambda rng: autoencoder(rng, "teacher"),
    "autoencoder free": lambda rng: autoencoder(rng, "free"),
    "autoencoder code": lambda rng: autoencoder(rng, "code"),
    "stacked": lambda rng: stacked(rng, False),
    "stacked tied": lambda rng: stacked(rng, True),
    "residual": residual,
}
