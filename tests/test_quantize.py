"""Inference with weights in 8 bits: what it computes, the same bits everywhere, files, models, errors."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import _core
from model_cases import CASES, arguments, keywords
from problems import LAYERS, Array
from reference import CELLS, Weights, sigmoid
from scripts import run_python
from tolerance import assert_same_bits

every_isa = pytest.mark.every_isa
INPUTS = ("int8", "int16")
STEPS = {"int8": 127, "int16": 32639}


def assert_same(actual: Any, expected: Any) -> None:
    for value, truth in zip(leaves(actual), leaves(expected), strict=True):
        assert_same_bits(value, truth)


def leaves(value: Any) -> list[Array]:
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, (tuple, list)) else [value]


def layer_of(cell: str, inputs: int, hidden: int, seed: int = 1, **options: Any) -> Any:
    layer = LAYERS[cell](inputs, hidden, seed=seed, **options)
    rng = np.random.default_rng(seed)
    for array in layer.params.values():  # rows of unlike size, biases other than 0
        array += 0.1 * rng.standard_normal(array.shape).astype(np.float32)
        array *= (0.5 + rng.random((len(array), *[1] * (array.ndim - 1)))).astype(np.float32)
    return layer


def normal(*shape: int, salt: int = 0) -> Array:
    return np.random.default_rng([salt, *shape]).standard_normal(shape).astype(np.float32)


def rounded(rows: Array, steps: int) -> Array:
    """Return float32 rows as the kernels read them, in float64: integers of [-steps, steps] times a scale a row."""
    most = np.abs(rows).max(axis=-1, keepdims=True)
    scale = np.float32(steps) / np.where(most, most, 1)
    return np.rint((rows * scale).astype(np.float64)) * (most / np.float32(steps)).astype(np.float64)


def integer_weights(quantized: Any) -> Weights:
    """Return the weights of the only layer of a quantized one as the float64 values that they stand for."""
    p = {name: array.astype(np.float64) for name, array in quantized.params.items()}
    zeros = np.zeros(len(p["weight_ih_l0"]))
    return Weights(
        p["weight_ih_l0"] * p["scale_ih_l0"][:, None],
        p["weight_hh_l0"] * p["scale_hh_l0"][:, None],
        p.get("bias_ih_l0", zeros),
        p.get("bias_hh_l0", zeros),
    )


def states_of(cell: str, *shape: int) -> Any:
    made = tuple(3 * normal(1, *shape, salt=salt) for salt in range(len(CELLS[cell].states)))
    return made if len(made) > 1 else made[0]


SIZES = [(1, 1, 1), (1, 64, 64), (3, 5, 17), (2, 33, 20), (13, 7, 100), (1, 130, 36), (4, 3, 68), (9, 257, 130)]


@every_isa
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_step_is_that_of_the_rounded_operands(
    cell: str, sizes: tuple[int, int, int], bias: bool, inputs: str
) -> None:
    batch, columns, hidden = sizes
    layer = fr.quantize(layer_of(cell, columns, hidden, bias=bias), inputs=inputs)
    x = normal(batch, 1, columns) * np.logspace(-3, 3, batch, dtype=np.float32)[:, None, None]
    state = states_of(cell, batch, hidden)
    y, final = layer(x, state)
    w = integer_weights(layer)
    for b in range(batch):
        h0, *c0 = state if isinstance(state, tuple) else (state,)
        before = (rounded(h0[0, b], 127), *(c[0, b].astype(np.float64) for c in c0))
        truth = CELLS[cell].step(rounded(x[b, 0], STEPS[inputs]), before, w)
        if cell == "gru":  # whose h1 keeps a part of h0 itself
            truth = gru_with(truth[0], rounded(x[b, 0], STEPS[inputs]), before[0], h0[0, b], w)
        bound = 2e-6 * max(1, *(np.abs(each).max() for each in truth))
        got = [np.asarray(each)[0, b] for each in (final if isinstance(final, tuple) else (final,))]
        for value, expected in zip(got, truth, strict=True):
            np.testing.assert_allclose(value, expected, rtol=0, atol=bound)
        assert_same(y[b, 0], got[0])


def gru_with(h1: Array, x: Array, rounded_h: Array, h0: Array, w: Weights) -> tuple[Array]:
    """Return h1 of a GRU whose products read ``rounded_h``, and whose update mixes in ``h0``."""
    hidden = len(h0)
    z_x, z_h = w.weight_ih @ x + w.bias_ih, w.weight_hh @ rounded_h + w.bias_hh
    z = sigmoid((z_x + z_h)[hidden : 2 * hidden])
    return (h1 + z * (h0.astype(np.float64) - rounded_h),)


@every_isa
def test_sums_do_not_saturate_and_fit(cell: str) -> None:
    """The largest integers of one sign everywhere, and as many as 32 bits hold."""
    columns, hidden = 65536, 3
    layer = LAYERS[cell](columns, hidden, seed=1)
    for name, array in layer.params.items():
        array[...] = 0
        if name == "weight_ih_l0":
            array[::2] = 1e-6
            array[1::2] = -1e-6
    layer.params["weight_ih_l0"][:, 0] *= 1 - 2 * (np.arange(len(layer.params["weight_ih_l0"])) % 3 == 0)
    for inputs in INPUTS:
        quantized = fr.quantize(layer, inputs=inputs)
        for sign in (1, -1):
            x = np.full((1, 1, columns), sign, np.float32)
            np.testing.assert_allclose(quantized(x)[0], layer(x)[0], atol=1e-5)
    with pytest.raises(ValueError, match="65537 inputs; expected at most 65536"):
        fr.quantize(LAYERS[cell](columns + 1, 1))


@every_isa
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("sizes", [(1, 40, 9, 36), (7, 5, 17, 15), (33, 4, 65, 129), (9, 5, 7, 100)], ids=str)
@pytest.mark.usefixtures("restore_threads")
def test_bits_do_not_depend_on_threads_batch_or_strides(
    cell: str, sizes: tuple[int, int, int, int], inputs: str
) -> None:
    batch, time, columns, hidden = sizes
    layer = fr.quantize(layer_of(cell, columns, hidden, num_layers=2, bidirectional=True), inputs=inputs)
    x, lengths = normal(batch, time, columns), np.arange(batch) % (time + 1)
    fr.set_num_threads(1)
    expected = layer(x, lengths=lengths)
    for threads in (2, 3):
        fr.set_num_threads(threads)
        assert_same(layer(x, lengths=lengths), expected)
    wide = np.zeros((batch, 2 * time, columns + 3), np.float32)
    wide[:, ::2, 1:-2] = x
    assert_same(layer(wide[:, ::2, 1:-2], lengths=lengths), expected)
    for b in range(batch):
        y, _ = layer(x[b : b + 1, : lengths[b]])
        assert_same(y[0], expected[0][b, : lengths[b]])


@every_isa
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("sizes", [(203, 200), (310, 260)], ids=str)
@pytest.mark.usefixtures("restore_threads")
def test_one_sequence_has_the_bits_of_several(cell: str, sizes: tuple[int, int], inputs: str) -> None:
    """Its input products may be made beside the recurrent ones; W_hh here does not fit the first-level cache."""
    layer = fr.quantize(layer_of(cell, *sizes), inputs=inputs)
    x, time = normal(2, 67, sizes[0]) * np.logspace(-1, 1, 67, dtype=np.float32)[:, None], 67
    for threads in (1, 2):
        fr.set_num_threads(threads)
        expected = layer(x)[0]
        assert_same(layer(x[:1])[0], expected[:1])
        y, _ = layer(x, lengths=[31, time])  # one is left in the middle
        assert_same(y[0, :31], expected[0, :31])
        assert_same(y[1], expected[1])


@every_isa
def test_steps_of_a_call_are_calls_of_a_step(cell: str) -> None:
    """Also those of a stream, of the layers of a stack one by one, and with time first."""
    layer = layer_of(cell, 20, 36, num_layers=2)
    quantized = fr.quantize(layer)
    x = normal(3, 6, 20)
    expected, final = quantized(x)
    state = None
    stream = quantized.stream(3)
    for t in range(6):
        y, state = quantized(x[:, t : t + 1], state)
        assert_same(y[:, 0], expected[:, t])
        assert_same(stream.step(np.ascontiguousarray(x[:, t])), expected[:, t])
    assert_same(state, final)
    assert_same(stream.state, final)
    first, second = layer_of(cell, 20, 36), layer_of(cell, 36, 36)
    for one, suffix in ((first, "_l0"), (second, "_l1")):
        one.load_state_dict({name: layer.params[name.replace("_l0", suffix)] for name in one.params})
    below, _ = fr.quantize(first)(x)
    assert_same(fr.quantize(second, inputs="int8")(below)[0], expected)
    time_first = fr.quantize(layer_of(cell, 20, 36, num_layers=2, batch_first=False))
    assert_same(time_first(x.swapaxes(0, 1))[0].swapaxes(0, 1), expected)


@every_isa
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_in_its_sample(cell: str, bad: float) -> None:
    layer = fr.quantize(layer_of(cell, 5, 20))
    x = normal(3, 4, 5)
    expected, _ = layer(x)
    x[1, 2, 3] = bad
    y, _ = layer(x)
    assert_same(y[[0, 2]], expected[[0, 2]])
    assert_same(y[1, :2], expected[1, :2])
    if cell != "rnn_relu":  # a relu of NaN is NaN, too, but its rows are dealt with below
        assert np.isnan(y[1, 2:]).all()


@every_isa
@pytest.mark.parametrize("columns", [1, 2, 3, 5, 9, 17])
def test_long_double_still_computes(columns: int) -> None:
    """Instructions of MMX would leave the registers of long double in use, whose next results are then NaN."""
    layer = fr.quantize(layer_of("lstm", columns, 3))
    for _ in range(3):
        layer(normal(1, 2, columns))
    values = [np.longdouble(n) for n in range(1, 9)]
    product = values[0] * (values[1] * (values[2] * (values[3] * (values[4] * (values[5] * (values[6] * values[7]))))))
    assert product == 40320


@every_isa
def test_zeros_and_tiny_rows(cell: str) -> None:
    layer = layer_of(cell, 5, 20)
    for scale in (0, 1e-38, 1e-31):
        x = np.float32(scale) * normal(2, 3, 5)
        np.testing.assert_allclose(fr.quantize(layer)(x)[0], layer(x)[0], atol=0.05)
        assert np.isfinite(fr.quantize(layer)(x)[0]).all()


def hashes(isa: str) -> list[str]:
    code = """
