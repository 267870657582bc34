"""Parameters of recurrent layers: names, initial values, state dicts and files."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fusedrnn as fr
from problems import LAYERS, Array, flat
from stacks import INPUTS, H, Stack
from tolerance import assert_same_bits


def test_names_and_shapes() -> None:
    """Names, order and shapes of the parameters are torch's."""
    lstm = fr.LSTM(INPUTS, H, 2, bidirectional=True)
    expected: dict[str, tuple[int, ...]] = {}
    for layer, inputs in ((0, INPUTS), (1, 2 * H)):
        for suffix in ("", "_reverse"):
            for name, shape in (("ih", (4 * H, inputs)), ("hh", (4 * H, H))):
                expected[f"weight_{name}_l{layer}{suffix}"] = shape
            for name in ("ih", "hh"):
                expected[f"bias_{name}_l{layer}{suffix}"] = (4 * H,)
    assert {name: value.shape for name, value in lstm.params.items()} == expected
    assert list(lstm.params) == list(lstm.grads) == list(lstm.state_dict()) == list(expected)
    assert lstm.num_parameters == sum(int(np.prod(shape)) for shape in expected.values())
    assert list(fr.GRU(INPUTS, H, bias=False).params) == ["weight_ih_l0", "weight_hh_l0"]


def test_state_dict_round_trip(cell: str, dtype: str) -> None:
    """A state dict holds copies, and another layer that loads it gives the same bits."""
    problem = Stack(cell, num_layers=2, bidirectional=True, dtype=dtype)
    state = problem.layer.state_dict()
    other = LAYERS[cell](INPUTS, H, 2, bidirectional=True, dtype=dtype, seed=99)
    arrays = dict(other.params)
    other.load_state_dict(state)
    assert all(other.params[name] is arrays[name] for name in arrays)
    for value, expected in zip(flat(*other(problem.x)), flat(*problem.layer(problem.x)), strict=True):
        assert_same_bits(value, expected)
    state["weight_hh_l0"][...] = 0
    assert np.any(problem.layer.params["weight_hh_l0"])
    assert np.any(other.params["weight_hh_l0"])


def test_save_and_load(cell: str, dtype: str, tmp_path: Path) -> None:
    """A file restores class, configuration and weights."""
    problem = Stack(cell, num_layers=2, bidirectional=True, dtype=dtype, batch_first=False, dropout=0.25, bias=False)
    problem.layer.save(tmp_path / "layer.safetensors")
    loaded = fr.load(tmp_path / "layer.safetensors")
    assert type(loaded) is type(problem.layer)
    assert loaded.config() == problem.layer.config()
    for name, value in problem.layer.params.items():
        assert_same_bits(loaded.params[name], value, name)
    for value, expected in zip(flat(*loaded(problem.x)), flat(*problem.layer(problem.x)), strict=True):
        assert_same_bits(value, expected)


def test_seed(cell: str) -> None:
    """The same seed gives the same weights, another seed others."""
    one, same, other = (LAYERS[cell](INPUTS, H, seed=seed).params["weight_ih_l0"] for seed in (1, 1, 2))
    assert_same_bits(one, same)
    assert np.any(one != other)


def test_initialisation() -> None:
    """Glorot input weights, orthogonal recurrent ones gate by gate, forget bias 1; or torch's uniform."""
    lstm = fr.LSTM(50, 40, dtype="float64", seed=0)
    for gate in range(4):
        rows = slice(40 * gate, 40 * (gate + 1))
        recurrent, inputs = lstm.params["weight_hh_l0"][rows], lstm.params["weight_ih_l0"][rows]
        assert np.max(np.abs(recurrent @ recurrent.T - np.eye(40))) <= 1e-12
        assert np.sqrt(6 / 90) * 0.98 <= np.max(np.abs(inputs)) <= np.sqrt(6 / 90)
    assert np.array_equal(lstm.params["bias_ih_l0"], np.repeat([0.0, 1, 0, 0], 40))
    assert not np.any(lstm.params["bias_hh_l0"])
    gru = fr.GRU(50, 40, seed=0).params
    assert not np.any(gru["bias_ih_l0"]) and not np.any(gru["bias_hh_l0"])
    for name, value in fr.LSTM(50, 40, init="torch", seed=0).params.items():
        assert 40**-0.5 * 0.9 <= np.max(np.abs(value)) <= 40**-0.5
        assert abs(value.std() / (40**-0.5 / np.sqrt(3)) - 1) <= 0.1, name


