"""fr.RNN, fr.LSTM and fr.GRU against the reference: stacks, directions, states and tapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import reference
from problems import LAYERS, Array, as_state, flat
from stacks import INPUTS, B, H, Stack, T
from tolerance import assert_forward, assert_gradient, assert_same_bits, assert_slope


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "two_way"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("lengths", [None, np.array([4, 0, 5])], ids=["full", "ragged"])
def test_outputs(
    cell: str, dtype: str, num_layers: int, bidirectional: bool, batch_first: bool, lengths: Array | None
) -> None:
    """Inference and training agree with the reference, and with each other to the bit."""
    problem = Stack(
        cell, num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first, dtype=dtype, lengths=lengths
    )
    outputs = flat(*problem.layer(problem.x, as_state(problem.start), lengths))
    for out, truth in zip(outputs, problem.reference(**problem.arguments()), strict=True):
        assert out.dtype == dtype
        assert_forward(out, truth)
    for out, trained in zip(outputs, problem.train()[0], strict=True):
        assert_same_bits(trained, out)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "two_way"])
@pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])
def test_gradients(cell: str, bidirectional: bool, bias: bool) -> None:
    """The gradients of a ragged stack, in both dtypes, along a random direction of every tensor."""
    options = {"num_layers": 2, "bidirectional": bidirectional, "bias": bias, "batch_first": bias}
    lengths = np.array([4, 0, 5])
    double = Stack(cell, dtype="float64", lengths=lengths, **options)
    single = Stack(cell, dtype="float32", lengths=lengths, **options)
    double.layer.load_state_dict(single.layer.state_dict())
    actual, rough = double.gradients(double.train()[1]), single.gradients(single.train()[1])
    arguments = double.arguments()
    assert set(actual) == set(arguments) == set(rough)
    cotangents = (double.dy, *double.dfinal)
    rng = np.random.default_rng(7)
    for name, value in actual.items():
        along = rng.normal(size=value.shape)
        assert_slope(value, along, reference.slope(double.reference, arguments, cotangents, name, along), name)
        assert_gradient(rough[name], value, f"float32 {name}")


def test_every_element_of_a_gradient() -> None:
    """One two-way stack element by element, so that no direction can hide a swapped pair."""
    problem = Stack("gru", num_layers=2, bidirectional=True, dtype="float64")
    actual, cotangents = problem.gradients(problem.train()[1]), (problem.dy, *problem.dfinal)
    for name in ("x", "h0", "weight_ih_l1_reverse", "weight_hh_l0_reverse", "bias_ih_l1", "bias_hh_l0"):
        truth = reference.gradient(problem.reference, problem.arguments(), cotangents, name)
        assert_gradient(actual[name], truth, name)


def test_default_state_is_zero(cell: str) -> None:
    """No state means zeros, and the gradients of these zeros are returned."""
    problem = Stack(cell, num_layers=2, bidirectional=True)
    zeros = [np.zeros_like(value) for value in problem.start]
    with_zeros, tape_zeros = problem.layer.forward(problem.x, as_state(zeros))
    without, tape = problem.layer.forward(problem.x)
    for one, other in zip(flat(*without), flat(*with_zeros), strict=True):
        assert_same_bits(one, other)
    for one, other in zip(
        flat(*problem.layer.backward(tape, problem.dy)),
        flat(*problem.layer.backward(tape_zeros, problem.dy)),
        strict=True,
    ):
        assert_same_bits(one, other)


def test_cotangent_of_outputs_or_state_alone(cell: str) -> None:
    """Either dy or dstate may be left out, not both."""
    problem = Stack(cell, num_layers=2, dtype="float64")
    _, tape = problem.train()
    zeros = [np.zeros_like(value) for value in problem.dfinal]
    for given, full in (
        ((problem.dy, None), (problem.dy, as_state(zeros))),
        ((None, as_state(problem.dfinal)), (0 * problem.dy, as_state(problem.dfinal))),
    ):
        one, other = flat(*problem.layer.backward(tape, *given)), flat(*problem.layer.backward(tape, *full))
        for value, expected in zip(one, other, strict=True):
            assert_same_bits(value + 0, expected + 0)
    with pytest.raises(ValueError, match="dy"):
        problem.layer.backward(tape, None)


def test_state_continues_a_sequence(cell: str, dtype: str) -> None:
    """Two halves with the state handed on give the bits of the whole."""
    problem = Stack(cell, num_layers=2, dtype=dtype)
    whole = flat(*problem.layer(problem.x, as_state(problem.start)))
    y1, state = problem.layer(problem.x[:, :2], as_state(problem.start))
    y2, state = problem.layer(problem.x[:, 2:], state)
    for actual, expected in zip(flat(np.concatenate([y1, y2], axis=1), state), whole, strict=True):
        assert_same_bits(actual, expected)


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
def test_unbatched(cell: str, batch_first: bool) -> None:
    """(T, I) in gives (T, H) out, states (layers, H), and the bits of a batch of one."""
    problem = Stack(cell, num_layers=2, bidirectional=True, batch_first=batch_first)
    axis = 0 if batch_first else 1
    alone, start_alone = problem.x.take(1, axis), as_state([s[:, 1] for s in problem.start])
    batch, start_batch = problem.x.take([1], axis), as_state([s[:, 1:2] for s in problem.start])
    dy, dfinal = problem.dy, problem.dfinal
    (y, state), tape = problem.layer.forward(alone, start_alone)
    assert y.shape == (T, 2 * H)
    assert all(value.shape == (4, H) for value in flat(y, state)[1:])
    (y_batch, state_batch), tape_batch = problem.layer.forward(batch, start_batch)
    outputs = flat(*problem.layer(alone, start_alone))
    results = flat(*problem.layer.backward(tape, dy.take(1, axis), as_state([d[:, 1] for d in dfinal])))
    expected = flat(*problem.layer.backward(tape_batch, dy.take([1], axis), as_state([d[:, 1:2] for d in dfinal])))
    assert_same_bits(y, y_batch.take(0, axis))
    assert_same_bits(outputs[0], y)
    assert_same_bits(results[0], expected[0].take(0, axis))
    for one, other in zip((*flat(y, state)[1:], *results[1:]), (*flat(y, state_batch)[1:], *expected[1:]), strict=True):
        assert_same_bits(one, other[:, 0])


@pytest.mark.parametrize(("batch", "steps"), [(0, 4), (2, 0), (0, 0)])
def test_empty(cell: str, batch: int, steps: int) -> None:
    """T = 0 leaves the state as it was, B = 0 gives empty results; both have gradients, zero for the weights."""
    layer = LAYERS[cell](INPUTS, H, 2, bidirectional=True)
    start = [np.full((4, batch, H), k + 0.5, np.float32) for k in range(len(reference.CELLS[cell].states))]
    (y, state), tape = layer.forward(np.zeros((batch, steps, INPUTS), np.float32), as_state(start))
    assert y.shape == (batch, steps, 2 * H)
    for final, value in zip(flat(y, state)[1:], start, strict=True):
        assert_same_bits(final, value)
    dx, dstate = layer.backward(tape, np.ones_like(y), as_state(start))
    assert dx.shape == (batch, steps, INPUTS)
    for gradient, value in zip(flat(dx, dstate)[1:], start, strict=True):
        assert_same_bits(gradient, value)
    assert not any(np.any(gradient) for gradient in layer.grads.values())


def test_two_tapes(cell: str) -> None:
    """Tapes are independent: they may be alive together and be used in any order, each as often as wanted."""
    problem = Stack(cell, num_layers=2, bidirectional=True)
    layer, other_x = problem.layer, problem.x[::-1] * 0.5
    _, first = layer.forward(problem.x)
    expected_first = flat(*layer.backward(first, problem.dy))
    grads_first = {name: value.copy() for name, value in layer.grads.items()}
    layer.zero_grad()
    _, second = layer.forward(other_x)
    expected_second = flat(*layer.backward(second, problem.dy))
    layer.zero_grad()
    _, first = layer.forward(problem.x)
    _, second = layer.forward(other_x)
    layer(other_x)
    for value, expected in zip(flat(*layer.backward(first, problem.dy)), expected_first, strict=True):
        assert_same_bits(value, expected)
    for name, value in layer.grads.items():
        assert_same_bits(value, grads_first[name], name)
    for value, expected in zip(flat(*layer.backward(second, problem.dy)), expected_second, strict=True):
        assert_same_bits(value, expected)


def test_a_state_in_one_buffer(cell: str) -> None:
    """A long sequence in parts, whose state is carried on in place before the backward: gradients as if it were not."""
    problem = Stack(cell, num_layers=2)
    layer, start = problem.layer, as_state(problem.start)
    _, tape = layer.forward(problem.x, start)
    expected = {name: value.copy() for name, value in problem.gradients(tape).items()}
    layer.zero_grad()
    (y, final), tape = layer.forward(problem.x, start)
    for buffer, value in zip(flat(y, start)[1:], flat(y, final)[1:], strict=True):
        buffer[...] = value
    for name, value in problem.gradients(tape).items():
        assert_same_bits(value, expected[name], name)


def test_backward_accumulates(cell: str) -> None:
    """A second backward on the same tape adds the same gradient again, into the same arrays; zero_grad clears them."""
    problem = Stack(cell, num_layers=2)
    arrays = dict(problem.layer.grads)
    _, tape = problem.train()
    once = {name: value.copy() for name, value in problem.gradients(tape).items()}
    twice = problem.gradients(tape)
    for name in problem.layer.params:
        assert np.any(once[name])
        assert_same_bits(twice[name], 2 * once[name], name)
        assert problem.layer.grads[name] is arrays[name]
    for name in once.keys() - problem.layer.params.keys():
        assert_same_bits(twice[name], once[name], name)
    problem.layer.zero_grad()
    assert all(not np.any(arrays[name]) for name in problem.layer.params)


@pytest.mark.parametrize("kind", ["int8", "int64", "float16", "float64", ">f4", ">i4"])
def test_real_input_is_converted(cell: str, kind: str) -> None:
    """Any real dtype and byte order is converted to the layer's."""
    layer = LAYERS[cell](INPUTS, H)
    x = np.random.default_rng(3).integers(-3, 4, (B, T, INPUTS)).astype(kind)
    for value, expected in zip(flat(*layer(x)), flat(*layer(x.astype(np.float32))), strict=True):
        assert_same_bits(value, expected)
    assert_same_bits(layer(x.tolist())[0], layer(x.astype(np.float32))[0])


