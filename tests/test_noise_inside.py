"""Recurrent dropout and zoneout: masks by seed, against the reference with the same masks."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
import reference
from problems import as_state, flat
from tolerance import assert_forward, assert_gradient, assert_same_bits

Array = NDArray[Any]
pytestmark = pytest.mark.every_isa

LAYERS = {"rnn": fr.RNN, "lstm": fr.LSTM, "gru": fr.GRU}
BEFORE = {"reset_after": False}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {"recurrent_dropout": 0.4, "zoneout": 0.3}),
    ("lstm", {"recurrent_dropout": 0.4}),
    ("lstm", {"recurrent_dropout": 0.4, "recurrent_dropout_on": "candidate"}),
    ("lstm", {"zoneout": (0.3, 0.4)}),
    ("lstm", {"zoneout": (0.0, 0.4), "recurrent_dropout": 0.2}),
    ("gru", {"recurrent_dropout": 0.4}),
    ("gru", {"recurrent_dropout": 0.4, "recurrent_dropout_on": "candidate"}),
    ("gru", {"zoneout": 0.3}),
    ("gru", {"recurrent_dropout": 0.4, "zoneout": 0.3, **BEFORE}),
    ("gru", {"recurrent_dropout": 0.4, "recurrent_dropout_on": "candidate", **BEFORE}),
]
IDS = [f"{cell}-{'-'.join(options)}-{index}" for index, (cell, options) in enumerate(CASES)]


def make(cell: str, options: dict[str, Any], inputs: int = 3, hidden: int = 5, **more: Any) -> Any:
    return LAYERS[cell](inputs, hidden, init="torch", seed=3, **options, **more)


def arguments(layer: Any, batch: int = 3, steps: int = 6) -> tuple[Array, tuple[Array, ...]]:
    rng = np.random.default_rng(5)
    shape = (layer.num_layers * layer.num_directions, batch, layer.hidden_size)
    axes = (batch, steps) if layer.batch_first else (steps, batch)
    x = rng.normal(0.1, 1, (*axes, layer.input_size)).astype(np.float32)
    states = [rng.uniform(-0.5, 0.6, shape).astype(np.float32) for _ in range(2 if layer.op == "LSTM" else 1)]
    return x.astype(layer.dtype), tuple(s.astype(layer.dtype) for s in states)


def drawn(layer: Any, batch: int, steps: int) -> tuple[Array | None, ...]:
    """The masks that the next call in training draws."""
    slabs = layer.num_layers * layer.num_directions
    rng = copy.deepcopy(layer._rng)
    factors: tuple[Array | None, ...] = layer.variant.factors(
        slabs, steps, batch, layer.hidden_size, np.dtype("float64"), rng
    )
    return factors


def truth(layer: Any, x: Array, state: tuple[Array, ...], lengths: Any, params: Any, factors: Any) -> tuple[Array, ...]:
    """(y, h) or (y, h, c) of a batch-major stack; factors None: inference."""
    batch, steps = x.shape[:2]
    lengths = [steps] * batch if lengths is None else lengths
    h_factor, g_factor, *zones = (None,) * 4 if factors is None else factors
    rates = layer.variant.zoneout if factors is None else (0.0, 0.0)
    kind = np.result_type(np.float64, x, *state, *params.values())
    finals: list[Array] = [np.zeros(s.shape, kind) for s in state]
    for number in range(layer.num_layers):
        outputs = []
        for direction in range(layer.num_directions):
            slab = number * layer.num_directions + direction
            suffix = f"_l{number}" + "_reverse" * direction
            w = reference.Weights(*(params[name + suffix] for name in reference.Weights._fields))
            y = np.zeros((batch, steps, layer.hidden_size), kind)
            for b in range(batch):
                now = tuple(s[slab, b] for s in state)
                order = range(lengths[b])
                for t in reversed(order) if direction else order:
                    cell = reference.noisy(
                        layer.op.lower(),
                        layer.variant.reset_after,
                        None if h_factor is None else h_factor[slab, b],
                        None if g_factor is None else g_factor[slab, t, b],
                        tuple(r if z is None else z[slab, t, b] for r, z in zip(rates, zones, strict=True)),
                    )
                    now = cell.step(x[b, t], now, w)
                    y[b, t] = now[0]
                for final, value in zip(finals, now, strict=True):
                    final[slab, b] = value
            outputs.append(y)
        x = np.concatenate(outputs, axis=2)
    return (x, *finals)


def check(layer: Any, lengths: Any = None, batch: int = 3, steps: int = 6) -> None:
    x, state = arguments(layer, batch, steps)
    at = {"x": x, **{f"{n}0": s for n, s in zip("hc", state, strict=False)}, **layer.params}
    at = {name: value.astype(np.float64) for name, value in at.items()}
    factors = drawn(layer, batch, steps)

    def function(masks: Any = factors, **moved: Any) -> tuple[Array, ...]:
        states = tuple(moved[f"{n}0"] for n in "hc"[: len(state)])
        return truth(layer, moved["x"], states, lengths, {name: moved[name] for name in layer.params}, masks)

    for ours, right in zip(flat(*layer(x, as_state(state), lengths)), function(None, **at), strict=True):
        assert_forward(ours, right)
    (y, final), tape = layer.forward(x, as_state(state), lengths)
    expected = function(**at)
    for ours, right in zip(flat(y, final), expected, strict=True):
        assert_forward(ours, right)
    rng = np.random.default_rng(11)
    cotangents = tuple(rng.normal(0.1, 1, each.shape) for each in expected)
    layer.zero_grad()
    dx, dstate = layer.backward(tape, cotangents[0], as_state(cotangents[1:]))
    gradients = {"x": dx, **layer.grads}
    gradients |= dict(zip(("h0", "c0"), flat(dx, dstate)[1:], strict=False))
    assert gradients.keys() == at.keys()
    for name, gradient in gradients.items():
        assert_gradient(gradient, reference.gradient(function, at, cotangents, name), f"d{name}")


@pytest.mark.parametrize(("cell", "options"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_outputs_and_every_element_of_every_gradient(cell: str, options: dict[str, Any], dtype: str) -> None:
    check(make(cell, options, dtype=dtype, hidden=3), lengths=[5, 0, 3], steps=5)


@pytest.mark.parametrize(("cell", "options"), CASES, ids=IDS)
def test_layers_directions_and_sizes(cell: str, options: dict[str, Any]) -> None:
    check(make(cell, options, 2, 3, num_layers=2, bidirectional=True, dtype="float64"), [2, 3], batch=2, steps=3)
    check(make(cell, options, 1, 17, dtype="float64"), batch=1, steps=2)


@pytest.mark.parametrize(("cell", "options"), CASES, ids=IDS)
def test_same_bits_by_seed_whatever_the_threads(cell: str, options: dict[str, Any], restore_threads: None) -> None:
    x, state = arguments(make(cell, options, 7, 45), 9, 12)
    whole = {}
    for threads in (1, 2):
        fr.set_num_threads(threads)
        layer = make(cell, options, 7, 45)
        for _ in range(2):
            (y, final), tape = layer.forward(x, as_state(state))
            layer.zero_grad()
            dx, _ = layer.backward(tape, y + 1, as_state(flat(y, final)[1:]))
        whole[threads] = [y, *flat(y, final), dx, *layer.grads.values()]
        again = layer.backward(tape, y + 1, as_state(flat(y, final)[1:]))[0]  # the same masks
        assert_same_bits(again, dx)
        assert np.any(layer.forward(x, as_state(state))[0][0] != y)
    for a, b in zip(whole[1], whole[2], strict=True):
        assert_same_bits(a, b)


def test_what_is_drawn() -> None:
    variant = fr.LSTM(2, 3, recurrent_dropout=0.25, zoneout=(0.1, 0.5)).variant
    h, g, h_zone, c_zone = variant.factors(2, 50, 40, 30, np.dtype("float32"), np.random.default_rng(0))
    assert h is not None and g is None and h_zone is not None and c_zone is not None
    assert h.shape == (2, 40, 30) and h_zone.shape == c_zone.shape == (2, 50, 40, 30)
    assert set(np.unique(h)) == {np.float32(0), np.float32(4 / 3)} and set(np.unique(h_zone)) == {0, 1}
    for values, p in ((h == 0, 0.25), (h_zone, 0.1), (c_zone, 0.5)):
        assert abs(np.mean(values) - p) <= 5 * np.sqrt(p * (1 - p) / values.size)


def test_inference_and_models(tmp_path: Any) -> None:
    x = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    plain = fr.LSTM(3, 9, seed=1)
    noisy = fr.LSTM(3, 9, seed=1, recurrent_dropout=0.5)
    assert_same_bits(plain(x)[0], noisy(x)[0])
    assert np.any(plain.forward(x)[0][0] != noisy.forward(x)[0][0])
    zoned = fr.LSTM(3, 9, seed=1, zoneout=0.3)
    stream = zoned.stream(4)
    for step in range(7):
        assert_same_bits(stream.step(np.ascontiguousarray(x[:, step])), zoned(x)[0][:, step])
    zoned.save(tmp_path / "zoned.safetensors")
    loaded = fr.load(tmp_path / "zoned.safetensors")
    assert loaded.config() == zoned.config()
    assert_same_bits(loaded(x)[0], zoned(x)[0])
    both = fr.GRU(3, 9, 2, seed=1, zoneout=0.3, recurrent_dropout=0.2, dropout=0.4)
    (y, _), tape = both.forward(x, lengths=[7, 2, 0, 5])
    assert both.backward(tape, y)[0].shape == x.shape
    model = fr.models.SequenceToVector(fr.GRU(3, 9, seed=0, zoneout=0.2, recurrent_dropout=0.2), fr.Linear(9, 2))
    target = np.zeros((4, 2), np.float32)
    losses = [
        fr.fit(copy.deepcopy(model), x, target, epochs=3, batch_size=2, progress=False, seed=5)["loss"] for _ in "ab"
    ]
    assert losses[0] == losses[1]
    marks = np.zeros((4, 7), bool)
    marks[1, 3] = True
    (y, _), tape = zoned.forward(x, resets=marks)
    assert np.isfinite(zoned.backward(tape, y)[0]).all()


@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("lstm", {"recurrent_dropout": 1.5}, r"recurrent_dropout is 1.5; expected a probability"),
        ("lstm", {"recurrent_dropout_on": "c"}, r"recurrent_dropout_on is 'c'; expected 'h' or 'candidate'"),
        ("rnn", {"zoneout": -1}, r"zoneout is -1; expected a probability"),
        ("lstm", {"zoneout": (0.1,)}, r"zoneout is \(0.1,\); expected a number, or a pair"),
        ("gru", {"zoneout": (0.1, 0.2)}, r"zoneout is \(0.1, 0.2\); expected a number"),
        ("lstm", {"zoneout": 0.1, "peephole": True}, r"zoneout is 0.1 with peephole"),
        ("lstm", {"zoneout": 0.1, "proj_size": 2}, r"proj_size is 2 with zoneout"),
        ("lstm", {"recurrent_dropout": 0.1, "proj_size": 2}, r"proj_size is 2 with recurrent_dropout"),
    ],
)
def test_errors(cell: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{cell.upper()}: {message}"):
        make(cell, options)
