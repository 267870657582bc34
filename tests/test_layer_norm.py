"""Layer-normalised LSTM and GRU, against the reference, a composition of torch's parts and themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
import reference
from fusedrnn.layers import recurrent_parts
from problems import as_state, flat
from tolerance import assert_forward, assert_gradient, assert_same_bits

Array = NDArray[Any]
pytestmark = pytest.mark.every_isa

LAYERS = {"lstm": fr.LSTM, "gru": fr.GRU}


def make(cell: str, inputs: int = 3, hidden: int = 5, **more: Any) -> Any:
    """A layer with random weights, gains and biases included."""
    layer = LAYERS[cell](inputs, hidden, layer_norm=True, init="torch", seed=3, **more)
    rng = np.random.default_rng(7)
    for name, array in layer.params.items():
        if "_ln_" in name:
            array += rng.normal(0.1, 0.4, array.shape).astype(array.dtype)
    return layer


def arguments(layer: Any, batch: int = 3, steps: int = 6) -> tuple[Array, tuple[Array, ...]]:
    rng = np.random.default_rng(5)
    shape = (layer.num_layers * layer.num_directions, batch, layer.hidden_size)
    axes = (batch, steps) if layer.batch_first else (steps, batch)
    x = rng.normal(0.1, 1, (*axes, layer.input_size)).astype(np.float32)
    states = [rng.uniform(-0.5, 0.6, shape).astype(np.float32) for _ in range(2 if layer.op == "LSTM" else 1)]
    return x.astype(layer.dtype), tuple(s.astype(layer.dtype) for s in states)


def truth(layer: Any, x: Array, state: tuple[Array, ...], lengths: Any, params: Any) -> tuple[Array, ...]:
    names = ("weight_ln_ih", "weight_ln_hh", "weight_ln_c", "bias_ln_c")
    shape = {"num_layers": layer.num_layers, "bidirectional": layer.bidirectional, "batch_first": layer.batch_first}

    def made(suffix: str) -> reference.Cell:
        return reference.normalised(layer.op.lower(), *(params.get(name + suffix) for name in names))

    return reference.stack(made, params, x, *state, lengths=lengths, **shape)


def check(layer: Any, lengths: Any = None, batch: int = 3, steps: int = 6) -> None:
    """Outputs, and every gradient: along a random direction, and where it is small every element."""
    x, state = arguments(layer, batch, steps)
    at = {"x": x, **dict(zip(("h0", "c0"), state, strict=False)), **layer.params}
    at = {name: value.astype(np.float64) for name, value in at.items()}

    def function(**moved: Any) -> tuple[Array, ...]:
        states = tuple(moved[f"{n}0"] for n in "hc"[: len(state)])
        return truth(layer, moved["x"], states, lengths, {name: moved[name] for name in layer.params})

    expected = function(**at)
    (y, final), tape = layer.forward(x, as_state(state), lengths)
    for ours, other, right in zip(flat(y, final), flat(*layer(x, as_state(state), lengths)), expected, strict=True):
        assert_forward(ours, right)
        assert_same_bits(ours, other)
    rng = np.random.default_rng(11)
    cotangents = tuple(rng.normal(0.1, 1, each.shape) for each in expected)
    layer.zero_grad()
    dx, dstate = layer.backward(tape, cotangents[0], as_state(cotangents[1:]))
    gradients = {"x": dx, **layer.grads}
    gradients |= dict(zip(("h0", "c0"), flat(dx, dstate)[1:], strict=False))
    assert gradients.keys() == at.keys()
    for name, gradient in gradients.items():
        if gradient.size < 100:
            assert_gradient(gradient, reference.gradient(function, at, cotangents, name), f"d{name}")
        along = rng.normal(0, 1, gradient.shape)
        right = reference.slope(function, at, cotangents, name, along)
        bound = 1e-8 if layer.dtype == np.float64 else 2e-3
        assert abs(np.sum(gradient * along) - right) <= bound * max(1, abs(right)), name


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("hidden", [5, 8, 15, 16, 17, 20, 45])
def test_outputs_and_gradients(cell: str, hidden: int, dtype: str) -> None:
    check(make(cell, hidden=hidden, dtype=dtype), lengths=[6, 0, 3])


@pytest.mark.parametrize("cell", LAYERS)
def test_layers_directions_layouts_and_no_biases(cell: str) -> None:
    shape = {"num_layers": 2, "bidirectional": True, "batch_first": False, "dtype": "float64"}
    for bias in (True, False):
        check(make(cell, 2, 4, bias=bias, **shape), lengths=[2, 4], batch=2, steps=4)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("hidden", [1, 3])
def test_few_units(cell: str, hidden: int) -> None:
    """Of one unit an LSTM's c is normalised to 0, and so is n of a GRU: h is then what the biases make."""
    check(make(cell, 2, hidden, dtype="float64"), batch=1, steps=3)


