"""The same weights in torch and here give the same outputs and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import reference
from problems import LAYERS, Array, as_state, flat
from tolerance import TOLERANCE

torch = pytest.importorskip("torch")
THEIRS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn_tanh": torch.nn.RNN, "rnn_relu": torch.nn.RNN}

B, T, INPUTS, H = 5, 6, 7, 9


def make_torch(cell: str, num_layers: int, dtype: str, **options: Any) -> Any:
    """Return torch's module for ``cell``."""
    if cell not in THEIRS:
        pytest.skip(f"torch has no {cell}")
    if cell.startswith("rnn"):
        options["nonlinearity"] = cell.removeprefix("rnn_")
    torch.manual_seed(0)
    return THEIRS[cell](INPUTS, H, num_layers, dtype=getattr(torch, dtype), **options)


def assert_close(actual: Array, expected: Any, what: str, multiple: float = 1) -> None:
    """Hold to twice the forward tolerance, times ``multiple``: torch has the same dtype and errors of its own."""
    expected = expected.detach().numpy()
    assert actual.shape == expected.shape, what
    error = np.max(np.abs(actual - expected), initial=0)
    size = max(1, np.max(np.abs(expected), initial=0))
    assert error <= 2 * multiple * TOLERANCE[actual.dtype.name].forward * size, f"{what}: {error:.2e}"


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one_way", "two_way"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("packed", [False, True], ids=["full", "packed"])
def test_parity(
    cell: str, dtype: str, num_layers: int, bidirectional: bool, bias: bool, batch_first: bool, packed: bool
) -> None:
    """Outputs, states and all gradients, with padded sequences packed for torch."""
    options = {"bidirectional": bidirectional, "bias": bias, "batch_first": batch_first}
    module = make_torch(cell, num_layers, dtype, **options)
    layer = LAYERS[cell](INPUTS, H, num_layers, dtype=dtype, **options)
    layer.load_state_dict({name: value.detach().numpy() for name, value in module.named_parameters()})

    rng = np.random.default_rng(1)
    directions = num_layers * (1 + bidirectional)
    axes = (B, T) if batch_first else (T, B)
    x = rng.normal(size=(*axes, INPUTS)).astype(dtype)
    start = [rng.normal(size=(directions, B, H)).astype(dtype) for _ in reference.CELLS[cell].states]
    dy = rng.normal(size=(*axes, (1 + bidirectional) * H)).astype(dtype)
    dfinal = [rng.normal(size=state.shape).astype(dtype) for state in start]
    lengths = np.array([3, 6, 1, 5, 2]) if packed else None

    leaves = [torch.tensor(value, requires_grad=True) for value in (x, *start)]
    x_torch, *start_torch = leaves
    if packed:
        utilities = torch.nn.utils.rnn
        x_torch = utilities.pack_padded_sequence(x_torch, torch.tensor(lengths), batch_first, enforce_sorted=False)
    y_torch, state_torch = module(x_torch, as_state(start_torch))
    if packed:
        y_torch, _ = utilities.pad_packed_sequence(y_torch, batch_first)
    expected = flat(y_torch, state_torch)
    sum((out * torch.tensor(d)).sum() for out, d in zip(expected, (dy, *dfinal), strict=True)).backward()

    outputs, tape = layer.forward(x, as_state(start), lengths)
    for name, out, other in zip(("y", "h", "c"), flat(*outputs), expected, strict=False):
        assert_close(out, other, name)
    inputs = flat(*layer.backward(tape, dy, as_state(dfinal)))
    for name, gradient, leaf in zip(("dx", "dh0", "dc0"), inputs, leaves, strict=False):
        assert_close(gradient, leaf.grad, name, multiple=10)
    for name, parameter in module.named_parameters():
        assert_close(layer.grads[name], parameter.grad, name, multiple=10)


def test_names_are_torch_names() -> None:
    """Loading works the other way too: torch takes our state dict as it is and gives our outputs."""
    layer = fr.LSTM(INPUTS, H, 2, bidirectional=True, seed=0)
    module = torch.nn.LSTM(INPUTS, H, 2, bidirectional=True, batch_first=True)
    module.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    x = np.random.default_rng(2).normal(size=(B, T, INPUTS)).astype(np.float32)
    assert_close(layer(x)[0], module(torch.tensor(x))[0], "y")


def test_unbatched() -> None:
    """A single sequence has the shapes it has in torch."""
    layer, module = fr.GRU(INPUTS, H, 2, seed=0), torch.nn.GRU(INPUTS, H, 2, batch_first=True)
    module.load_state_dict({name: torch.tensor(value) for name, value in layer.state_dict().items()})
    x = np.random.default_rng(3).normal(size=(T, INPUTS)).astype(np.float32)
    for actual, expected in zip(layer(x), module(torch.tensor(x)), strict=True):
        assert_close(actual, expected, "unbatched")
