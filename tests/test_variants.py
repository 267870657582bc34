"""Cells with other gate functions, clips, peepholes and coupled gates, against the reference and ONNX Runtime."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fusedrnn as fr
import reference
from fusedrnn.layers import recurrent_parts
from problems import flat
from tolerance import assert_forward, assert_gradient, assert_same_bits

Array = NDArray[Any]
pytestmark = pytest.mark.every_isa

FUNCTIONS: list[tuple[str, float, float]] = [
    ("sigmoid", 0, 0),
    ("tanh", 0, 0),
    ("relu", 0, 0),
    ("affine", 0.7, 0.1),
    ("leaky_relu", 0.2, 0),
    ("thresholded_relu", 0.31, 0),
    ("scaled_tanh", 0.8, 1.3),
    ("hard_sigmoid", 0.25, 0.45),
    ("elu", 0.6, 0),
    ("softsign", 0, 0),
    ("softplus", 0, 0),
]
LAYERS = {"rnn": fr.RNN, "lstm": fr.LSTM, "gru": fr.GRU}
COUNT = {"rnn": 1, "lstm": 3, "gru": 2}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {"activations": ("elu",), "clip": 0.7}),
    ("lstm", {"peephole": True}),
    ("lstm", {"coupled": True}),
    ("lstm", {"clip": 0.4}),
    ("lstm", {"activations": ("hard_sigmoid", "softsign", ("scaled_tanh", 0.8, 1.2))}),
    ("lstm", {"peephole": True, "coupled": True, "clip": 0.9, "activations": ("hard_sigmoid", "relu", "softplus")}),
    ("gru", {"clip": 0.4}),
    ("gru", {"activations": (("hard_sigmoid", 1 / 6, 0.5), "leaky_relu"), "clip": 0.8}),
    ("gru", {"reset_after": False}),
    ("gru", {"reset_after": False, "activations": ("hard_sigmoid", ("affine", 0.4, 0.2)), "clip": 0.8}),
]
IDS = [f"{cell}-{'-'.join(options)}" for cell, options in VARIANTS]


def make(cell: str, options: dict[str, Any], inputs: int = 3, hidden: int = 5, **more: Any) -> Any:
    """A layer with random weights, peepholes included."""
    layer = LAYERS[cell](inputs, hidden, init="torch", seed=3, **options, **more)
    rng = np.random.default_rng(7)
    for name, array in layer.params.items():
        if "peephole" in name:
            array[...] = rng.normal(0.1, 0.8, array.shape)
    return layer


def truth(layer: Any, x: Array, state: tuple[Array, ...], lengths: Any = None, params: Any = None) -> Any:
    """What the reference makes of the layer's arguments."""
    params = layer.params if params is None else params
    cell = layer.op.lower()
    books = {"rnn": ["tanh"], "lstm": ["sigmoid", "tanh", "tanh"], "gru": ["sigmoid", "tanh"]}[cell]
    functions = layer.variant.activations or [(name, 0, 0) for name in books]
    clip = np.inf if layer.variant.clip is None else layer.variant.clip

    def made(suffix: str) -> reference.Cell:
        peephole = params.get(f"weight_peephole{suffix}")
        return reference.varied(cell, functions, clip, layer.variant.coupled, peephole, layer.variant.reset_after)

    return reference.stack(
        made,
        params,
        x,
        *state,
        num_layers=layer.num_layers,
        bidirectional=layer.bidirectional,
        lengths=lengths,
        batch_first=layer.batch_first,
    )


def arguments(layer: Any, batch: int = 3, steps: int = 6) -> tuple[Array, tuple[Array, ...]]:
    rng = np.random.default_rng(5)
    shape = (layer.num_layers * layer.num_directions, batch, layer.hidden_size)
    states = 2 if layer.op == "LSTM" else 1
    axes = (batch, steps) if layer.batch_first else (steps, batch)
    return rng.normal(0.1, 1, (*axes, layer.input_size)), tuple(rng.uniform(-0.5, 0.6, shape) for _ in range(states))


def as_state(state: tuple[Array, ...]) -> Any:
    return state if len(state) == 2 else state[0]


