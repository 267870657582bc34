"""Layers that a user writes: with the answers of the protocol they work wherever the package's own do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import models
from fusedrnn.layers import StateSize, Tape, register_layer

LENGTHS = np.array([5, 0, 3])


@register_layer
class Scale(fr.Layer):
    """y = a x, elementwise: no state, no lengths."""

    def __init__(self, features: int, dtype: str = "float64") -> None:
        super().__init__(dtype=dtype)
        self.width = features
        self._set_parameters({"a": np.linspace(0.5, 1.5, features).astype(dtype)})

    def config(self) -> dict[str, Any]:
        return {"features": self.width, "dtype": self.dtype.name}

    def __call__(self, x: Any) -> Any:
        return np.asarray(x, self.dtype) * self.params["a"]

    def forward(self, x: Any) -> tuple[Any, Tape]:
        x = np.asarray(x, self.dtype)
        return self(x), Tape(self, (x,))

    def backward(self, tape: Any, dy: Any) -> Any:
        (x,) = self._saved(tape)
        self.grads["a"][...] += (dy * x).reshape(-1, self.width).sum(axis=0)
        return dy * self.params["a"]

    def input_shape(self) -> Any:
        return "B", "T", self.width

    def output_shape(self, x: Any) -> Any:
        return x


@register_layer
class Leak(fr.Layer):
    """h(t) = a h(t-1) + x(t) over the valid steps: a state (1, B, H) and lengths."""

    takes = frozenset({"lengths"})

    def __init__(self, features: int) -> None:
        super().__init__(dtype="float64")
        self.width = features
        self._set_parameters({"a": np.linspace(0.2, 0.9, features)})

    def config(self) -> dict[str, Any]:
        return {"features": self.width}

    def __call__(self, x: Any, state: Any = None, lengths: Any = None) -> Any:
        return self.forward(x, state, lengths)[0]

    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> tuple[Any, Tape]:
        x = np.asarray(x, self.dtype)
        batch, steps, _ = x.shape
        ends = np.full(batch, steps) if lengths is None else np.asarray(lengths)
        h = np.zeros((batch, self.width)) if state is None else state[0]
        before, y = np.zeros_like(x), np.zeros_like(x)
        for t in range(steps):
            valid = (t < ends)[:, None]
            before[:, t] = h
            h = np.where(valid, self.params["a"] * h + x[:, t], h)
            y[:, t] = np.where(valid, h, 0)
        return (y, h[None]), Tape(self, (before, ends))

    def backward(self, tape: Any, dy: Any, dstate: Any = None) -> Any:
        before, ends = self._saved(tape)
        dx = np.zeros_like(before)
        dh = np.zeros(before.shape[::2]) if dstate is None else dstate[0]
        for t in reversed(range(before.shape[1])):
            valid = (t < ends)[:, None]
            total = dh if dy is None else dh + dy[:, t]
            dx[:, t] = np.where(valid, total, 0)
            self.grads["a"][...] += np.where(valid, total * before[:, t], 0).sum(axis=0)
            dh = np.where(valid, total * self.params["a"], dh)
        return dx, dh[None]

    def input_shape(self) -> Any:
        return "B", "T", self.width

    def output_shape(self, x: Any) -> Any:
        return x

    def state_sizes(self) -> StateSize:
        return StateSize(1, self.width)


def sequential() -> fr.Layer:
    return fr.Sequential(Leak(3), Scale(3), fr.LSTM(3, 4, dtype="float64", seed=1), fr.Linear(4, 2, dtype="float64"))


def residual() -> fr.Layer:
    return models.Residual(Leak(3), fr.GRU(3, 4, dtype="float64", seed=2), Leak(4), seed=3)


MODELS = {
    "sequential": sequential,
    "embedded": lambda: models.SequenceToSequence(Leak(3), 2, seed=1),
    "stateless": lambda: models.SequenceToSequence(Scale(3), 2, seed=1),
    "last": lambda: models.SequenceToVector(Leak(3), 2, seed=1),
    "stateless last": lambda: models.SequenceToVector(Scale(3), 2, seed=1),
    "mean": lambda: models.SequenceToVector(fr.Sequential(Scale(3), Leak(3)), 2, pooling="mean", seed=1),
    "residual": lambda: models.SequenceToVector(residual(), 2, seed=1),
    "autoencoder": lambda: models.SequenceAutoencoder(Leak(3), Leak(3), code_size=2, seed=1),
}


def make_x(width: int = 3) -> Any:
    return np.random.default_rng(4).standard_normal((3, 5, width))


def first(outputs: Any) -> Any:
    return outputs[0] if isinstance(outputs, tuple) else outputs


@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_lengths(name: str) -> None:
    """Gradients agree with differences of the loss; what is past a sample's end changes no bit of them, nor of y."""
    model, x = MODELS[name](), make_x()
    weights = np.random.default_rng(5).standard_normal(first(model(x, lengths=LENGTHS)).shape)

    def loss() -> float:
        return float((weights * first(model.forward(x, lengths=LENGTHS)[0])).sum())

    y, tape = model.forward(x, lengths=LENGTHS)
    dx = first(model.backward(tape, weights * np.ones_like(first(y))))
    for array, gradient in [(x, dx), *((model.params[key], model.grads[key]) for key in model.params)]:
        at = tuple(size // 2 for size in array.shape) if array is not x else (0, 2, 1)
        before = array[at]
        array[at] = before + 1e-6
        above = loss()
        array[at] = before - 1e-6
        below = loss()
        array[at] = before
        assert abs((above - below) / 2e-6 - gradient[at]) <= 1e-6 * max(1.0, abs(gradient[at]))

    gradients = {key: value.copy() for key, value in model.grads.items()}
    model.zero_grad()
    for sample, end in enumerate(LENGTHS):
        x[sample, end:] = 1e3
    again, tape = model.forward(x, lengths=LENGTHS)
    model.backward(tape, weights * np.ones_like(first(y)))
    valid = np.arange(5) < LENGTHS[:, None]
    for one, two in ((first(y), first(again)),):
        assert np.array_equal(one[valid], two[valid]) if one.ndim == 3 else np.array_equal(one, two)
    assert all(np.array_equal(gradients[key], model.grads[key]) for key in gradients)


@pytest.mark.parametrize("name", MODELS)
def test_files_and_summaries(name: str, tmp_path: Path) -> None:
    """``load`` makes the layer again; the summary has the shape of the outputs and a row for every layer."""
    model, x = MODELS[name](), make_x()
    model.save(tmp_path / "model.safetensors")
    y = first(model(x, lengths=LENGTHS))
    assert np.array_equal(first(fr.load(tmp_path / "model.safetensors")(x, lengths=LENGTHS)), y)
    rows = model.summary().rows
    assert tuple({"B": 3, "T": 5}.get(size, size) for size in rows[0].shape) == y.shape
    assert len(rows) == len(list(model.layers()))


@pytest.mark.parametrize("name", MODELS)
def test_fit(name: str) -> None:
    model, x = MODELS[name](), make_x()
    target = x if name == "autoencoder" else first(model(x)) + 1
    history = fr.fit(model, x, target, epochs=3, batch_size=3, lengths=np.array([5, 2, 3]), progress=False, seed=0)
    assert history["loss"][-1] < history["loss"][0]


def test_the_last_output_of_a_layer_with_a_state() -> None:
    """By default it is y at the last valid step, which is the state here."""
    layer, x = Leak(3), make_x()
    y, state = layer(x, lengths=LENGTHS)
    assert np.array_equal(layer.final_output(y, state, LENGTHS), state[0])


def test_decoders_step_through_it() -> None:
    """Generating reads token by token with the state kept; each step gives the bits of the whole call."""
    model = models.SequenceToSequence(Leak(3), 4, embedding=fr.Embedding(4, 3, dtype="float64", seed=1), seed=2)
    prompt = np.array([[1, 2, 0], [3, 3, 1]])
    written = model.generate(prompt, 4, lengths=[3, 2])
    for row, end in enumerate([3, 2]):
        sentence = [*prompt[row, :end], *written.tokens[row]]
        logits = model(np.array([sentence]))[0]
        assert np.array_equal(logits.argmax(axis=1)[end - 1 : end + 3], written.tokens[row])
    decoder = models.VectorToSequence(Leak(3), 3, vector_size=2, seed=1)
    values = decoder.unroll(np.ones((2, 2)), 4)
    inputs = np.concatenate((np.zeros((2, 1, 3)), values[:, :-1]), axis=1)
    assert np.allclose(decoder(np.ones((2, 2)), inputs), values, rtol=1e-12)


def test_encoder_and_decoder() -> None:
    """A state unlike the decoder's goes through a bridge, one alike does not."""
    embedding = fr.Embedding(6, 3, dtype="float64", seed=1)
    alike = models.EncoderDecoder(Leak(3), Leak(3), 6, source_embedding=embedding, target_embedding=embedding)
    unlike = models.EncoderDecoder(
        Leak(3), fr.LSTM(3, 4, dtype="float64"), 6, source_embedding=embedding, target_embedding=embedding
    )
    assert alike.bridge is None and unlike.bridge is not None
    source = np.array([[1, 2, 3], [4, 5, 0]])
    for model in (alike, unlike):
        assert model.generate(source, 4, lengths=[3, 2]).tokens.shape == (2, 4)


def test_streams() -> None:
    x = make_x()
    for layer in (Leak(3), models.Residual(Leak(3), Leak(3))):
        stream = layer.stream(batch_size=3)
        steps = np.stack([stream.step(x[:, t]) for t in range(5)], axis=1)
        assert np.array_equal(steps, layer(x)[0])
    with pytest.raises(TypeError, match="Scale: stream needs a state carried from step to step"):
        Scale(3).stream()
    with pytest.raises(TypeError, match=r"SequenceToVector: layer is .*expected a layer with one output of known size"):
        models.SequenceToVector(fr.Dropout(0.1), 2)