def negate(weight: Array) -> None:
    weight *= -1


def flip_last_bit(weight: Array) -> None:
    weight[-1, -1] = np.nextafter(weight[-1, -1], np.inf, dtype=weight.dtype)


def swap_rows(weight: Array) -> None:
    weight[[0, 16]] = weight[[16, 0]]


def swap_distant_elements(weight: Array) -> None:
    flat_weight = weight.reshape(-1)
    flat_weight[[3, 3 + 64]] = flat_weight[[3 + 64, 3]]


def negate_two(distance: int) -> Callable[[Array], None]:
    def change(weight: Array) -> None:
        weight.reshape(-1)[[1, 1 + distance]] *= -1

    return change


CHANGES: list[Callable[[Array], None]] = [negate, flip_last_bit, swap_rows, swap_distant_elements]
CHANGES += [negate_two(distance) for distance in (1, 16, 32, 64, 128)]


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
@pytest.mark.parametrize("change", CHANGES)
def test_weights_changed_in_place(dtype: str, name: str, change: Callable[[Array], None]) -> None:
    """Whatever form of the weights a layer keeps for its kernels, the next call and gradient see every change."""
    layer, fresh = (fr.GRU(32, 32, dtype=dtype, seed=1) for _ in range(2))
    x = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(dtype)
    layer(x)
    layer.forward(x)
    change(layer.params[name])
    fresh.load_state_dict(layer.state_dict())
    assert_same_bits(layer(x)[0], fresh(x)[0])
    (y, _), tape = layer.forward(x)
    (_, _), tape_fresh = fresh.forward(x)
    assert_same_bits(layer.backward(tape, y)[0], fresh.backward(tape_fresh, y)[0])


@pytest.mark.parametrize("element", [0, 31, 32, 95])
def test_bias_changed_in_place(dtype: str, element: int) -> None:
    """The same for a bias."""
    layer, fresh = (fr.GRU(32, 32, dtype=dtype, seed=1) for _ in range(2))
    x = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(dtype)
    before = layer(x)[0]
    layer.params["bias_hh_l0"][element] = 1
    fresh.load_state_dict(layer.state_dict())
    assert_same_bits(layer(x)[0], fresh(x)[0])
    assert np.any(layer(x)[0] != before)


@pytest.mark.parametrize(
    ("name", "value"),
    [("input_size", 4), ("hidden_size", 9), ("num_layers", 1), ("bias", False), ("bidirectional", True),
     ("dtype", "float64"), ("compute_dtype", "bfloat16")],
)  # fmt: skip
def test_what_the_parameters_depend_on_is_fixed(cell: str, name: str, value: object) -> None:
    layer = LAYERS[cell](INPUTS, H, 2)
    kept = getattr(layer, name)
    with pytest.raises(AttributeError, match=f"{layer.op}: {name} is fixed when the layer is made; expected a new"):
        setattr(layer, name, value)
    assert getattr(layer, name) == kept


def test_all_constructors_show_their_arguments() -> None:
    """The signatures are the same, but for what only one of them has."""
    own = {"nonlinearity", "coupled", "peephole", "proj_size", "reset_after", "recurrent_dropout_on", "zoneout"}
    own.add("layer_norm")
    signatures = [inspect.signature(layer).parameters for layer in (fr.RNN, fr.LSTM, fr.GRU)]
    rnn, lstm, gru = ({name: p for name, p in each.items() if name not in own} for each in signatures)
    assert rnn == lstm == gru
    assert [set(each) & own for each in signatures] == [
        {"nonlinearity", "zoneout"},
        {"coupled", "peephole", "proj_size", "recurrent_dropout_on", "zoneout", "layer_norm"},
        {"reset_after", "recurrent_dropout_on", "zoneout", "layer_norm"},
    ]
    assert signatures[1]["recurrent_dropout_on"] == signatures[2]["recurrent_dropout_on"]
    assert signatures[0]["nonlinearity"].default == "tanh"
