"""How layers get to cuda and back, and what is said where they meet arrays of another device (on a stand-in)."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import standin
from fusedrnn import models, training
from fusedrnn.arrays import devices
from fusedrnn.layers.base import Layer
from scripts import run_python
from standin import Foreign, assert_alike, to_device, to_numpy


@pytest.fixture
def xp(monkeypatch: pytest.MonkeyPatch) -> standin.Namespace:
    return standin.install(monkeypatch)


def autoencoder() -> Any:
    return models.SequenceAutoencoder(fr.LSTM(3, 5, seed=1), fr.GRU(3, 6, seed=2), code_size=4, seed=3)


LAYERS: dict[str, Callable[[], Any]] = {
    "Linear": lambda: fr.Linear(3, 2, seed=1),
    "Embedding": lambda: fr.Embedding(4, 3, seed=1),
    "LSTM": lambda: fr.LSTM(3, 5, 2, dropout=0.5, seed=1),
    "Bidirectional": lambda: fr.Bidirectional(fr.GRU(3, 5, seed=1), seed=2),
    "Sequential": lambda: fr.Sequential(fr.RNN(3, 5, seed=1), fr.Dropout(0.3), fr.Linear(5, 2, seed=2)),
    "SequenceAutoencoder": autoencoder,
    "StackedAutoencoder": lambda: models.StackedAutoencoder((3, 2), tied=True, noise=0.1, seed=1),
}


@pytest.mark.parametrize("name", LAYERS)
def test_there_and_back(xp: standin.Namespace, name: str) -> None:
    """A move takes parameters and gradients of all layers inside along, and returns the layer."""
    layer = LAYERS[name]()
    for index, grad in enumerate(layer.grads.values()):
        grad[...] = np.random.default_rng(index).standard_normal(grad.shape)
    params, grads = layer.state_dict(), {name: grad.copy() for name, grad in layer.grads.items()}
    assert layer.to("cuda") is layer
    assert {inner.device for inner in layer.layers()} == {"cuda"} and {inner.xp for inner in layer.layers()} == {xp}
    assert_alike(tuple(layer.params.values()), tuple(params.values()), 0.0, "params")
    assert_alike(tuple(layer.grads.values()), tuple(grads.values()), 0.0, "grads")
    layer.zero_grad()
    assert all(not grad.get().any() for grad in layer.grads.values())
    held = layer.params
    assert layer.to("cuda").params.keys() == held.keys() and all(held[key] is layer.params[key] for key in held)
    layer.to("cpu")
    assert {inner.device for inner in layer.layers()} == {"cpu"} and {inner.xp for inner in layer.layers()} == {np}
    assert all(np.array_equal(layer.params[key], params[key]) for key in params)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_stay_on_the_device(xp: standin.Namespace, name: str) -> None:
    layer = LAYERS[name]().to("cuda")
    other = copy.deepcopy(layer)
    assert {inner.device for inner in other.layers()} == {"cuda"} and {inner.xp for inner in other.layers()} == {xp}
    assert_alike(tuple(other.params.values()), tuple(value.get() for value in layer.params.values()), 0.0)
    for mine, theirs in zip(layer.params.values(), other.params.values(), strict=True):
        theirs += 1
        assert mine is not theirs and not np.any(mine.get() == theirs.get())
    other.to("cpu")
    assert {inner.device for inner in layer.layers()} == {"cuda"}


@pytest.mark.parametrize("name", ["Linear", "Embedding", "LSTM", "GRU", "RNN"])
def test_layers_are_made_on_a_device_with_the_weights_of_the_cpu(xp: standin.Namespace, name: str) -> None:
    make = getattr(fr, name)
    cpu, gpu = make(4, 3, seed=1), make(4, 3, seed=1, device="cuda")
    assert gpu.device == "cuda"
    assert_alike(tuple(gpu.params.values()), tuple(cpu.params.values()), 0.0)
    assert_alike(tuple(gpu.grads.values()), tuple(cpu.grads.values()), 0.0)
    assert "device" not in gpu.config()


def test_a_move_that_fails_changes_nothing(xp: standin.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = autoencoder(), np.ones((2, 4, 3), np.float32)
    before, y = {**model.params, **{f"d{key}": grad for key, grad in model.grads.items()}}, model(x)
    copies = 0
    asarray = xp.asarray

    def full(values: Any, dtype: Any = None) -> Any:
        nonlocal copies
        copies += 1
        if copies > len(before) - 3:
            raise MemoryError("the GPU is full")
        return asarray(values, dtype)

    monkeypatch.setattr(xp, "asarray", full, raising=False)
    with pytest.raises(MemoryError, match="full"):
        model.to("cuda")
    after = {**model.params, **{f"d{key}": grad for key, grad in model.grads.items()}}
    assert all(after[key] is before[key] for key in before) and {layer.device for layer in model.layers()} == {"cpu"}
    assert np.array_equal(model(x), y)


def test_a_layer_without_parameters_comes_along_and_others_must_be_there(xp: standin.Namespace) -> None:
    dropout = fr.Dropout(0.5)
    fr.Sequential(fr.Linear(3, 2, device="cuda"), dropout)
    assert dropout.device == "cuda"
    with pytest.raises(RuntimeError, match="Sequential: 1 is on cpu; expected cuda, as its siblings"):
        fr.Sequential(fr.Linear(3, 2, device="cuda"), fr.Linear(2, 2))
    with pytest.raises(RuntimeError, match="SequenceToVector: head is on cuda; expected cpu, as its siblings"):
        models.SequenceToVector(fr.GRU(3, 4), fr.Linear(4, 2, device="cuda"))
    on_device = fr.GRU(3, 4, device="cuda")
    assert models.SequenceToVector(on_device, 2).head.device == "cuda"
    assert models.EncoderDecoder(on_device, fr.LSTM(3, 4, device="cuda"), 3, attention="general").device == "cuda"


@pytest.mark.parametrize("name", LAYERS)
def test_state_dicts_and_files_know_no_device(xp: standin.Namespace, name: str, tmp_path: Path) -> None:
    cpu, gpu, path = LAYERS[name](), LAYERS[name]().to("cuda"), tmp_path / "layer.safetensors"
    state = cpu.state_dict()
    for param in cpu.params.values():
        param[...] += 1
    changed = cpu.state_dict()
    gpu.load_state_dict(changed)
    assert all(type(value) is np.ndarray for value in gpu.state_dict().values())
    assert all(np.array_equal(value, changed[key]) for key, value in gpu.state_dict().items())
    cpu.load_state_dict(to_device(tuple(state.values())) and {key: to_device(value) for key, value in state.items()})
    assert all(np.array_equal(value, state[key]) for key, value in cpu.state_dict().items())
    gpu.save(path)
    for device in ("cpu", "cuda"):
        loaded = fr.load(path, device=device)
        assert loaded.device == device and type(loaded) is type(gpu)
        assert all(np.array_equal(to_numpy(value), changed[key]) for key, value in loaded.params.items())
    cpu.load_state_dict(changed)
    cpu.save(tmp_path / "cpu.safetensors")
    assert path.read_bytes() == (tmp_path / "cpu.safetensors").read_bytes()


def test_a_state_that_does_not_fit_changes_nothing(xp: standin.Namespace) -> None:
    layer = fr.Linear(3, 2, seed=1, device="cuda")
    state = layer.state_dict()
    with pytest.raises(ValueError, match="bias has shape"):
        layer.load_state_dict({"weight": state["weight"] + 1, "bias": np.zeros(5)})
    assert all(np.array_equal(value, state[key]) for key, value in layer.state_dict().items())


# ------------------------------------------------------------------------------------------- arrays that are elsewhere


@pytest.mark.parametrize("name", [*LAYERS, "Activation", "Dropout", "GaussianNoise"])
def test_a_numpy_array_is_an_error_on_cuda(xp: standin.Namespace, name: str) -> None:
    others = {"Activation": fr.Activation("tanh"), "Dropout": fr.Dropout(), "GaussianNoise": models.GaussianNoise(1)}
    layer = others[name] if name in others else LAYERS[name]()
    x = np.zeros((2, 4), np.int64) if name == "Embedding" else np.zeros((2, 4, 3), np.float32)
    layer.to("cuda")
    for call in (layer, layer.forward):
        with pytest.raises(RuntimeError, match=r"(x|ids) is a NumPy array; the layer is on cuda: pass a CuPy or torch"):
            call(x)
    with pytest.raises(RuntimeError, match=r"(x|ids) is a list on the cpu; the layer is on cuda"):
        layer(x.tolist())


def test_the_message_says_what_to_do(xp: standin.Namespace) -> None:
    expected = "LSTM: x is a NumPy array; the layer is on cuda: pass a CuPy or torch CUDA array, or layer.to('cpu')"
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        fr.LSTM(3, 4, device="cuda")(np.zeros((1, 2, 3)))
    expected = "LSTM: x is a standin_arrays.Array on cuda; the layer is on cpu: pass a NumPy array, or layer.to('cuda')"
    with pytest.raises(RuntimeError, match=re.escape(expected)):
        fr.LSTM(3, 4)(to_device(np.zeros((1, 2, 3))))


def test_gradients_and_states_must_be_there_too(xp: standin.Namespace) -> None:
    layer, x = fr.GRU(3, 4, device="cuda"), to_device(np.zeros((2, 5, 3), np.float32))
    _, tape = layer.forward(x)
    with pytest.raises(RuntimeError, match="GRU: dy is a NumPy array"):
        layer.backward(tape, np.zeros((2, 5, 4)))
    with pytest.raises(RuntimeError, match="GRU: h0 is a NumPy array"):
        layer(x, np.zeros((1, 2, 4)))
    with pytest.raises(ValueError, match="LSTM: state is an array of shape"):
        fr.LSTM(3, 4, device="cuda")(x, to_device(np.zeros((1, 2, 4))))


def test_arrays_of_other_libraries_are_taken_without_a_copy(xp: standin.Namespace) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    layer = fr.Linear(3, 2, seed=1)
    y = layer(x)
    assert_alike(layer.to("cuda")(Foreign(x)), y, 1e-6)
    identity: Any = fr.Activation("identity", device="cuda")
    foreign = Foreign(x)
    assert np.shares_memory(identity(foreign)._strict._array, foreign.shared()._strict._array)


def test_other_dtypes_are_converted_on_the_device(xp: standin.Namespace) -> None:
    layer = fr.Linear(3, 2, seed=1)
    x = np.arange(6).reshape(2, 3)
    y = layer(x)
    assert_alike(layer.to("cuda")(to_device(x)), y, 1e-6)
    with pytest.raises(TypeError, match="Linear: x has dtype bool"):
        layer(to_device(x > 2))
    with pytest.raises(ValueError, match="Linear: x has shape"):
        layer(to_device(np.zeros((2, 4))))


def test_wrong_tokens_are_found_on_the_device(xp: standin.Namespace) -> None:
    with pytest.raises(ValueError, match=re.escape("Embedding: ids has 9 at (1, 0); expected 0 <= id < 4")):
        fr.Embedding(4, 3, device="cuda")(to_device(np.array([[1, 2], [9, 0]])))


def test_what_is_on_the_cpu_only_says_so(xp: standin.Namespace) -> None:
    layer = fr.LSTM(3, 4, device="cuda")
    for call in (layer.stream, models.Residual(layer).stream):
        with pytest.raises(
            RuntimeError, match=r"LSTM: \w+ is on the cpu only; the layer is on cuda: layer.to\('cpu'\)"
        ):
            call()
    assert layer.to("cpu").stream().step(np.zeros((1, 3))).shape == (1, 4)


ON_THE_CPU_ONLY: dict[str, Callable[..., Any]] = {
    "recurrent_dropout": lambda **more: fr.LSTM(3, 4, recurrent_dropout=0.5, **more),
    "recurrent_dropout and recurrent_dropout_on": lambda **more: fr.GRU(
        3, 4, recurrent_dropout=0.5, recurrent_dropout_on="candidate", **more
    ),
    "zoneout": lambda **more: fr.LSTM(3, 4, zoneout=(0.1, 0.2), **more),
    "proj_size=2": lambda **more: fr.LSTM(3, 4, proj_size=2, **more),
    "reset_after=False": lambda **more: fr.GRU(3, 4, reset_after=False, **more),
    "peephole": lambda **more: fr.LSTM(3, 4, peephole=True, **more),
    "coupled": lambda **more: fr.LSTM(3, 4, coupled=True, **more),
    "clip": lambda **more: fr.RNN(3, 4, clip=2.0, **more),
    "activations": lambda **more: fr.RNN(3, 4, activations=["affine"], **more),
}


@pytest.mark.parametrize("what", ON_THE_CPU_ONLY)
def test_cells_that_the_device_lacks_are_named(xp: standin.Namespace, what: str) -> None:
    """When a layer is made and when it is moved, which leaves it where it was, also inside of others."""
    make = ON_THE_CPU_ONLY[what]
    message = rf"^(RNN|LSTM|GRU): {what} is on the cpu only; expected device 'cpu'$"
    with pytest.raises(RuntimeError, match=message):
        make(device="cuda")
    layer = make(seed=1)
    before = layer(np.ones((1, 2, 3)))[0]
    composite = fr.Sequential(fr.RNN(3, 3, seed=2), layer)
    for moved in (layer, composite):
        with pytest.raises(RuntimeError, match=message):
            moved.to("cuda")
        assert all(inner.device == "cpu" for inner in moved.layers())
    assert np.array_equal(layer(np.ones((1, 2, 3)))[0], before)


def test_weights_in_8_bits_stay_on_the_cpu(xp: standin.Namespace) -> None:
    model = fr.quantize(fr.Sequential(fr.LSTM(3, 4, seed=1), fr.Linear(4, 2, seed=2)))
    with pytest.raises(RuntimeError, match=r"LSTM: int8 weights are on the cpu only; expected device 'cpu'"):
        model.to("cuda")
    with pytest.raises(RuntimeError, match=r"quantize: model is on cuda; expected cpu: model\.to\('cpu'\)"):
        fr.quantize(fr.LSTM(3, 4, device="cuda"))


def test_restarts_are_refused_on_the_device(xp: standin.Namespace) -> None:
    """By layers in inference and training, before anything has run."""
    x, resets = to_device(np.zeros((2, 3, 3))), np.zeros((2, 3), bool)
    for layer in (fr.GRU(3, 4, device="cuda", seed=1), fr.Bidirectional(fr.LSTM(3, 4, device="cuda", seed=1))):
        for call in (layer, layer.forward):
            with pytest.raises(RuntimeError, match=r"(GRU|LSTM): resets is on the cpu only; .* layer.to\('cpu'\)"):
                call(x, resets=resets)


def test_losses_name_the_two_devices(xp: standin.Namespace) -> None:
    values = np.zeros((2, 3))
    with pytest.raises(RuntimeError, match="mse: target is on cpu; expected cuda, where pred is"):
        training.mse(to_device(values), values)
    with pytest.raises(RuntimeError, match="cross_entropy: target is on cuda; expected cpu, where pred is"):
        training.cross_entropy(values, to_device(np.zeros(2, np.int64)))


# ------------------------------------------------------------------------------------------------- without any CUDA


def test_without_a_gpu_the_error_says_why_and_nothing_moves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_device() -> None:
        raise RuntimeError("device='cuda' cannot be used: there is no driver; or use device='cpu'")

    monkeypatch.setattr(devices, "require_device", no_device)
    layer: Layer = fr.Linear(3, 2)
    layer.save(tmp_path / "linear.safetensors")
    calls: list[Callable[[], Layer]] = [lambda: layer.to("cuda"), lambda: fr.Linear(3, 2, device="cuda")]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"Linear: device='cuda' cannot be used: .* use device='cpu'"):
            call()
    with pytest.raises(RuntimeError, match="load: device='cuda' cannot be used"):
        fr.load(tmp_path / "linear.safetensors", device="cuda")
    with pytest.raises(RuntimeError, match="Linear: device is 'tpu', which is not known; use device='cpu'"):
        layer.to("tpu")
    assert layer.device == "cpu" and type(layer.params["weight"]) is np.ndarray


def test_layers_on_the_cpu_import_nothing_for_the_gpu() -> None:
    run_python("""
        import sys
        import numpy as np
        import fusedrnn as fr
        x = np.zeros((4, 3, 2), np.float32)
        model = fr.Sequential(fr.LSTM(2, 3), fr.Linear(3, 2))
        fr.fit(model, x, x, epochs=1, batch_size=2, clip_norm=1.0, progress=False)
        assert not {"cupy", "array_api_strict", "fusedrnn._cuda"} & sys.modules.keys()
    """)
