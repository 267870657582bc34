"""The layers without a time loop of their own, and what all layers share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import differences
import fusedrnn as fr
from fusedrnn.allocation import LARGEST_BYTES, Bounds, bounded
from fusedrnn.arrays.checks import as_lengths, as_real, positive_int
from fusedrnn.init import glorot_uniform, limit_spectral_norm, orthogonal, recurrent_parameters

Array = NDArray[Any]
FLOAT64 = np.dtype("float64")


def assert_close(actual: Any, expected: Any, tolerance: float, what: object = "") -> None:
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, what
    error = np.max(np.abs(actual - expected), initial=0.0)
    assert error <= tolerance, f"{what}: {error}"


def check_gradients(layer: Any, x: Array, lengths: Any = None) -> None:
    """Compare every gradient of sum(w * y) with central differences: error <= 1e-7, as values are of order 1."""
    kwargs = {} if lengths is None else {"lengths": lengths}
    outputs, tape = layer.forward(x, **kwargs)
    y = outputs[0] if isinstance(outputs, tuple) else outputs
    weights = np.random.default_rng(5).standard_normal(y.shape)

    def value() -> float:
        result = layer(x, **kwargs)
        return float(np.sum(weights * (result[0] if isinstance(result, tuple) else result)))

    layer.zero_grad()
    dx = layer.backward(tape, weights)
    dx = dx[0] if isinstance(dx, tuple) else dx
    if dx is not None:
        assert_close(dx, differences.gradient(value, x), 1e-7, "x")
    grads = {name: grad.copy() for name, grad in layer.grads.items()}
    for name, param in layer.params.items():
        assert_close(grads[name], differences.gradient(value, param), 1e-7, name)
    layer.backward(tape, weights)
    for name, grad in layer.grads.items():
        assert_close(grad, 2 * grads[name], 1e-12, f"{name} accumulates")


# ---------------------------------------------------------------------------------------------------- input checks


def test_real_input_is_taken_as_it_is() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6)[::-1, ::2]
    x.flags.writeable = False
    assert as_real("Op", "x", x, np.dtype("float32")) is x


@pytest.mark.parametrize("source", [">f4", ">f8", "f2", "i1", "u8", ">i2", np.longdouble])
def test_real_input_of_another_dtype_is_converted(source: Any) -> None:
    values = np.array([[1, 2, 3], [4, 5, 6]]).astype(source)
    converted = as_real("Op", "x", values, FLOAT64)
    assert converted.dtype == FLOAT64 and converted.dtype.isnative
    assert converted.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_misaligned_and_packed_input_is_copied() -> None:
    packed = np.zeros(5, np.dtype([("flag", "i1"), ("value", "f8")]))
    packed["value"] = [1.5, 2, 3, 4, 5]
    converted = as_real("Op", "x", packed["value"], FLOAT64)
    assert converted.flags.aligned and converted.tolist() == [1.5, 2, 3, 4, 5]
    raw = np.frombuffer(b"\0" + np.array([1.5, -2]).tobytes(), np.uint8)[1:].view("f8")
    assert as_real("Op", "x", raw, FLOAT64).tolist() == [1.5, -2]


def test_broadcast_input_is_converted_without_being_filled() -> None:
    view = np.broadcast_to(np.float64(2.5), (8, 8))
    converted = as_real("Op", "x", view, np.dtype("float32"))
    assert converted.shape == view.shape and converted.strides == (0, 0)
    assert converted[3, 7] == 2.5
    huge = np.broadcast_to(np.float64(2.5), (2**20, 2**20))
    with pytest.raises(ValueError, match=r"Op: x has shape \(1048576, 1048576\) and repeats the elements of 8 bytes"):
        as_real("Op", "x", huge, np.dtype("float32"))


@pytest.mark.parametrize("x", [1j, None, True, "text", [[1.0, "a"]], np.array(["2020-01-01"], "M8"), [object()]])
def test_input_that_is_not_real_is_a_type_error(x: Any) -> None:
    with pytest.raises(TypeError, match="Op: x has dtype"):
        as_real("Op", "x", x, FLOAT64)


def test_ragged_input_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Op: x is not an array"):
        as_real("Op", "x", [[1.0, 2.0], [3.0]], FLOAT64)


@pytest.mark.parametrize("value", [0, -3, np.int64(-1)])
def test_sizes_are_positive(value: Any) -> None:
    with pytest.raises(ValueError, match=rf"LSTM: hidden_size is {value}; expected a positive integer"):
        positive_int("LSTM", "hidden_size", value)


@pytest.mark.parametrize("value", [2.0, True, "3", None, np.True_])
def test_sizes_are_integers(value: Any) -> None:
    with pytest.raises(TypeError, match="LSTM: hidden_size is"):
        positive_int("LSTM", "hidden_size", value)


def test_lengths_are_checked() -> None:
    assert as_lengths("Op", [3, 0, 5], 3, 5).tolist() == [3, 0, 5]
    assert as_lengths("Op", [], 0, 5).shape == (0,)
    wrong: Any
    for wrong in ([1, 2], [[1, 2, 3]], [1, -1, 2], [1, 6, 2], np.array([1, 2**63 + 1, 2], np.uint64)):
        with pytest.raises(ValueError, match="Op: lengths"):
            as_lengths("Op", wrong, 3, 5)
    for wrong in ([1.0, 2.0, 3.0], [True, False, True], ["1", "2", "3"]):
        with pytest.raises(TypeError, match="Op: lengths has dtype"):
            as_lengths("Op", wrong, 3, 5)


@pytest.mark.parametrize("dtype", ["float16", ">f4", "int32", complex, None, "nonsense", object])
def test_layers_are_float32_or_float64(dtype: Any) -> None:
    with pytest.raises(TypeError, match="Linear: dtype is"):
        fr.Linear(2, 3, dtype=dtype)


@pytest.mark.usefixtures("no_device")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "tpu", None, 0])
def test_layers_are_on_the_cpu(device: Any) -> None:
    with pytest.raises(RuntimeError, match="use device='cpu'"):
        fr.Linear(2, 3, device=device)


@pytest.mark.parametrize(
    "make",
    [
        lambda: fr.Linear(2**40, 2**40),
        lambda: fr.Linear(1, LARGEST_BYTES // 4),
        lambda: fr.Embedding(2**62, 2**62),
        lambda: fr.LSTM(1, 4096, 9000),  # each of its layers alone would do
        lambda: recurrent_parameters("lstm", 1, 2**31, True, FLOAT64, np.random.default_rng(0)),
    ],
)
def test_too_many_parameters_are_refused_before_allocation(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="parameters need"):
        make()


# -------------------------------------------------------------------------------------------------- initial values


def test_recurrent_parameters_have_torchs_names_and_shapes() -> None:
    for cell, rows in (("rnn", 5), ("gru", 15), ("lstm", 20)):
        params = recurrent_parameters(cell, 3, 5, True, np.dtype("float32"), np.random.default_rng(0))
        expected = {"weight_ih": (rows, 3), "weight_hh": (rows, 5), "bias_ih": (rows,), "bias_hh": (rows,)}
        assert {name: array.shape for name, array in params.items()} == expected
        assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in params.values())
        without = recurrent_parameters(cell, 3, 5, False, np.dtype("float32"), np.random.default_rng(0))
        assert list(without) == ["weight_ih", "weight_hh"]


def test_initial_values_depend_on_the_seed_alone() -> None:
    first, again, other = (fr.Linear(3, 4, seed=seed).params["weight"] for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    double = fr.Linear(3, 4, seed=1, dtype="float64").params["weight"]
    assert np.array_equal(first, double.astype(np.float32))


def test_orthogonal_of_any_shape() -> None:
    for shape in ((7, 3), (3, 7), (4, 4), (1, 1), (333, 257), (256, 301)):
        q = orthogonal(shape, FLOAT64, np.random.default_rng(0))
        gram = q.T @ q if shape[0] > shape[1] else q @ q.T
        assert_close(gram, np.eye(min(shape)), 1e-14, shape)


def test_limit_spectral_norm() -> None:
    weight = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
    limited = limit_spectral_norm(weight, 0.9)
    assert limited.dtype == np.float32
    assert abs(np.linalg.norm(limited, 2) - 0.9) <= 1e-6
    small = 0.1 * orthogonal((6, 6), FLOAT64, np.random.default_rng(0))
    assert np.array_equal(limit_spectral_norm(small), small)


def test_glorot_bound() -> None:
    weight = glorot_uniform((30, 70), FLOAT64, np.random.default_rng(0))
    bound = np.sqrt(6 / 100)
    assert 0.98 * bound <= np.abs(weight).max() <= bound


@pytest.mark.parametrize("call", [{"cell": "mgu"}, {"cell": "rnn", "init": "zeros"}])
def test_unknown_cell_or_init(call: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        recurrent_parameters(
            input_size=1, hidden_size=1, bias=True, dtype=FLOAT64, rng=np.random.default_rng(0), **call
        )
    with pytest.raises(ValueError, match="Linear: init is"):
        fr.Linear(1, 1, init="zeros")


# ---------------------------------------------------------------------------------------------------- single layers


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (0, 5, 3), (2, 0, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    layer = fr.Linear(3, 4, bias, dtype="float64", seed=1, init="torch")
    x = np.random.default_rng(2).standard_normal(shape)
    expected = np.einsum("...i,oi->...o", x, layer.params["weight"])
    assert_close(layer(x), expected + layer.params["bias"] if bias else expected, 1e-14)
    check_gradients(layer, x)


def test_linear_takes_any_strides() -> None:
    layer = fr.Linear(3, 4, seed=1)
    x = np.random.default_rng(2).standard_normal((5, 4, 6)).astype(np.float32)[::-1, ::2, ::2]
    assert np.array_equal(layer(x), layer(x.copy()))


@pytest.mark.parametrize("x", [np.zeros((2, 4)), np.float64(1.0)])
def test_linear_refuses_other_shapes(x: Any) -> None:
    with pytest.raises(ValueError, match=r"Linear: x has shape .*; expected \(\.\.\., in_features\) = \(\.\.\., 3\)"):
        fr.Linear(3, 4)(x)


@pytest.mark.parametrize("size", [1, 3])
def test_linear_refuses_a_bias_of_another_shape(size: int) -> None:
    layer = fr.Linear(3, 4)
    layer.params["bias"] = np.ones(size, np.float32)
    with pytest.raises(ValueError, match=rf"Linear: bias has shape \({size},\); expected .* = \(4,\)"):
        layer(np.zeros((2, 3), np.float32))


def test_backward_refuses_what_does_not_belong_to_it() -> None:
    layer, other = fr.Linear(3, 4), fr.Linear(3, 4)
    _, tape = layer.forward(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="Linear: tape is a tape of Linear"):
        other.backward(tape, np.zeros((2, 4)))
    with pytest.raises(ValueError, match="Linear: tape is a str"):
        other.backward("tape", np.zeros((2, 4)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Linear: dy has shape \(4,\); expected .* = \(2, 4\)"):
        layer.backward(tape, np.zeros(4))
    with pytest.raises(TypeError, match="Linear: dy has dtype"):
        layer.backward(tape, np.zeros((2, 4), complex))


@pytest.mark.parametrize("ids", [[[1, 2, 1], [0, 6, 1]], [3, 3, 3], 2, np.zeros((2, 0), np.int32)])
def test_embedding(ids: Any) -> None:
    layer = fr.Embedding(7, 3, padding_idx=-1, dtype="float64", seed=1)
    weight = layer.params["weight"]
    assert not weight[6].any() and weight[:6].all()
    y, tape = layer.forward(ids)
    assert y.shape == (*np.shape(ids), 3) and np.array_equal(layer(ids), y)
    dy = np.random.default_rng(2).standard_normal(y.shape)
    layer.backward(tape, dy)
    grad = np.zeros((7, 3))
    for index, token in np.ndenumerate(np.asarray(ids)):
        assert np.array_equal(y[index], weight[token])
        if token != 6:
            grad[token] += dy[index]
    assert_close(layer.grads["weight"], grad, 1e-15)


@pytest.mark.parametrize("ids", [[0, 7], [[-1]], np.array([2**63], np.uint64)])
def test_embedding_names_the_id_that_is_outside(ids: Any) -> None:
    with pytest.raises(ValueError, match=r"Embedding: ids has (7|-1|9223372036854775808) at .*; expected 0 <= id < 7"):
        fr.Embedding(7, 3)(ids)


@pytest.mark.parametrize("ids", [[0.0], [True], ["a"], None])
def test_embedding_takes_integers_only(ids: Any) -> None:
    with pytest.raises(TypeError, match="Embedding: ids has dtype"):
        fr.Embedding(7, 3)(ids)


def test_embedding_padding_must_be_a_row() -> None:
    with pytest.raises(ValueError, match="Embedding: padding_idx is 7"):
        fr.Embedding(7, 3, padding_idx=7)


def test_dropout_scales_what_it_keeps() -> None:
    layer = fr.Dropout(0.25, seed=3)
    x = np.full((200, 100), 3, np.float32)
    y, tape = layer.forward(x)
    assert set(np.unique(y)) == {0.0, 4.0}
    assert abs((y == 0).mean() - 0.25) <= 0.01
    assert np.array_equal(layer.backward(tape, x), y)
    assert layer(x) is x


def test_dropout_is_reproducible() -> None:
    x = np.ones((20, 30))
    first, again, other = fr.Dropout(0.5, seed=3), fr.Dropout(0.5, seed=3), fr.Dropout(0.5, seed=4)
    a = [first.forward(x)[0] for _ in range(2)]
    assert [y.tobytes() for y in a] == [again.forward(x)[0].tobytes() for _ in range(2)]
    assert a[0].tobytes() != a[1].tobytes()
    assert a[0].tobytes() != other.forward(x)[0].tobytes()
    model = fr.Sequential(first, fr.Sequential(again))
    model.reseed(8)
    b = model.forward(x)[0]
    model.reseed(8)
    assert model.forward(x)[0].tobytes() == b.tobytes()


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(p: float) -> None:
    y, _ = fr.Dropout(p).forward(np.ones((4, 5)))
    assert np.array_equal(y, np.full((4, 5), 1 - p))


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_dropout_takes_a_probability(p: float) -> None:
    with pytest.raises(ValueError, match="Dropout: p is"):
        fr.Dropout(p)


def test_dropout_is_checked_when_it_is_changed() -> None:
    layer = fr.Dropout(0.2)
    with pytest.raises(ValueError, match="Dropout: p is 5; expected a probability"):
        layer.p = 5
    layer.p = 1
    assert layer.config()["p"] == 1 and not np.any(layer.forward(np.ones(3))[0])


def test_sizes_are_fixed() -> None:
    for layer, name in ((fr.Linear(2, 3), "in_features"), (fr.Embedding(2, 3), "padding_idx")):
        with pytest.raises(AttributeError, match=f"{name} is fixed when the layer is made"):
            setattr(layer, name, 1)


def test_layers_without_parameters_keep_the_dtype() -> None:
    for layer in (fr.Dropout(0.5), fr.Activation("tanh")):
        assert layer.forward(np.ones(3))[0].dtype == np.float64
        assert layer.forward(np.ones(3, np.float32))[0].dtype == np.float32
        assert layer(np.ones(3, int)).dtype == np.float32
    assert fr.Activation("relu", dtype="float64")(np.ones(3, np.float32)).dtype == np.float64


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "tanh": lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: x * (x > 0),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True),
}


@pytest.mark.parametrize("function", list(ACTIVATIONS))
def test_activation(function: str) -> None:
    layer = fr.Activation(function)
    x = np.random.default_rng(1).standard_normal((4, 5))
    assert_close(layer(x), ACTIVATIONS[function](x), 1e-15)
    check_gradients(layer, x)


def test_what_an_activation_gave_is_read_only() -> None:
    """Its backward reads y again: ``y -= target``, on the way to the gradient of a squared error, would spoil it."""
    layer = fr.Activation("sigmoid")
    y, _ = layer.forward(np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        y -= 1
    layer(np.ones(3))[...] = 0  # nobody reads that again
    x = np.ones(3)
    fr.Activation("identity").forward(x)
    x[...] = 0


def test_activations_saturate_without_overflow() -> None:
    x = np.array([-1e5, -800, 0, 800, 1e5])
    assert fr.Activation("sigmoid")(x).tolist() == [0, 0, 0.5, 1, 1]
    assert fr.Activation("softmax")(x).tolist() == [0, 0, 0, 0, 1]
    assert fr.Activation("softmax")(np.zeros((2, 0))).shape == (2, 0)
    with pytest.raises(ValueError, match="Activation: function is 'gelu'"):
        fr.Activation("gelu")


# ------------------------------------------------------------------------------------------------------- composites


def test_sequential_composes() -> None:
    layers = [fr.Linear(3, 4, dtype="float64", seed=1), fr.Activation("tanh"), fr.Linear(4, 2, dtype="float64", seed=2)]
    model = fr.Sequential(*layers)
    assert len(model) == 3 and model[-1] is layers[2] and list(model) == layers
    assert list(model.params) == ["0.weight", "0.bias", "2.weight", "2.bias"] == list(model.grads)
    assert model.params["2.weight"] is layers[2].params["weight"]
    assert model.num_parameters == 3 * 4 + 4 + 4 * 2 + 2
    x = np.random.default_rng(2).standard_normal((2, 5, 3))
    assert np.array_equal(model(x), layers[2](layers[1](layers[0](x))))
    check_gradients(model, x)
    assert repr(model).startswith("Sequential(Linear(in_features=3, out_features=4")


def test_sequential_starts_with_an_embedding() -> None:
    model = fr.Sequential(fr.Embedding(7, 3, seed=1), fr.Linear(3, 2, seed=2))
    y, tape = model.forward([[1, 2], [3, 3]])
    assert model.backward(tape, y) is None
    assert model.grads["0.weight"][3].any() and not model.grads["0.weight"][4].any()


def test_a_layer_may_occur_twice() -> None:
    shared = fr.Linear(3, 3, dtype="float64", seed=1)
    model = fr.Sequential(shared, fr.Activation("tanh"), shared)
    assert model.num_parameters == 12
    check_gradients(model, np.random.default_rng(2).standard_normal((4, 3)))


def test_sequential_takes_layers_only() -> None:
    with pytest.raises(TypeError, match="Sequential: layer 1 is a function"):
        fr.Sequential(fr.Linear(1, 1), lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Sequential: got no layers"):
        fr.Sequential()


def test_state_dict_is_a_copy_that_loads() -> None:
    model, other = (fr.Sequential(fr.Linear(3, 4, seed=s), fr.Linear(4, 2, seed=s + 1)) for s in (1, 5))
    state = model.state_dict()
    state["0.weight"][0, 0] = np.nan
    assert np.isfinite(model.params["0.weight"]).all()
    arrays = dict(other.params)
    other.load_state_dict({name: np.asarray(value, ">f8") for name, value in state.items()})
    for name, value in other.params.items():
        assert value is arrays[name] and np.array_equal(value, state[name], equal_nan=True)


def test_what_a_lenient_load_left_out_is_returned() -> None:
    model = fr.Sequential(fr.Linear(3, 4, seed=1))
    assert model.load_state_dict(model.state_dict()) == ([], [])
    state = {"0.weight": np.ones((4, 3)), "1.weight": 0}
    names = model.load_state_dict(state, strict=False)
    assert names.missing_keys == ["0.bias"] and names.unexpected_keys == ["1.weight"]
    assert np.all(model.params["0.weight"] == 1)
    with pytest.raises(TypeError, match="Sequential: state is a NoneType; expected a mapping"):
        model.load_state_dict(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["params", "grads"])
def test_the_parameters_of_a_composite_are_changed_in_place_only(name: str) -> None:
    model: Any = fr.Sequential(fr.LSTM(3, 5), fr.Linear(5, 1))
    arrays = getattr(model, name)
    changes: list[Callable[[], Any]] = [
        lambda: arrays.__setitem__("1.weight", np.ones((1, 5))),
        lambda: arrays.__delitem__("1.weight"),
        lambda: arrays.update({"1.weight": np.ones((1, 5))}),
        lambda: arrays.__ior__({}),
        lambda: arrays.pop("1.weight"),
        lambda: arrays.clear(),
        lambda: arrays.setdefault("2.weight", np.ones(1)),
    ]
    for change in changes:
        with pytest.raises(TypeError, match=rf"Sequential: {name} is read-only; expected a change in place, {name}\["):
            change()
    arrays["1.weight"][...] = 2
    assert np.all(getattr(model[1], name)["weight"] == 2)
    arrays["1.weight"] *= 0.5
    assert np.all(getattr(model[1], name)["weight"] == 1)
    assert copy.deepcopy(arrays).keys() == arrays.keys() and type(arrays | {"a": 1}) is dict


def test_a_state_that_does_not_fit_is_refused_as_a_whole() -> None:
    layer = fr.Linear(3, 4, seed=1)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"missing: bias; unexpected: gain; wrong shapes: weight has shape \(3, 4\)"):
        layer.load_state_dict({"weight": np.zeros((3, 4)), "gain": 1})
    with pytest.raises(ValueError, match="wrong shapes: bias"):
        layer.load_state_dict({"weight": np.zeros((4, 3)), "bias": np.zeros(3)}, strict=False)
    with pytest.raises(TypeError, match="Linear: bias has dtype"):
        layer.load_state_dict({"weight": np.zeros((4, 3)), "bias": np.zeros(4, complex)})
    for name, value in layer.params.items():
        assert np.array_equal(value, before[name])
    layer.load_state_dict({"bias": np.ones(4), "gain": 1}, strict=False)
    assert layer.params["bias"].tolist() == [1] * 4
    with pytest.raises(ValueError, match="and 80 more"):
        layer.load_state_dict({**before, **{f"x{i}": 0 for i in range(100)}})


def test_a_read_only_parameter_is_found_before_anything_changes() -> None:
    layer = fr.Linear(3, 4, seed=1)
    before = layer.state_dict()
    layer.params["bias"].flags.writeable = False
    with pytest.raises(ValueError, match="Linear: bias is read-only; expected an array that may be written to"):
        layer.load_state_dict({"weight": np.zeros((4, 3)), "bias": np.zeros(4)})
    assert np.array_equal(layer.params["weight"], before["weight"])
    layer.load_state_dict({"weight": np.zeros((4, 3))}, strict=False)
    assert not layer.params["weight"].any()


@pytest.mark.parametrize("of", [lambda array: array, np.transpose])
def test_a_state_of_the_own_arrays(of: Callable[[Any], Any]) -> None:
    model = fr.Sequential(fr.Linear(3, 3, seed=1), fr.Linear(3, 3, seed=2))
    before = model.state_dict()
    first, second = model.params["0.weight"], model.params["1.weight"]
    model.load_state_dict({**model.params, "0.weight": of(second), "1.weight": first})
    assert np.array_equal(first, of(before["1.weight"])) and np.array_equal(second, before["0.weight"])


def test_skipped_initialisation_is_bounded() -> None:
    with bounded(Bounds(100, names=10, parts=10)):
        assert not fr.Linear(4, 5).params["weight"].any()
        with pytest.raises(ValueError, match="the file has 0 left"):
            fr.Linear(1, 1)
    assert fr.Linear(1, 1).params["weight"].any()


# ------------------------------------------------------------------------------------ recurrent layers in composites

MERGES = ["concat", "sum", "mul", "ave"]


def padded_batch() -> tuple[Array, Array]:
    return np.random.default_rng(4).standard_normal((3, 5, 2)), np.array([5, 0, 3])


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_bidirectional_equals_the_two_directions_of_a_layer(name: str) -> None:
    x, lengths = padded_batch()
    both = getattr(fr, name)(2, 3, bidirectional=True, dtype="float64", seed=1)
    wrapped = fr.Bidirectional(getattr(fr, name)(2, 3, dtype="float64", seed=2), seed=3)
    wrapped.load_state_dict(
        {
            **{f"forward.{n}": p for n, p in both.params.items() if not n.endswith("reverse")},
            **{f"reverse.{n.removesuffix('_reverse')}": p for n, p in both.params.items() if n.endswith("reverse")},
        }
    )
    y, (forward, reverse) = wrapped(x, lengths=lengths)
    expected, state = both(x, lengths=lengths)
    assert np.array_equal(y, expected)
    for part, each in enumerate((forward, reverse)):
        pairs = zip(each, state, strict=True) if name == "LSTM" else [(each, state)]
        assert all(np.array_equal(got, whole[part : part + 1]) for got, whole in pairs)


@pytest.mark.parametrize("merge", MERGES)
def test_bidirectional_gradients(merge: str) -> None:
    x, lengths = padded_batch()
    layer = fr.Bidirectional(fr.LSTM(2, 3, dtype="float64", seed=1), merge, seed=2)
    check_gradients(layer, x)
    check_gradients(layer, x, lengths)


@pytest.mark.parametrize("merge", MERGES)
def test_bidirectional_merges(merge: str) -> None:
    x, lengths = padded_batch()
    layer = fr.Bidirectional(fr.GRU(2, 3, dtype="float64", seed=1), None, seed=2)
    (forward, reverse), states = layer(x, lengths=lengths)
    merged = fr.Bidirectional(fr.GRU(2, 3, dtype="float64", seed=1), merge, seed=2)
    y, merged_states = merged(x, lengths=lengths)
    expected = {
        "concat": np.concatenate((forward, reverse), -1),
        "sum": forward + reverse,
        "mul": forward * reverse,
        "ave": (forward + reverse) / 2,
    }
    assert np.array_equal(y, expected[merge])
    assert all(np.array_equal(a, b) for a, b in zip(states, merged_states, strict=True))
    assert not y[1].any() and not y[2, 3:].any()


def test_bidirectional_pair_and_states_have_gradients() -> None:
    x, lengths = padded_batch()
    layer = fr.Bidirectional(fr.GRU(2, 3, dtype="float64", seed=1), None, seed=2)
    rng = np.random.default_rng(3)
    state = (rng.standard_normal((1, 3, 3)), rng.standard_normal((1, 3, 3)))
    ((y0, y1), states), tape = layer.forward(x, state=state, lengths=lengths)
    weights = [rng.standard_normal(a.shape) for a in (y0, y1, *states)]

    def value() -> float:
        (a, b), (c, d) = layer(x, state=state, lengths=lengths)
        return float(sum(np.sum(w * v) for w, v in zip(weights, (a, b, c, d), strict=True)))

    dx, dstate = layer.backward(tape, tuple(weights[:2]), tuple(weights[2:]))
    assert_close(dx, differences.gradient(value, x), 1e-7)
    for got, initial in zip(dstate, state, strict=True):
        assert_close(got, differences.gradient(value, initial), 1e-7)
    without_dy, _ = layer.backward(tape, None, tuple(weights[2:]))
    assert without_dy.shape == x.shape


def test_both_directions_are_initialised_alike() -> None:
    """The reverse child of a layer with torch's uniform biases has such biases too, not those of the default."""
    layer = fr.Bidirectional(fr.LSTM(4, 8, seed=0, init="torch"), seed=1)
    for direction in ("forward", "reverse"):
        bias = layer.params[f"{direction}.bias_ih_l0"]
        assert len(np.unique(bias)) == bias.size
    layer = fr.Bidirectional(fr.LSTM(4, 8, seed=0), seed=1)
    assert np.array_equal(layer.params["forward.bias_ih_l0"], layer.params["reverse.bias_ih_l0"])


