"""fusedrnn, through the public layers."""

from __future__ import annotations

from typing import Any

import numpy as np

import fusedrnn as fr
from cases import Array, Case, Problem
from peers import Runner

_LAYERS: dict[str, Any] = {"lstm": fr.LSTM, "gru": fr.GRU, "rnn": fr.RNN}


def configure(threads: int) -> None:
    fr.set_num_threads(threads)


def refuses(case: Case) -> str | None:
    if case.dtype == "float32":
        return None
    if case.dtype == "int8":
        return "int8 is for inference" if case.kind == "training" else None
    try:
        _make(case)
    except (RuntimeError, ValueError, TypeError) as error:
        return str(error)
    return None


def _make(case: Case) -> Any:
    options = {} if case.dtype in ("float32", "int8") else {"compute_dtype": case.dtype}
    return _LAYERS[case.cell](
        case.I, case.H, case.layers, batch_first=False, bidirectional=case.bidirectional, **options
    )


def build(case: Case, problem: Problem) -> Runner:
    layer = _make(case)
    layer.load_state_dict(problem.weights)
    if case.dtype == "int8":
        layer = fr.quantize(layer)
    x, dy, lengths = problem.x, problem.dy, problem.lengths

    if case.kind == "inference":

        def infer() -> Any:
            return layer(x, lengths=lengths)

        return Runner(infer, lambda: {"y": infer()[0]})

    if case.kind == "training":

        def train() -> Any:
            layer.zero_grad()
            (y, _), tape = layer.forward(x, lengths=lengths)
            dx, _ = layer.backward(tape, dy)
            return y, dx

        def gradients() -> dict[str, Array]:
            y, dx = train()
            return {"y": y, "dx": dx, **{name: grad.copy() for name, grad in layer.grads.items()}}

        return Runner(train, gradients)

    stream = layer.stream(batch_size=case.B)
    x_t, out = problem.x[0], np.empty((case.B, case.H), np.float32)
    advance = stream.step

    def step() -> Any:
        return advance(x_t, out=out)

    def steps() -> dict[str, Array]:
        stream.reset()
        return {"h": np.stack([np.array(stream.step(x_i)) for x_i in problem.x])}

    return Runner(step, steps)
