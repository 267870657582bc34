"""Layers on cuda compute what they compute on the cpu, without touching NumPy (on a stand-in for a GPU's arrays)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import standin
from fusedrnn import models
from fusedrnn.layers.calling import call_inputs, forward_inputs
from model_cases import CASES, ModelCase, arguments, encoder_decoder, keywords
from standin import assert_alike, to_device, to_numpy

B, T, I, H = 3, 5, 4, 6  # noqa: E741
LENGTHS = np.array([5, 0, 3])


@pytest.fixture(autouse=True)
def xp(monkeypatch: pytest.MonkeyPatch) -> standin.Namespace:
    return standin.install(monkeypatch)


def normal(*shape: int, dtype: str = "float64") -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def compare(make: Callable[[], Any], inputs: tuple[Any, ...], tolerance: float = 1e-12, **keywords: Any) -> None:
    """Compare outputs, gradients and inference of a layer on both devices."""
    cpu, gpu = make(), make().to("cuda")
    outputs, tape = cpu.forward(*inputs, **keywords)
    device_keywords = {name: to_device(value) if name == "state" else value for name, value in keywords.items()}
    device_outputs, device_tape = gpu.forward(*to_device(inputs), **device_keywords)
    assert_alike(device_outputs, outputs, tolerance, "outputs")
    y = outputs[0] if isinstance(outputs, tuple) else outputs
    dy = tuple(normal(*part.shape) for part in y) if isinstance(y, tuple) else normal(*y.shape)
    for _ in range(2):  # gradients add up
        dx, device_dx = cpu.backward(tape, dy), gpu.backward(device_tape, to_device(dy))
        assert_alike(device_dx, dx, tolerance, "gradients of the inputs")
    for name, grad in cpu.grads.items():
        assert_alike(gpu.grads[name], grad, 2 * tolerance, name)
    assert_alike(gpu(*to_device(inputs), **device_keywords), cpu(*inputs, **keywords), tolerance, "inference")


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    compare(lambda: fr.Linear(I, H, bias, dtype="float64", seed=1), (normal(B, T, I),))


@pytest.mark.parametrize("function", ["identity", "tanh", "sigmoid", "relu", "softmax"])
def test_activations(function: str) -> None:
    compare(lambda: fr.Activation(function), (normal(B, T, I),))
    compare(lambda: fr.Activation(function, dtype="float32"), (normal(B, T, I),), 1e-6)
    compare(lambda: fr.Activation(function), (normal(0, I),))


@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("ids", [np.array([[1, 1, 2], [0, 1, 4]]), np.array([3], np.int32), np.zeros((2, 0), np.int64)])
def test_embedding(ids: Any, padding_idx: int | None) -> None:
    compare(lambda: fr.Embedding(5, 3, padding_idx, dtype="float64", seed=1), (ids,))


def test_gradients_of_repeated_tokens_are_sums_over_all_of_them() -> None:
    ids = np.random.default_rng(0).integers(0, 7, (20, 30)) % 5  # 0 and 1 more often than the others
    compare(lambda: fr.Embedding(6, 3, dtype="float64", seed=1), (ids,), 1e-11)


@pytest.mark.parametrize("seed", [None, 3])
def test_dropout_draws_the_same_masks_on_both_devices(seed: int | None) -> None:
    x = np.ones((40, 11))
    layers = fr.Dropout(0.3, seed=1), fr.Dropout(0.3, seed=1, device="cuda")
    for layer in layers:
        layer.forward(to_device(x) if layer.device == "cuda" else x)
        if seed is not None:
            layer.reseed(seed)
    y, device_y = layers[0].forward(x)[0], layers[1].forward(to_device(x))[0]
    assert_alike(device_y, y, 0.0)
    assert 0.2 <= np.mean(y == 0) <= 0.4
    compare(lambda: fr.Dropout(1.0, seed=1), (x,))


def test_recurrent_dropout_draws_the_same_masks() -> None:
    def make() -> Any:
        return fr.LSTM(I, H, 3, dropout=0.4, dtype="float64", seed=1)

    compare(make, (normal(B, T, I),), lengths=LENGTHS)


@pytest.mark.parametrize("cell", [fr.RNN, fr.LSTM, fr.GRU])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True}, {"batch_first": False}, {"bias": False}]
)
def test_recurrent(cell: Any, options: dict[str, Any]) -> None:
    def make() -> Any:
        return cell(I, H, **options, dtype="float64", seed=1)

    x = normal(B, T, I) if options.get("batch_first", True) else normal(T, B, I)
    compare(make, (x,))
    compare(make, (x,), lengths=LENGTHS)
    layer = make()
    h = normal(layer.num_layers * layer.num_directions, B, H)
    compare(make, (x,), state=(h, 2 * h) if cell is fr.LSTM else h)


def test_a_sequence_without_a_batch() -> None:
    compare(lambda: fr.GRU(I, H, dtype="float64", seed=1), (normal(T, I),), state=normal(1, H))


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", None])
def test_bidirectional(merge: str | None) -> None:
    def make() -> Any:
        return fr.Bidirectional(fr.GRU(I, H, dtype="float64", seed=1), merge, seed=2)

    compare(make, (normal(B, T, I),), lengths=LENGTHS)
    on_device = fr.Bidirectional(fr.GRU(I, H, device="cuda", dtype="float64", seed=1), merge, seed=2)
    assert all(layer.device == "cuda" for layer in on_device.layers())


def test_sequential() -> None:
    def make() -> Any:
        lstm = fr.LSTM(I, H, dtype="float64", seed=1)
        return fr.Sequential(lstm, fr.Dropout(0.3, seed=2), fr.Activation("relu"), fr.Linear(H, 2, dtype="float64"))

    cpu, gpu = make(), make().to("cuda")
    gpu.load_state_dict(cpu.state_dict())
    x = normal(B, T, I)
    assert_alike(gpu(to_device(x), LENGTHS), cpu(x, LENGTHS))


ON_CPU_ALONE = {"masked", "masked tokens"}
ON_BOTH = {name: case for name, case in CASES.items() if name not in ON_CPU_ALONE}


@pytest.mark.parametrize("name", sorted(ON_CPU_ALONE))
def test_what_is_on_the_cpu_alone_says_so(name: str) -> None:
    model, inputs = arguments(CASES[name], "float64")
    with pytest.raises(RuntimeError, match=r"Masked: .* on the cpu only; the layer is on cuda: layer.to\('cpu'\)"):
        forward_inputs(model.to("cuda"), to_device(inputs), None)


@pytest.mark.parametrize("with_lengths", [True, False])
@pytest.mark.parametrize("case", ON_BOTH.values(), ids=ON_BOTH)
def test_models(case: ModelCase, with_lengths: bool) -> None:
    """Outputs, gradients and inference of every model agree."""
    lengths = keywords(case).get("lengths") if with_lengths else None
    cpu, inputs = arguments(case, "float64")
    gpu = case.make("float64").to("cuda")
    y, tape = forward_inputs(cpu, inputs, lengths)
    device_y, device_tape = forward_inputs(gpu, to_device(inputs), lengths)
    assert_alike(device_y, y, what="y")
    dy = normal(*y.shape)
    assert_alike(gpu.backward(device_tape, to_device(dy)), cpu.backward(tape, dy), what="gradients of the inputs")
    for name, grad in cpu.grads.items():
        assert_alike(gpu.grads[name], grad, what=name)
    assert_alike(call_inputs(gpu, to_device(inputs), lengths), call_inputs(cpu, inputs, lengths), what="inference")


@pytest.mark.parametrize("case", ON_BOTH.values(), ids=ON_BOTH)
def test_models_of_no_samples(case: ModelCase) -> None:
    cpu, inputs = arguments(case, "float64")
    gpu, nothing = case.make("float64").to("cuda"), tuple(x[:0] for x in inputs)
    y, tape = forward_inputs(cpu, nothing, None)
    device_y, device_tape = forward_inputs(gpu, to_device(nothing), None)
    assert_alike(device_y, y)
    assert_alike(gpu.backward(device_tape, device_y), cpu.backward(tape, y))
    assert_alike(call_inputs(gpu, to_device(nothing), None), call_inputs(cpu, nothing, None))


def test_lengths_may_be_on_the_device_for_what_is_not_a_kernel() -> None:
    y, lengths = normal(B, T, I), to_device(LENGTHS)
    cpu, gpu = models.pooling.mean_steps("op", y, LENGTHS), models.pooling.mean_steps("op", to_device(y), lengths)
    assert_alike(gpu, cpu)


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_generation(method: str) -> None:
    source = np.array([[1, 2, 3, 0], [4, 4, 2, 5]])
    cpu, gpu = (encoder_decoder("float64").to(device) for device in ("cpu", "cuda"))
    expected = cpu.generate(source, 6, method=method, seed=1, lengths=np.array([2, 4]))
    got = gpu.generate(to_device(source), 6, method=method, seed=1, lengths=np.array([2, 4]))
    assert np.array_equal(got.tokens, expected.tokens) and np.array_equal(got.lengths, expected.lengths)
    assert np.max(np.abs(got.log_probs - expected.log_probs)) <= 1e-12
    table, layer = fr.Embedding(6, 4, dtype="float64", seed=1), fr.GRU(4, 5, dtype="float64", seed=2)
    language = models.SequenceToSequence(layer, 6, embedding=table, seed=3)
    expected = language.generate(source, 5, method=method, seed=2)
    assert np.array_equal(
        language.to("cuda").generate(to_device(source), 5, method=method, seed=2).tokens, expected.tokens
    )


def test_values_written_step_by_step_and_what_is_computed_from_them() -> None:
    vector = normal(2, 3)
    model = models.VectorToSequence(fr.LSTM(2, 5, dtype="float64", seed=1), 2, vector_size=3, seed=2)
    values = model.unroll(vector, 4)
    assert_alike(model.to("cuda").unroll(to_device(vector), 4), values)
    x = normal(4, 6)
    stacked = models.StackedAutoencoder((6, 3), dtype="float64", noise=0.1, dropout=0.2, seed=1)
    error, outputs = stacked.reconstruction_error(x), stacked.forward(x)[0]
    stacked.to("cuda").reseed(5)
    assert_alike(stacked.reconstruction_error(to_device(x)), error)
    noisy = to_numpy(stacked.forward(to_device(x))[0])
    stacked.to("cpu").reseed(5)
    assert np.max(np.abs(stacked.forward(x)[0] - noisy)) <= 1e-12 <= np.max(np.abs(outputs - noisy))


def test_scheduled_sampling_replaces_the_same_inputs() -> None:
    source, inputs = np.array([[1, 2, 3], [4, 4, 2]]), np.array([[0, 2, 3, 1], [0, 5, 2, 2]])
    cpu, gpu = (encoder_decoder("float64", scheduled_sampling=0.6).to(device) for device in ("cpu", "cuda"))
    assert_alike(gpu.forward(to_device(source), to_device(inputs))[0], cpu.forward(source, inputs)[0])