import hashlib, numpy as np, fusedrnn as fr
rng = np.random.default_rng(0)
for cell in (fr.LSTM, fr.GRU, fr.RNN):
    for size in (5, 36, 130):
        layer = fr.quantize(cell(size, size, num_layers=2, seed=1, init="torch"))
        y, _ = layer(rng.standard_normal((3, 20, size)).astype("f4"))
        print(hashlib.sha256(y.tobytes()).hexdigest())
print(fr._core.int8())
"""
    lines = run_python(code, FUSEDRNN_ISA=isa).stdout.split()
    assert lines.pop() == isa
    return lines


def test_bits_on_processors_with_and_without_the_instruction() -> None:
    """The kernels for 8 bits of one instruction set agree in every bit, and FUSEDRNN_ISA forces each."""
    families: dict[str, list[list[str]]] = {}
    for isa in _core.available_isas(True):
        families.setdefault(isa.partition("_")[0], []).append(hashes(isa))
    for results in families.values():
        assert all(each == results[0] for each in results)


def test_errors_are_near_to_the_rounding_of_the_weights(cell: str) -> None:
    """int16 for x leaves little but the rounding of the weights and of h; int8 adds that of x."""
    layer = LAYERS[cell](128, 128, seed=1)
    x = normal(4, 50, 128)
    expected = layer(x)[0]
    error = {inputs: np.abs(fr.quantize(layer, inputs=inputs)(x)[0] - expected).max() for inputs in INPUTS}
    assert error["int16"] < 0.8 * error["int8"] < 0.1


def test_files(cell: str, tmp_path: Path) -> None:
    layer = layer_of(cell, 64, 96, num_layers=2, bidirectional=True)
    quantized = fr.quantize(layer, inputs="int8")
    x = normal(2, 5, 64)
    layer.save(tmp_path / "float")
    quantized.save(tmp_path / "int8")
    loaded = fr.load(tmp_path / "int8")
    assert loaded.config() == quantized.config()
    assert_same(loaded(x), quantized(x))
    assert (tmp_path / "int8").stat().st_size < 0.29 * (tmp_path / "float").stat().st_size
    assert b'"format": 3' in (tmp_path / "int8").read_bytes()[:4000].replace(b"\\", b"")
    assert b'"format": 2' in (tmp_path / "float").read_bytes()[:4000].replace(b"\\", b"")
    for again in (copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
        assert_same(again(x), quantized(x))


RECURRENT = [name for name in CASES if "stacked" not in name]  # stacked autoencoders are made of Linear layers


@pytest.mark.parametrize("name", RECURRENT)
def test_models(name: str, tmp_path: Path) -> None:
    """Every model runs, is near to what it was, and is the same after a file."""
    case = CASES[name]
    model, inputs = arguments(case, "float32")
    before = model.state_dict()
    quantized = fr.quantize(model)
    assert type(quantized) is type(model)
    y, expected = quantized(*inputs, **keywords(case)), model(*inputs, **keywords(case))
    near, right = (np.concatenate([np.ravel(each) for each in leaves(value)]) for value in (y, expected))
    assert 0 < np.abs(near - right).max() < 0.02 * np.abs(right).max()
    quantized.save(tmp_path / "m")
    assert_same(fr.load(tmp_path / "m")(*inputs, **keywords(case)), y)
    for key, value in model.state_dict().items():
        assert_same(value, before[key])
    quantized.summary()


def chain() -> Any:
    return fr.Sequential(fr.Embedding(7, 8, seed=1), fr.LSTM(8, 12, seed=2), fr.GRU(12, 10, seed=3), fr.Linear(10, 7))


def test_layers_are_kept_by_name() -> None:
    model = chain()
    kept = fr.quantize(model, keep="1")
    names = {name: getattr(layer, "quantized", None) for name, layer in kept.children().items()}
    assert names == {"0": None, "1": None, "2": "int8", "3": None}
    with pytest.raises(ValueError, match="no layer is named 'encoder'; expected one of 0, 1, 2, 3"):
        fr.quantize(model, keep=["1", "encoder"])
    with pytest.raises(ValueError, match="no recurrent layer to quantize"):
        fr.quantize(model, keep=["1", "2"])


def test_a_direction_is_kept_by_name(tmp_path: Path) -> None:
    layer = fr.Bidirectional(fr.LSTM(5, 6, seed=1), seed=2)
    x = normal(2, 3, 5)
    for keep, which in (("forward", 0), ("reverse", 1)):
        quantized = fr.quantize(layer, keep=keep)
        same = [slice(0, 6), slice(6, 12)][which]
        assert_same(quantized(x)[0][..., same], layer(x)[0][..., same])
        assert (quantized(x)[0] != layer(x)[0]).any()
        quantized.save(tmp_path / keep)
        assert_same(fr.load(tmp_path / keep)(x), quantized(x))


def test_copies_are_called_as_quickly() -> None:
    """A dtype that was copied is equal, but not the object that a call looks for before it converts x."""
    layer = fr.LSTM(2, 3)
    for copied in (fr.quantize(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.dtype is np.dtype("float32")
    assert fr.LSTM(2, 3, dtype=copy.deepcopy(np.dtype("float64"))).dtype is np.dtype("float64")


def test_summary_names_what_is_quantized() -> None:
    layer = fr.quantize(fr.Bidirectional(fr.LSTM(5, 6)), keep="reverse")
    assert "forward (LSTM int8)" in str(layer.summary()) and "reverse (LSTM) " in str(layer.summary())


def test_summary_shows_bytes() -> None:
    layer = fr.quantize(fr.LSTM(5, 6))
    size = 4 * 6 * (5 + 6) + 4 * 4 * 6 * 4
    assert layer.summary().num_bytes == size == sum(array.nbytes for array in layer.params.values())
    assert f"bytes{size:>{len(str(layer.summary()).splitlines()[0]) - 5},}" in str(layer.summary())
    assert "bytes" not in str(fr.LSTM(5, 6).summary())


def test_what_learns_is_around_it() -> None:
    """A frozen, quantized encoder serves the head that is trained on it."""
    model = fr.quantize(fr.Sequential(fr.LSTM(3, 8, seed=1), fr.Linear(8, 2, seed=2)))
    before = model.state_dict()
    fr.fit(model, normal(16, 5, 3), normal(16, 5, 2, salt=1), epochs=2, batch_size=8, progress=False, seed=1)
    after = model.state_dict()
    assert [name for name in before if (before[name] != after[name]).any()] == ["1.weight", "1.bias"]


@pytest.mark.parametrize("cls", [fr.RNN, fr.LSTM, fr.GRU])
def test_dropout_of_training_is_not_in_the_way(cls: Any, tmp_path: Path) -> None:
    """What was trained with ``recurrent_dropout`` is served like any other; zoneout acts in inference, too."""
    plain, dropped = cls(5, 9, 2, seed=1), cls(5, 9, 2, recurrent_dropout=0.3, seed=1)
    x, small = normal(3, 7, 5), fr.quantize(dropped)
    assert_same_bits(small(x)[0], fr.quantize(plain)(x)[0])
    small.save(tmp_path / "small")
    assert_same_bits(fr.load(tmp_path / "small")(x)[0], small(x)[0])
    assert small.config() == fr.quantize(plain).config() and dropped.variant.recurrent_dropout == 0.3
    with pytest.raises(RuntimeError, match="forward is for training"):
        small.forward(x)
    if cls is not fr.RNN:
        with pytest.raises(ValueError, match=f"{cls.__name__} has zoneout; expected a cell without options"):
            fr.quantize(cls(5, 9, recurrent_dropout=0.3, zoneout=0.1))


@pytest.mark.parametrize(
    ("made", "options", "error", "message"),
    [
        (lambda: fr.LSTM(2, 3, dtype="float64"), {}, TypeError, "LSTM is float64; expected float32"),
        (lambda: fr.LSTM(2, 3, peephole=True), {}, ValueError, "LSTM has peephole; expected a cell without options"),
        (lambda: fr.GRU(2, 3, activations=["relu", "tanh"]), {}, ValueError, "GRU has activations"),
        (lambda: fr.quantize(fr.GRU(2, 3)), {}, ValueError, "GRU is int8 already"),
        (lambda: fr.Linear(2, 3), {}, ValueError, "Linear has no recurrent layer to quantize"),
        (lambda: np.zeros(3), {}, TypeError, "model is a numpy.ndarray|model is an? .*ndarray"),
        (lambda: fr.GRU(2, 3), {"dtype": "int4"}, ValueError, "dtype is 'int4'; expected 'int8'"),
        (lambda: fr.GRU(2, 3), {"inputs": "float32"}, ValueError, "inputs is 'float32'; expected 'int16' or 'int8'"),
        (
            lambda: fr.Sequential(fr.GRU(2, 3, clip=1.0), fr.GRU(3, 3)),
            {},
            ValueError,
            "GRU '0' has clip; expected a cell without options; keep='0' leaves it as it is",
        ),
    ],
)
def test_what_cannot_be_quantized(made: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fr.quantize(made(), **options)


def test_weights_that_are_not_finite() -> None:
    layer = fr.RNN(2, 3)
    layer.params["weight_hh_l0"][1, 2] = np.nan
    with pytest.raises(ValueError, match="weight_hh_l0 has values that are not finite"):
        fr.quantize(layer)


def test_a_quantized_layer_does_not_learn(cell: str) -> None:
    layer = LAYERS[cell](2, 3)
    quantized = fr.quantize(layer)
    x = normal(1, 4, 2)
    _, tape = layer.forward(x)
    with pytest.raises(RuntimeError, match="forward is for training, and these weights are int8; expected the float32"):
        quantized.forward(x)
    with pytest.raises(RuntimeError, match="backward is for training"):
        quantized.backward(tape, x)
    assert not quantized.trainable and layer.trainable
    assert quantized.quantized == "int8" and layer.quantized is None
    with pytest.raises(TypeError, match="weight_ih_l0 has dtype float32; expected int8"):
        quantized.load_state_dict(layer.state_dict() | {n: a for n, a in quantized.params.items() if "scale" in n})
    quantized.load_state_dict(fr.quantize(LAYERS[cell](2, 3, seed=5)).state_dict())
    assert_same(quantized(x), fr.quantize(LAYERS[cell](2, 3, seed=5))(x))
