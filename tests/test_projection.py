"""LSTMs with a projection of h, against torch, the reference and themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
import reference
from problems import flat
from tolerance import assert_forward, assert_gradient, assert_same_bits

Array = NDArray[Any]
pytestmark = pytest.mark.every_isa

SIZES = [(3, 2, 1), (5, 7, 3), (4, 20, 16), (6, 33, 17), (2, 45, 20)]  # I, H, P around the vector


def make(inputs: int = 3, hidden: int = 9, size: int = 5, **more: Any) -> Any:
    return fr.LSTM(inputs, hidden, proj_size=size, init="torch", seed=3, **more)


def arguments(layer: Any, batch: int = 3, steps: int = 6) -> tuple[Array, tuple[Array, Array]]:
    rng = np.random.default_rng(5)
    slabs = layer.num_layers * layer.num_directions
    axes = (batch, steps) if layer.batch_first else (steps, batch)
    x = rng.normal(0.1, 1, (*axes, layer.input_size))
    h0, c0 = (rng.uniform(-0.5, 0.6, (slabs, batch, size)) for size in (layer.proj_size, layer.hidden_size))
    return x.astype(layer.dtype), (h0.astype(layer.dtype), c0.astype(layer.dtype))


def truth(layer: Any, x: Array, h0: Array, c0: Array, lengths: Any, params: Any) -> tuple[Array, ...]:
    def made(suffix: str) -> reference.Cell:
        variant = layer.variant
        step = reference.lstm
        if not variant.plain:
            step = reference.varied("lstm", variant.activations, variant.clip, variant.coupled).step
        return reference.projected(params[f"weight_hr{suffix}"], step)

    shape = {"num_layers": layer.num_layers, "bidirectional": layer.bidirectional, "batch_first": layer.batch_first}
    return reference.stack(made, params, x, h0, c0, lengths=lengths, **shape)


def check(layer: Any, lengths: Any = None, batch: int = 3, steps: int = 6) -> None:
    """Outputs, and every gradient along a random direction."""
    x, state = arguments(layer, batch, steps)
    double = {name: value.astype(np.float64) for name, value in layer.params.items()}
    at = {"x": x.astype(np.float64), "h0": state[0].astype(np.float64), "c0": state[1].astype(np.float64), **double}

    def function(**moved: Any) -> tuple[Array, ...]:
        return truth(layer, moved["x"], moved["h0"], moved["c0"], lengths, {name: moved[name] for name in double})

    expected = function(**at)
    (y, final), tape = layer.forward(x, state, lengths)
    for ours, other, right in zip(flat(y, final), flat(*layer(x, state, lengths)), expected, strict=True):
        assert_forward(ours, right)
        assert_same_bits(ours, other)
    rng = np.random.default_rng(11)
    dy, dh, dc = (rng.normal(0.1, 1, each.shape) for each in expected)
    layer.zero_grad()
    dx, dstate = layer.backward(tape, dy, (dh, dc))
    gradients = {"x": dx, "h0": dstate[0], "c0": dstate[1], **layer.grads}
    assert gradients.keys() == at.keys()
    for name, gradient in gradients.items():
        if gradient.size < 100:
            assert_gradient(gradient, reference.gradient(function, at, (dy, dh, dc), name), f"d{name}")
        along = rng.normal(0, 1, gradient.shape)
        right = reference.slope(function, at, (dy, dh, dc), name, along)
        bound = 1e-9 if layer.dtype == np.float64 else 1e-3
        assert abs(np.sum(gradient * along) - right) <= bound * max(1, abs(right)), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("sizes", SIZES)
def test_outputs_and_gradients(sizes: tuple[int, int, int], dtype: str) -> None:
    check(make(*sizes, dtype=dtype), lengths=[6, 0, 3])


def test_layers_directions_layouts_and_no_biases() -> None:
    shape = {"num_layers": 2, "bidirectional": True, "batch_first": False, "dtype": "float64", "bias": False}
    check(make(2, 5, 3, **shape), lengths=[2, 4], batch=2, steps=4)


def test_with_other_functions() -> None:
    check(make(dtype="float64", activations=["hard_sigmoid", "relu", "softsign"], clip=0.7, coupled=True))


@pytest.mark.parametrize(("batch", "hidden", "size"), [(1, 700, 600), (3, 530, 90)])
def test_sums_in_pieces_and_threads(batch: int, hidden: int, size: int, restore_threads: None) -> None:
    layer = make(5, hidden, size)
    x, state = arguments(layer, batch, 5)
    whole = {}
    for threads in (1, 2):
        fr.set_num_threads(threads)
        if threads == 2 and batch == 1:
            assert layer.plan(5, 1) == "by_unit x2"
        (y, final), tape = layer.forward(x, state)
        layer.zero_grad()
        dx, dstate = layer.backward(tape, y + 1, final)
        whole[threads] = [y, *final, dx, *dstate, *(g.copy() for g in layer.grads.values())]
    for a, b in zip(whole[1], whole[2], strict=True):
        assert_same_bits(a, b)
    check(make(5, hidden, size, dtype="float64"), batch=batch, steps=3)


def test_torch_agrees() -> None:
    torch = pytest.importorskip("torch")
    for layers, directions, bias in ((1, 1, True), (2, 2, True), (2, 1, False)):
        theirs = torch.nn.LSTM(
            4, 11, layers, bias=bias, batch_first=True, bidirectional=directions == 2, proj_size=6, dtype=torch.float64
        )
        ours = fr.LSTM(4, 11, layers, bias=bias, bidirectional=directions == 2, proj_size=6, dtype="float64")
        assert set(ours.params) == set(theirs.state_dict())
        ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
        x, state = arguments(ours)
        inputs = [torch.tensor(value, requires_grad=True) for value in (x, *state)]
        y, final = theirs(inputs[0], tuple(inputs[1:]))
        (own, own_final), tape = ours.forward(x, state)
        for a, b in zip(flat(own, own_final), (y, *final), strict=True):
            assert_forward(a, b.detach().numpy())
        torch.autograd.backward((y, *final), [torch.from_numpy(g) for g in (own + 1, *own_final)])
        dx, dstate = ours.backward(tape, own + 1, own_final)
        for a, b in zip((dx, *dstate), inputs, strict=True):
            assert_gradient(a, b.grad.numpy())
        for name, value in theirs.named_parameters():
            assert_gradient(ours.grads[name], value.grad.numpy(), name)


def test_resets_streams_states_files(tmp_path: Path) -> None:
    layer = make(3, 19, 6, num_layers=2)
    x, state = arguments(layer, 4, 8)
    whole, final = layer(x, state)
    first, middle = layer(x[:, :5], state)
    second, last = layer(x[:, 5:], middle)
    for a, b in zip((whole[:, :5], whole[:, 5:], *final), (first, second, *last), strict=True):
        assert_same_bits(a, b)
    marks = np.zeros((4, 8), bool)
    marks[:, 5] = True
    (y, end), tape = layer.forward(x, state, resets=marks, reset_state=state)
    assert_same_bits(y[:, 5:], layer(x[:, 5:], state)[0])
    _, dstate, dreset = layer.backward(tape, y, end)
    assert [part.shape for part in (*dstate, *dreset)] == [(2, 4, 6), (2, 4, 19)] * 2
    stream = layer.stream(4)
    stream.reset(state)
    for step in range(8):
        assert_same_bits(stream.step(np.ascontiguousarray(x[:, step])), whole[:, step])
    for a, b in zip(stream.state, final, strict=True):
        assert_same_bits(a, b)
    layer.save(tmp_path / "layer.safetensors")
    loaded = fr.load(tmp_path / "layer.safetensors")
    assert loaded.config() == layer.config()
    assert_same_bits(loaded(x, state)[0], whole)
    (y, _), tape = layer.forward(x, state)
    before = layer.backward(tape, y, None)[0]
    assert_same_bits(layer.backward(tape, y, None)[0], before)  # a tape that is used again


def test_in_models() -> None:
    x = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    layer = make(3, 12, 5, bidirectional=True)
    model = fr.Sequential(layer, fr.LSTM(10, 6, proj_size=2), fr.Linear(2, 1))
    assert model(x).shape == (4, 7, 1) and "(B, T, 10)" in str(model)
    vector = fr.models.SequenceToVector(make(3, 12, 5, bidirectional=True), fr.Linear(10, 2))
    assert vector(x, lengths=[7, 3, 1, 0]).shape == (4, 2)
    history = fr.fit(vector, x, np.zeros((4, 2), np.float32), epochs=3, batch_size=2, progress=False, seed=0)
    assert history["loss"][-1] < history["loss"][0]
    assert fr.Bidirectional(make(3, 12, 5))(x)[0].shape == (4, 7, 10)
    dropped = make(3, 12, 5, num_layers=2, dropout=0.5)
    (y, _), tape = dropped.forward(x)
    assert dropped.backward(tape, y)[0].shape == x.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proj_size": 5}, r"proj_size is 5; expected less than hidden_size = 4"),
        ({"proj_size": 4}, r"proj_size is 4; expected less than hidden_size = 4"),
        ({"proj_size": -1}, r"proj_size is -1"),
        ({"proj_size": 2.0}, r"proj_size is "),
        ({"proj_size": True}, r"proj_size is "),
        ({"proj_size": 2, "peephole": True}, r"proj_size is 2 with peephole"),
        ({"proj_size": 2, "compute_dtype": "bfloat16"}, r"compute_dtype is bfloat16; expected float32 for a cell"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^LSTM: {message}"):
        fr.LSTM(3, 4, **options)


def test_wrong_states_are_named() -> None:
    layer, x = make(3, 9, 5, num_layers=2, dropout=0.5), np.zeros((2, 4, 3), np.float32)
    h, c = np.zeros((2, 2, 9), np.float32), np.zeros((2, 2, 9), np.float32)
    for call in (layer, layer.forward):
        with pytest.raises(ValueError, match=r"h0 has shape \(2, 2, 9\); expected .*proj_size\) = \(2, 2, 5\)"):
            call(x, (h, c))
        with pytest.raises(ValueError, match=r"c0 has shape \(2, 2, 5\); expected .*hidden\) = \(2, 2, 9\)"):
            call(x, (h[..., :5], c[..., :5]))
    with pytest.raises(ValueError, match="keras: LSTM has proj_size=5"):
        pytest.importorskip("h5py")
        fr.keras.save_weights(layer, "m.weights.h5")
    with pytest.raises(ValueError, match="gradient_flow: LSTM has proj_size=5"):
        fr.diagnostics.gradient_flow(layer, x)