def torch_step(torch: Any, layer: Any, x: Any, state: Any, norms: dict[str, Any]) -> Any:
    """One step of a layer as who writes it with torch.nn.LayerNorm does."""
    w = {name: torch.from_numpy(value) for name, value in layer.params.items()}
    z_x, z_h = x @ w["weight_ih_l0"].T, state[0] @ w["weight_hh_l0"].T
    if layer.op == "LSTM":
        i, f, g, o = (norms["ih"](z_x) + norms["hh"](z_h)).chunk(4, 1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * norms["c"](c).tanh(), c
    H = layer.hidden_size
    r, z = (norms["ih_rz"](z_x[:, : 2 * H]) + norms["hh_rz"](z_h[:, : 2 * H])).sigmoid().chunk(2, 1)
    n = (norms["ih_n"](z_x[:, 2 * H :]) + r * norms["hh_n"](z_h[:, 2 * H :])).tanh()
    return ((1 - z) * n + z * state[0],)


@pytest.mark.parametrize("cell", LAYERS)
def test_torch_agrees(cell: str) -> None:
    torch = pytest.importorskip("torch")
    layer = make(cell, 4, 21, dtype="float64")
    params, H = layer.params, layer.hidden_size
    parts = {"rz": slice(0, 2 * H), "n": slice(2 * H, None)} if cell == "gru" else {"": slice(None)}
    norms = {}
    for side in ("ih", "hh"):
        for part, rows in parts.items():
            gain, bias = params[f"weight_ln_{side}_l0"][rows], params[f"bias_{side}_l0"][rows]
            norm = torch.nn.LayerNorm(len(gain), dtype=torch.float64)
            norm.load_state_dict({"weight": torch.from_numpy(gain), "bias": torch.from_numpy(bias)})
            norms[f"{side}_{part}".strip("_")] = norm
    if cell == "lstm":
        norms["c"] = torch.nn.LayerNorm(H, dtype=torch.float64)
        norms["c"].load_state_dict(
            {
                "weight": torch.from_numpy(params["weight_ln_c_l0"]),
                "bias": torch.from_numpy(params["bias_ln_c_l0"]),
            }
        )
    x, state = arguments(layer, 5, 7)
    given = torch.tensor(x, requires_grad=True)
    now, outputs = tuple(torch.from_numpy(s[0]) for s in state), []
    for step in range(7):
        now = torch_step(torch, layer, given[:, step], now, norms)
        outputs.append(now[0])
    theirs = torch.stack(outputs, 1)
    (y, _), tape = layer.forward(x, as_state(state))
    assert np.max(np.abs(y - theirs.detach().numpy())) < 1e-12
    theirs.backward(torch.from_numpy(y + 1))
    dx, _ = layer.backward(tape, y + 1)
    assert np.max(np.abs(dx - given.grad.numpy())) < 1e-11
    for side in ("ih", "hh"):
        for part, rows in parts.items():
            norm = norms[f"{side}_{part}".strip("_")]
            assert_gradient(layer.grads[f"weight_ln_{side}_l0"][rows], norm.weight.grad.numpy())
            assert_gradient(layer.grads[f"bias_{side}_l0"][rows], norm.bias.grad.numpy())


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize(("batch", "hidden"), [(9, 45), (1, 530)])
def test_same_bits_whatever_the_threads(cell: str, batch: int, hidden: int, restore_threads: None) -> None:
    layer = make(cell, 7, hidden, num_layers=2, bidirectional=batch > 1)
    x, state = arguments(layer, batch, 40)
    whole = {}
    for threads in (1, 2):
        fr.set_num_threads(threads)
        assert "by_unit" not in layer.plan(40, batch)
        (y, final), tape = layer.forward(x, as_state(state))
        layer.zero_grad()
        dx, dstate = layer.backward(tape, y + 1, final)
        assert_same_bits(layer(x, as_state(state))[0], y)
        whole[threads] = [*flat(y, final), *flat(dx, dstate), *(g.copy() for g in layer.grads.values())]
    for a, b in zip(whole[1], whole[2], strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("cell", LAYERS)
def test_resets_streams_states_files_and_tapes(cell: str, tmp_path: Path) -> None:
    layer = make(cell, 3, 19, num_layers=2)
    x, state = arguments(layer, 4, 8)
    whole, final = layer(x, as_state(state))
    first, middle = layer(x[:, :5], as_state(state))
    second, last = layer(x[:, 5:], middle)
    for a, b in zip(flat(whole[:, :5], final), flat(first, last), strict=True):
        assert_same_bits(a, b)
    assert_same_bits(second, whole[:, 5:])
    marks = np.zeros((4, 8), bool)
    marks[:, 5] = True
    (y, end), tape = layer.forward(x, as_state(state), resets=marks, reset_state=as_state(state))
    assert_same_bits(y[:, 5:], layer(x[:, 5:], as_state(state))[0])
    assert len(layer.backward(tape, y, end)) == 3
    stream = layer.stream(4)
    stream.reset(as_state(state))
    for step in range(8):
        assert_same_bits(stream.step(np.ascontiguousarray(x[:, step])), whole[:, step])
    layer.save(tmp_path / "layer.safetensors")
    loaded = fr.load(tmp_path / "layer.safetensors")
    assert loaded.config() == layer.config() and loaded.variant.layer_norm
    assert_same_bits(loaded(x, as_state(state))[0], whole)
    (y, _), tape = layer.forward(x, as_state(state))
    before = layer.backward(tape, y, None)[0]
    assert_same_bits(layer.backward(tape, y, None)[0], before)  # a tape that is used again
    changed = layer(x)[0].copy()
    layer.params["weight_ln_hh_l1"][3] += 1
    assert np.any(layer(x)[0] != changed)  # the weights are packed again


@pytest.mark.parametrize("cell", LAYERS)
def test_in_models(cell: str) -> None:
    x = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    both = make(cell, 3, 12, bidirectional=True)
    assert f"{sum(array.size for array in both.params.values()):,}" in str(fr.Sequential(both))
    vector = fr.models.SequenceToVector(both, fr.Linear(24, 2))
    assert vector(x, lengths=[7, 3, 1, 0]).shape == (4, 2)
    history = fr.fit(vector, x, np.zeros((4, 2), np.float32), epochs=3, batch_size=2, progress=False, seed=0)
    assert history["loss"][-1] < history["loss"][0]
    assert fr.Bidirectional(make(cell, 3, 12))(x)[0].shape == (4, 7, 24)
    dropped = make(cell, 3, 12, num_layers=2, dropout=0.5, recurrent_dropout=0.3, recurrent_dropout_on="candidate")
    (y, _), tape = dropped.forward(x)
    assert dropped.backward(tape, y)[0].shape == x.shape


def test_a_fresh_layer_does_not_depend_on_the_scale_of_its_weights() -> None:
    """What the normalisation is for: W_ih and W_hh times 1000 give the same h."""
    layer = fr.LSTM(8, 16, layer_norm=True, seed=0, dtype="float64")
    x = np.random.default_rng(0).normal(size=(3, 9, 8))
    before = layer(x)[0].copy()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        layer.params[name] *= 1000
    assert np.max(np.abs(layer(x)[0][:, 1:] - before[:, 1:])) < 1e-3


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("lstm", {"layer_norm": 1}, "layer_norm is 1; expected True or False"),
        ("lstm", {"peephole": True}, "layer_norm is True with peephole"),
        ("lstm", {"zoneout": 0.1}, "layer_norm is True with zoneout"),
        ("gru", {"recurrent_dropout": 0.1}, "layer_norm is True with recurrent_dropout on h"),
        ("gru", {"reset_after": False}, "layer_norm is True with reset_after=False"),
        ("lstm", {"proj_size": 2}, "proj_size is 2 with layer_norm"),
        ("lstm", {"compute_dtype": "bfloat16"}, "compute_dtype is bfloat16; expected float32 for a cell"),
    ],
)
def test_errors(cell: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{cell.upper()}: {message}"):
        LAYERS[cell](3, 5, **{"layer_norm": True, **options})


@pytest.mark.parametrize("cell", LAYERS)
def test_where_there_is_none(cell: str, tmp_path: Path) -> None:
    layer, x = make(cell), np.zeros((2, 4, 3), np.float32)
    op = cell.upper()
    with pytest.raises(RuntimeError, match=f"^{op}: layer_norm is on the cpu only"):
        recurrent_parts.kernels(layer, "cuda")
    with pytest.raises(ValueError, match=f"^quantize: {op} has layer_norm; expected a cell without options"):
        fr.quantize(layer)
    with pytest.raises(ValueError, match=f"gradient_flow: {op} has "):
        fr.diagnostics.gradient_flow(layer, x)
    pytest.importorskip("h5py")
    with pytest.raises(ValueError, match=f"keras: {op} has layer_norm"):
        fr.keras.save_weights(layer, tmp_path / "m.weights.h5")
    pytest.importorskip("onnx")
    with pytest.raises(ValueError, match=f"export: {op} has layer_norm"):
        fr.onnx.export(layer, tmp_path / "m.onnx")
