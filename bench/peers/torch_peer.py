"""PyTorch: nn.LSTM, nn.GRU, nn.RNN; packed sequences for ragged batches; the cell classes for streaming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from cases import Array, Case, Problem
from peers import Runner

_LAYERS: dict[str, Any] = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
_CELLS: dict[str, Any] = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}


def configure(threads: int) -> None:
    torch.set_num_threads(threads)


def refuses(case: Case) -> str | None:
    return "see torch-int8" if case.dtype == "int8" else None


def build(case: Case, problem: Problem, changed: Callable[[Any], Any] = lambda layer: layer) -> Runner:
    dtype = getattr(torch, case.dtype)
    weights = {name: torch.from_numpy(array) for name, array in problem.weights.items()}
    x = torch.from_numpy(problem.x).to(dtype)
    if case.kind == "streaming":
        return _streaming(case, x, weights, changed)

    layer = _LAYERS[case.cell](case.I, case.H, case.layers, bidirectional=case.bidirectional)
    layer.load_state_dict(weights)
    layer.to(dtype)
    dy = torch.from_numpy(problem.dy).to(dtype)
    lengths = None if problem.lengths is None else torch.from_numpy(problem.lengths)

    def forward() -> Any:
        if lengths is None:
            return layer(x)[0]
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return pad_packed_sequence(layer(packed)[0], total_length=case.T)[0]

    if case.kind == "inference":
        layer = changed(layer.eval())

        def infer() -> Any:
            with torch.inference_mode():
                return forward()

        return Runner(infer, lambda: {"y": _numpy(infer())})

    x.requires_grad_()
    wanted = [x, *layer.parameters()]

    def train() -> Any:
        y = forward()
        # Fresh gradients: saves torch the zeroing and the accumulation of .backward().
        return y, torch.autograd.grad(y, wanted, dy)

    def gradients() -> dict[str, Array]:
        y, grads = train()
        names = ["dx", *(name for name, _ in layer.named_parameters())]
        return {"y": _numpy(y), **{name: _numpy(grad) for name, grad in zip(names, grads, strict=True)}}

    return Runner(train, gradients)


def _numpy(tensor: Any) -> Array:
    return tensor.detach().float().numpy()


def _streaming(case: Case, x: Any, weights: dict[str, Any], changed: Callable[[Any], Any]) -> Runner:
    cell = _CELLS[case.cell](case.I, case.H)
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in weights.items()})
    cell = changed(cell.eval())
    x_0 = x[0]
    is_lstm = case.cell == "lstm"
    state: Any = None

    def step(x_t: Any = x_0) -> Any:
        nonlocal state
        with torch.inference_mode():
            state = cell(x_t, state)
        return state

    def steps() -> dict[str, Array]:
        nonlocal state
        state = None
        hidden = [step(x_t)[0] if is_lstm else step(x_t) for x_t in x]
        return {"h": torch.stack(hidden).numpy()}

    return Runner(step, steps)