def test_bidirectional_refuses_what_it_cannot_wrap() -> None:
    with pytest.raises(TypeError, match="Bidirectional: layer is a Linear"):
        fr.Bidirectional(fr.Linear(2, 3))
    with pytest.raises(ValueError, match="Bidirectional: layer has bidirectional=True"):
        fr.Bidirectional(fr.LSTM(2, 3, bidirectional=True))
    with pytest.raises(ValueError, match="Bidirectional: merge is 'max'"):
        fr.Bidirectional(fr.LSTM(2, 3), "max")
    layer = fr.Bidirectional(fr.LSTM(2, 3, dtype="float64"))
    with pytest.raises(ValueError, match="Bidirectional: state is an ndarray; expected a pair"):
        layer(np.zeros((3, 5, 2)), state=np.zeros((2, 3, 3)))
    _, tape = layer.forward(np.zeros((3, 5, 2)))
    with pytest.raises(ValueError, match=r"Bidirectional: dy has shape \(3, 5, 3\); expected .* = \(3, 5, 6\)"):
        layer.backward(tape, np.zeros((3, 5, 3)))


def test_sequential_passes_lengths_to_the_layers_that_take_them() -> None:
    x, lengths = padded_batch()
    lstm, linear = fr.LSTM(2, 3, dtype="float64", seed=1), fr.Linear(3, 2, dtype="float64", seed=2)
    model = fr.Sequential(lstm, linear, fr.Bidirectional(fr.GRU(2, 2, dtype="float64", seed=3), seed=4))
    assert np.array_equal(fr.Sequential(lstm, linear)(x, lengths=lengths), linear(lstm(x, lengths=lengths)[0]))
    check_gradients(model, x, lengths)
    assert "2.reverse.weight_hh_l0" in model.params