def check(layer: Any, lengths: Any = None, batch: int = 3, steps: int = 6) -> None:
    """Outputs, and every gradient along a random direction, in the layer's dtype."""
    x, state = arguments(layer, batch, steps)
    x, state = x.astype(np.float32).astype(np.float64), tuple(s.astype(np.float32).astype(np.float64) for s in state)
    params = {name: array.astype(np.float64) for name, array in layer.params.items()}
    expected = truth(layer, x, state, lengths, params)
    actual = flat(*layer(x, as_state(state), lengths))
    (y, final), tape = layer.forward(x, as_state(state), lengths)
    for one, other, right in zip(actual, flat(y, final), expected, strict=True):
        assert_forward(one, right)
        assert_same_bits(one, other)
    rng = np.random.default_rng(11)
    cotangents = tuple(rng.normal(0.1, 1, each.shape) for each in expected)
    layer.zero_grad()
    dx, dstate = layer.backward(tape, cotangents[0], as_state(cotangents[1:]))
    actual_gradients = {"x": dx, **layer.grads}
    actual_gradients |= dict(zip(("h0", "c0"), flat(dx, dstate)[1:], strict=False))

    def function(**at: Any) -> tuple[Array, ...]:
        moved = {name: at.get(name, array) for name, array in params.items()}
        states = tuple(at[f"{name}0"] for name in "hc"[: len(state)])
        result: tuple[Array, ...] = truth(layer, at["x"], states, lengths, moved)
        return result

    at = {"x": x, **params, **dict(zip(("h0", "c0"), state, strict=False))}
    assert actual_gradients.keys() == at.keys()
    for name, gradient in actual_gradients.items():
        assert_gradient(gradient, reference.gradient(function, at, cotangents, name), f"d{name}")


@pytest.mark.parametrize(("cell", "options"), VARIANTS, ids=IDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_outputs_and_every_element_of_every_gradient(cell: str, options: dict[str, Any], dtype: str) -> None:
    check(make(cell, options, dtype=dtype), lengths=[6, 0, 3])


@pytest.mark.parametrize(("cell", "options"), VARIANTS, ids=IDS)
def test_layers_directions_and_layouts(cell: str, options: dict[str, Any]) -> None:
    shape = {"num_layers": 2, "bidirectional": True, "batch_first": False, "dtype": "float64"}
    check(make(cell, options, inputs=2, hidden=3, **shape), lengths=[2, 4], batch=2, steps=4)


@pytest.mark.parametrize(("cell", "options"), VARIANTS, ids=IDS)
@pytest.mark.parametrize("hidden", [1, 4, 8, 15, 16, 17, 20])
def test_sizes_around_the_vector(cell: str, options: dict[str, Any], hidden: int) -> None:
    """Dense last blocks included, whose gates lie side by side."""
    check(make(cell, options, inputs=2, hidden=hidden, dtype="float64", bias=hidden % 2 == 0), batch=2, steps=3)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function[0])
def test_every_function_in_every_place(cell: str, function: tuple[str, float, float]) -> None:
    for place in range(COUNT[cell]):
        activations = [("sigmoid", 0, 0), ("tanh", 0, 0), ("tanh", 0, 0)][: COUNT[cell]]
        activations[place] = function
        for clip in (None, 0.6):
            check(make(cell, {"activations": activations, "clip": clip}, hidden=3, dtype="float64"), steps=4)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function[0])
def test_functions_over_their_range(function: tuple[str, float, float], dtype: str) -> None:
    """One step from h = 0 with W_ih = 1: h is the function itself, at large arguments, too; NaN stays NaN."""
    layer = fr.RNN(1, 1, bias=False, dtype=dtype, activations=[function])
    layer.params["weight_ih_l0"][...] = 1
    z = np.concatenate(([0.0, -0.0, 1e30, -1e30, 1e4, -1e4, 88, -88, 1e-30], np.linspace(-30, 30, 601))).astype(dtype)
    expected = reference.gate_function(*function)(z.astype(np.float64) + 0j).real
    actual = layer(z[:, None, None])[0][:, 0, 0]
    bound = 1e-6 if dtype == "float32" else 1e-14
    assert np.all(np.abs(actual - expected) <= bound * np.maximum(1, np.abs(expected)))
    assert np.isnan(layer(np.full((1, 1, 1), np.nan))[0]).all()


