"""compute_dtype on a GPU: layers of float32 over kernels of 16 bits, with the twin of the kernels and a stand-in."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import standin
from standin import to_device, to_numpy
from tolerance import assert_same_bits
from twin import BusyDevice, Operands, needs_cuda_module, twin_stack

SHAPES: list[dict[str, Any]] = [
    {"layers": 2, "ragged": True},
    {"directions": 2, "batch_first": False},
    {"reverse": True, "batch": 1, "steps": 1, "inputs": 1, "hidden": 1},
]


def mixed_twin(*args: Any, **kwargs: Any) -> Any:
    """Make the stack of a layer with compute_dtype, on the twin."""
    from fusedrnn import _cuda
    from fusedrnn.cuda.mixed import MixedStack

    return MixedStack(*args, **kwargs, make=_cuda.host_stack)


@needs_cuda_module
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rounded_arrays_in_and_out(cell: str, dtype: str, shape: dict[str, Any]) -> None:
    """Outputs and gradients are, to the bit, those of kernels that are given arrays of 16 bits."""
    narrow = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    operands = Operands(cell, "float32", **shape)
    expected = operands.gradients(operands.replaced(dtype=dtype).stack(twin_stack), lambda a: a.astype(narrow))
    stack = operands.stack(mixed_twin, compute_dtype=dtype)
    for _ in range(2):
        for out, truth in zip(operands.gradients(stack), expected, strict=True):
            assert out.dtype == np.float32
            assert_same_bits(out, truth.astype(np.float32))
    for out, truth in zip(operands.outputs(stack), expected, strict=False):
        assert_same_bits(out, truth.astype(np.float32))


@needs_cuda_module
def test_gradients_add_up_in_float32(cell: str) -> None:
    """Into what is there, without rounding that."""
    operands = Operands(cell, "float32")
    _, tape = operands.train(operands.stack(mixed_twin, compute_dtype="bfloat16"))
    once, before = operands.backward(tape), np.float32(1 + 2**-20)
    sums = [np.full(w.shape, before) for w in operands.weights]
    tape.backward(*operands.cotangents, *[None] * (3 - len(operands.cotangents)), sums)
    for total, gradient in zip(sums, once[-len(sums) :], strict=True):
        assert_same_bits(total, before + gradient)


@needs_cuda_module
def test_new_weights_are_seen(cell: str) -> None:
    """A copy of the weights is kept, but never used for others."""
    operands = Operands(cell, "float32")
    stack = operands.stack(mixed_twin, compute_dtype="float16")
    before = operands.outputs(stack)[0]
    for weight in operands.weights:
        weight *= np.float32(1.5)
    after, fresh = operands.outputs(stack)[0], operands.outputs(operands.stack(mixed_twin, compute_dtype="float16"))[0]
    assert not np.array_equal(before, after)
    assert_same_bits(after, fresh)


@needs_cuda_module
def test_foreign_arrays_are_held_until_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not have rounded them yet when the call is over and the caller drops them."""
    from fusedrnn.cuda.array_libraries import _NumPy

    device = BusyDevice(monkeypatch)
    monkeypatch.setattr(_NumPy, "owns", lambda self, array: False)
    operands = Operands("lstm", "float32")
    stack = operands.stack(mixed_twin, compute_dtype="bfloat16")
    x, dy = operands.x.copy(), operands.cotangents[0].copy()
    *_, tape = stack.forward(operands.weights, x, None, None, None, True, True)
    tape.backward(dy, None, None, [np.zeros_like(w) for w in operands.weights])
    held = [weakref.ref(x), weakref.ref(dy)]
    del x, dy, tape
    device.assert_holds(held, lambda: operands.outputs(stack))


@needs_cuda_module
def test_wrong_arrays() -> None:
    """They are named before anything is computed."""
    operands = Operands("lstm", "float32")
    stack = operands.stack(mixed_twin, compute_dtype="bfloat16")
    huge = np.broadcast_to(np.float32(0), (1 << 40, 3, operands.inputs + 1))
    with pytest.raises(ValueError, match="LSTM: x has shape"):
        operands.replaced(x=huge).outputs(stack)
    with pytest.raises(TypeError, match="has dtype float64; expected float32"):
        operands.replaced(x=operands.x.astype(np.float64)).outputs(stack)


def test_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A layer moves to the device and back with its compute_dtype; one of float16 stays there."""
    standin.install(monkeypatch)
    if fr.config()["bfloat16"] != "none":
        layer = fr.LSTM(3, 5, compute_dtype="bfloat16", seed=1)
        x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
        expected = layer(x)[0]
        assert_same_bits(to_numpy(layer.to("cuda")(to_device(x))[0]), expected)
        layer.save(tmp_path / "layer.safetensors")
        assert_same_bits(fr.load(tmp_path / "layer.safetensors")(x)[0], expected)
        assert_same_bits(layer.to("cpu")(x)[0], expected)
    half = fr.LSTM(3, 5, compute_dtype="float16", device="cuda")
    with pytest.raises(RuntimeError, match="LSTM: compute_dtype is 'float16'; expected None or 'bfloat16' on cpu"):
        half.to("cpu")
    assert half.device == "cuda"