def test_a_slice_of_a_sequential_is_one() -> None:
    model = fr.Sequential(fr.Linear(2, 3), fr.Activation("tanh"), fr.Linear(3, 1))
    part = model[:2]
    assert isinstance(part, fr.Sequential) and list(part) == [model[0], model[1]] and model[-1] is model[2]


# ---------------------------------------------------------------------------------------------------------- sequences


def test_sequences_are_padded() -> None:
    x, lengths = fr.pad_sequences([[3, 1], [], [2, 2, 5]])
    assert x.tolist() == [[3, 1, 0], [0, 0, 0], [2, 2, 5]] and lengths.tolist() == [2, 0, 3]
    assert x.dtype.kind == "i" and lengths.dtype == np.int64
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 2)) for n in (4, 1, 6)]
    x, lengths = fr.pad_sequences(sequences)
    layer = fr.GRU(2, 3, dtype="float64", seed=1)
    y, h = layer(x, lengths=lengths)
    for index, sequence in enumerate(sequences):
        assert np.array_equal(y[index, : len(sequence)], layer(sequence)[0])
        assert np.array_equal(h[:, index], layer(sequence)[1])


@pytest.mark.parametrize(
    ("sequences", "error", "match"),
    [
        ([], ValueError, "sequences is empty"),
        (3, TypeError, "sequences is an int; expected a list of arrays"),
        ([1, 2], ValueError, "sequences has samples of unlike shapes"),
        ([np.zeros((1, 2)), np.zeros((1, 3))], ValueError, "sequences has samples of unlike shapes"),
        ([["a"]], TypeError, "sequences has dtype <U1"),
        ([np.ones(2, int), np.ones(1, np.uint64)], TypeError, "sequences has dtypes int64, uint64; expected integers"),
        ([np.ma.masked_equal([1, 2], 2), [3]], TypeError, r"sequences\[0\] is a MaskedArray with masked elements"),
    ],
)
def test_what_cannot_be_padded(sequences: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=f"pad_sequences: {match}"):
        fr.pad_sequences(sequences)


def test_what_is_made_on_the_way_prints_a_line() -> None:
    """Tapes, streams and optimizers hold arrays that nobody wants on the screen."""
    layer = fr.LSTM(2, 3)
    (_, _), tape = layer.forward(np.zeros((1, 4, 2)))
    weights = np.zeros((12, 2)), np.zeros((12, 3))
    *_, kernel_tape = fr.functional.lstm(np.zeros((1, 4, 2)), *weights, training=True)
    assert repr(tape) == "Tape of LSTM"
    assert repr(kernel_tape) == "KernelTape of lstm, state float64 (1, 3)"
    assert repr(layer.stream(5)) == "Stream of LSTM, batch_size=5"
    assert repr(fr.AdamW(layer)) == "AdamW(lr=0.001, weight_decay=0.01, of LSTM, 0 steps made)"