def test_the_cells_of_the_books_have_the_same_bits_as_options() -> None:
    """Functions given by name that are those of the book change at most the last bits."""
    for cell, names in (("rnn", ["tanh"]), ("lstm", ["sigmoid", "tanh", "tanh"]), ("gru", ["sigmoid", "tanh"])):
        plain, varied = make(cell, {}, hidden=19), make(cell, {"activations": names}, hidden=19)
        x, state = arguments(plain)
        for a, b in zip(flat(*plain(x, as_state(state))), flat(*varied(x, as_state(state))), strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize(("cell", "options"), VARIANTS, ids=IDS)
def test_bits_do_not_depend_on_threads_batch_or_streams(
    cell: str, options: dict[str, Any], restore_threads: None
) -> None:
    layer = make(cell, options, inputs=7, hidden=45)
    x, state = arguments(layer, 9, 12)
    whole = {}
    for threads in (1, 2):
        fr.set_num_threads(threads)
        (y, final), tape = layer.forward(x, as_state(state))
        layer.zero_grad()
        dx, _ = layer.backward(tape, np.ones_like(y), None)
        whole[threads] = [y, *flat(y, final), dx, *(g.copy() for g in layer.grads.values())]
    for a, b in zip(whole[1], whole[2], strict=True):
        assert_same_bits(a, b)
    alone = layer(x[4:5], as_state(tuple(s[:, 4:5] for s in state)))[0]
    assert_same_bits(alone[0], whole[1][0][4])
    stream = layer.stream(9)
    stream.reset(as_state(tuple(np.ascontiguousarray(s, np.float32) for s in state)))
    for step in range(12):
        assert_same_bits(stream.step(np.ascontiguousarray(x[:, step], np.float32)), whole[1][0][:, step])


@pytest.mark.parametrize(("batch", "hidden", "lengths"), [(1, 600, None), (3, 530, [5, 2, 0])])
def test_two_products_in_pieces_and_by_unit(batch: int, hidden: int, lengths: Any, restore_threads: None) -> None:
    """Sums of more than one piece, and threads that meet between the products: the same bits, and right ones."""
    layer = make("gru", {"reset_after": False}, inputs=5, hidden=hidden)
    x, state = arguments(layer, batch, 5)
    whole = {}
    for threads in (1, 2):
        fr.set_num_threads(threads)
        if threads == 2 and batch == 1:
            assert layer.plan(5, 1) == "by_unit x2"
        (y, h), tape = layer.forward(x, as_state(state), lengths)
        layer.zero_grad()
        dx, dh = layer.backward(tape, y + 1, h)
        whole[threads] = [y, h, dx, dh, *(g.copy() for g in layer.grads.values())]
    for a, b in zip(whole[1], whole[2], strict=True):
        assert_same_bits(a, b)
    double = fr.GRU(5, hidden, reset_after=False, dtype="float64")
    double.load_state_dict({name: array.astype(np.float64) for name, array in layer.params.items()})
    assert_forward(whole[1][0], truth(double, x, state, lengths)[0])
    (y, h), tape = double.forward(x, as_state(state), lengths)
    dx, dh = double.backward(tape, y + 1, h)
    for a, b in zip(whole[1], [y, h, dx, dh, *double.grads.values()], strict=True):
        assert_gradient(a, b)
    at = {"x": x, "h0": state[0], **double.params}
    along = np.random.default_rng(1)

    def function(**moved: Any) -> tuple[Array, ...]:
        params = {name: moved[name] for name in double.params}
        result: tuple[Array, ...] = truth(double, moved["x"], (moved["h0"],), lengths, params)
        return result

    for name, gradient in {"x": dx, "h0": dh, **double.grads}.items():
        direction = along.normal(0, 1, at[name].shape)
        expected = reference.slope(function, at, (y + 1, h), name, direction)
        assert abs(np.sum(gradient * direction) - expected) <= 1e-9 * max(1, abs(expected)), name


def test_functional_reset_before() -> None:
    layer = make("gru", {"reset_after": False}, dtype="float64")
    x, (h0,) = arguments(layer)
    weights = tuple(layer.params.values())
    y, h, tape = fr.functional.gru(x, *weights, h0[0], reset_after=False, training=True)
    (expected, state), own = layer.forward(x, h0)
    assert_same_bits(y, expected)
    gradients = fr.functional.gru_backward(tape, y, h)
    dx, dh = layer.backward(own, y, h[None])
    for a, b in zip(gradients[:-1], (dx, *layer.grads.values(), dh[0]), strict=True):
        assert_same_bits(a, b)
    assert np.any(fr.functional.gru(x, *weights, h0[0])[0] != y) and np.array_equal(h, state[0])


@pytest.mark.parametrize(("cell", "options"), VARIANTS, ids=IDS)
def test_files_and_copies(cell: str, options: dict[str, Any], tmp_path: Any) -> None:
    layer = make(cell, options, num_layers=2, bidirectional=True)
    layer.save(tmp_path / "layer.safetensors")
    loaded = fr.load(tmp_path / "layer.safetensors")
    assert loaded.config() == layer.config() and loaded.variant == layer.variant  # type: ignore[attr-defined]
    x, state = arguments(layer)
    assert_same_bits(loaded(x, as_state(state))[0], layer(x, as_state(state))[0])
    wrapped = fr.Bidirectional(make(cell, options))
    assert wrapped(x)[0].shape == (3, 6, 10)
    assert "weight_peephole_l0" in layer.params or not options.get("peephole")


def test_functions_that_are_not_0_at_0_do_not_grow_beyond_the_last_unit() -> None:
    """c of lanes without a unit would double at each step and turn gradients into NaN."""
    layer = fr.LSTM(2, 3, activations=[("affine", 1.0, 2.0), ("affine", 1.0, 1.0), "tanh"], init="torch", seed=1)
    for array in layer.params.values():
        array *= 1e-3
    layer.params["bias_ih_l0"][...] = -1.9
    (y, _), tape = layer.forward(np.ones((1, 400, 2)))
    assert np.isfinite(y).all() and np.isfinite(layer.backward(tape, np.ones_like(y))[0]).all()
    assert all(np.isfinite(grad).all() for grad in layer.grads.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activations": "tanh"}, r"activations is .*; expected a sequence of 3"),
        ({"activations": ["tanh"]}, r"activations has 1 functions; expected 3, for gates, candidate, output"),
        ({"activations": ["tanh", "tanh", "swish"]}, r"activations\[2\] is 'swish'; expected a name or"),
        ({"activations": ["tanh", "tanh", ("elu", -1)]}, r"alpha of activations\[2\] is -1.0; expected a number >= 0"),
        ({"activations": ["tanh", ("affine", np.nan), "tanh"]}, r"alpha of activations\[1\] is nan"),
        ({"clip": 0}, r"clip is 0; expected a positive number"),
        ({"clip": np.inf}, r"clip is inf; expected a positive number"),
        ({"coupled": 1}, r"coupled is "),
        ({"peephole": "yes"}, r"peephole is "),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^LSTM: {message}"):
        fr.LSTM(2, 3, **options)


def test_what_a_variant_cannot_do_is_said() -> None:
    layer = make("lstm", {"peephole": True})
    with pytest.raises(ValueError, match=r"gradient_flow: LSTM has peephole; expected the cell without"):
        fr.diagnostics.gradient_flow(layer, np.zeros((1, 3, 3)))
    assert fr.diagnostics.gate_trace(layer, np.zeros((1, 3, 3)))["l0"]["i"].shape == (1, 3, 5)
    with pytest.raises(ValueError, match="LSTM: compute_dtype is bfloat16; expected float32 for a cell with options"):
        fr.LSTM(2, 3, clip=1.0, compute_dtype="bfloat16")
    with pytest.raises(ValueError, match="GRU: compute_dtype is bfloat16; expected float32 for a cell with options"):
        fr.GRU(2, 3, reset_after=False, compute_dtype="bfloat16")
    with pytest.raises(RuntimeError, match="GRU: reset_after=False is on the cpu only; expected device 'cpu'"):
        recurrent_parts.kernels(fr.GRU(2, 3, reset_after=False), "cuda")
    with pytest.raises(TypeError, match="GRU: reset_after is "):
        fr.GRU(2, 3, reset_after=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(60))
def test_onnx_runtime_agrees(seed: int) -> None:
    """Random attributes of all three operators, with unequal lengths."""
    needed = ("onnxruntime", "onnx.helper", "onnx.numpy_helper")
    ort, helper, numpy_helper = (pytest.importorskip(name) for name in needed)
    rng = np.random.default_rng(seed)
    cell = ("rnn", "lstm", "gru")[seed % 3]
    op, gates = {"rnn": ("RNN", 1), "lstm": ("LSTM", 4), "gru": ("GRU", 3)}[cell]
    order = {"rnn": [0], "lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}[cell]  # ours to ONNX's: i o f c, z r h
    inputs, hidden, batch, steps = (int(n) for n in rng.integers(1, 9, 4))
    chosen = [FUNCTIONS[i] for i in rng.integers(0, len(FUNCTIONS), COUNT[cell])]
    clip = float(rng.uniform(0.3, 2)) if rng.random() < 0.5 else None
    options: dict[str, Any] = {"activations": chosen, "clip": clip}
    if cell == "gru":
        options["reset_after"] = bool(rng.random() < 0.5)
    if cell == "lstm":
        options |= {"coupled": bool(rng.random() < 0.5), "peephole": bool(rng.random() < 0.5)}
    layer = make(cell, options, inputs, hidden)
    names = {"leaky_relu": "LeakyRelu", "thresholded_relu": "ThresholdedRelu", "scaled_tanh": "ScaledTanh"}
    names |= {"hard_sigmoid": "HardSigmoid"}
    alphas = [f[1] for f in chosen if fr.layers.variants.FUNCTIONS[f[0]][0] is not None]
    betas = [f[2] for f in chosen if fr.layers.variants.FUNCTIONS[f[0]][1] is not None]
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "activations": [names.get(f[0], f[0].capitalize()) for f in chosen],
        **({"activation_alpha": alphas} if alphas else {}),
        **({"activation_beta": betas} if betas else {}),
        **({"clip": options["clip"]} if options["clip"] else {}),
        **({"input_forget": 1} if options.get("coupled") else {}),
        **({"linear_before_reset": int(layer.variant.reset_after)} if cell == "gru" else {}),
    }

    def blocks(array: Array) -> Array:
        return np.concatenate([np.split(array, gates)[i] for i in order])

    p = layer.params
    weights = {
        "W": blocks(p["weight_ih_l0"]),
        "R": blocks(p["weight_hh_l0"]),
        "B": np.concatenate([blocks(p["bias_ih_l0"]), blocks(p["bias_hh_l0"])]),
    }
    given = ["X", "W", "R", "B", "S"]
    if options.get("peephole"):
        i, f, o = np.split(p["weight_peephole_l0"], 3)
        weights["P"] = np.concatenate([i, o, f])
        given += ["", "", "P"]
    float_type, int_type = 1, 6
    graph = helper.make_graph(
        [helper.make_node(op, given, ["Y"], **attributes)],
        "cell",
        [
            helper.make_tensor_value_info("X", float_type, ["T", "B", inputs]),
            helper.make_tensor_value_info("S", int_type, ["B"]),
        ],
        [helper.make_tensor_value_info("Y", float_type, None)],
        [numpy_helper.from_array(array[np.newaxis], name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    x = rng.normal(0, 1, (steps, batch, inputs)).astype(np.float32)
    lengths = rng.integers(1, steps + 1, batch).astype(np.int32)
    lengths[0] = steps
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"X": x, "S": lengths})[0][:, 0]
    actual = layer(x.swapaxes(0, 1), lengths=lengths)[0].swapaxes(0, 1)
    assert np.all(np.abs(actual - expected) <= 1e-5 * np.maximum(1, np.abs(expected))), (cell, options)


def test_every_pair_of_options_is_judged_by_the_reference() -> None:
    for coupled, peephole, clip in itertools.product((False, True), (False, True), (None, 0.5)):
        options = {"coupled": coupled, "peephole": peephole, "clip": clip}
        check(make("lstm", options, hidden=4, dtype="float64"), steps=3)