def test_bfloat16_input_is_converted(cell: str) -> None:
    """As JAX and ml_dtypes have it; weights of that kind can be loaded, too."""
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    layer = LAYERS[cell](INPUTS, H, seed=1)
    x = np.random.default_rng(3).normal(size=(B, T, INPUTS)).astype(bfloat16)
    assert_same_bits(layer(x)[0], layer(x.astype(np.float32))[0])
    layer.load_state_dict({name: value.astype(bfloat16) for name, value in layer.params.items()})
    assert_same_bits(layer(x)[0], layer(x.astype(np.float32))[0])


def misaligned(value: Array) -> Array:
    """Start one byte past an allocation."""
    buffer = np.zeros(value.nbytes + 1, np.uint8)
    view = buffer[1:].view(value.dtype).reshape(value.shape)
    view[...] = value
    return view


def packed_field(value: Array) -> Array:
    """Lie in a packed struct beside one byte, so that the stride is no multiple of the item."""
    records = np.zeros(value.shape, np.dtype([("flag", "u1"), ("value", value.dtype)]))
    records["value"] = value
    return records["value"]


@pytest.mark.parametrize("view", [misaligned, packed_field])
def test_unaligned_input(cell: str, dtype: str, view: Any) -> None:
    """Unaligned arrays are as good as aligned ones, in every argument."""
    problem = Stack(cell, num_layers=2, dtype=dtype)
    outputs, tape = problem.train()
    expected = (*outputs, *problem.gradients(tape).values())
    expected = tuple(value.copy() for value in expected)
    problem.layer.zero_grad()
    problem.x, problem.dy = view(problem.x), view(problem.dy)
    problem.start, problem.dfinal = [view(s) for s in problem.start], [view(d) for d in problem.dfinal]
    assert not problem.x.flags.aligned
    outputs, tape = problem.train()
    for value, other in zip((*outputs, *problem.gradients(tape).values()), expected, strict=True):
        assert_same_bits(value, other)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_default_weights_over_a_thousand_steps(cell: str) -> None:
    """The promised accuracy in float32 with the default initialisation, whose recurrence does not damp errors."""
    layer = LAYERS[cell](3, 33, seed=8)
    x = np.random.default_rng(4).normal(size=(1, 1000, 3)).astype(np.float32)
    params = {name: value.astype(np.float64) for name, value in layer.params.items()}
    truth = reference.stack(cell, params, x.astype(np.float64), num_layers=1, bidirectional=False)
    for out, true in zip(flat(*layer(x)), truth, strict=True):
        assert_forward(out, true)


@pytest.mark.parametrize("layer", [fr.RNN, fr.LSTM, fr.GRU])
def test_dropout_between_no_layers_is_told(layer: Any) -> None:
    """As in torch: it would do nothing, silently. The warning points at the line that made the layer."""
    with pytest.warns(
        UserWarning, match=f"{layer.__name__}: dropout is 0.5 with num_layers 1, and does nothing"
    ) as told:
        layer(3, 4, dropout=0.5)
    assert len(told) == 1 and told[0].filename == __file__
    layer(3, 4, 2, dropout=0.5)
    layer(3, 4, dropout=0.0)
