"""The two sides of the comparison, on the same tensors: the kernels of fusedrnn, and torch's layers, which are cuDNN's.

Everything is time-major, as both prefer; weights are in torch's names and gate order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cases import GATES, Case

_CELLS = {"lstm": "lstm", "gru": "gru", "rnn": "rnn_tanh"}
Results = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """The tensors of a case."""

    x: Any  # (T, B, I)
    dy: Any  # (T, B, directions*H); in training the loss is sum(y*dy)
    weights: dict[str, Any]
    lengths: Any  # NumPy int64 (B,), or None


@dataclass(frozen=True)
class Runner:
    """A case, built and ready: ``call`` is timed; ``results`` are y, or y, dx and the gradients by name."""

    call: Callable[[], Any]
    results: Callable[[], Results]
    path: str = ""  # of our kernels, in the words of ``plan``


def make_problem(torch: Any, case: Case, device: str) -> Problem:
    """Draw the tensors of a case on the device; the same case and GPU give the same ones in every run."""
    generator = torch.Generator(device).manual_seed(case.T * 7919 + case.B * 104729 + case.H)
    dtype = torch_dtype(torch, case)

    def uniform(*shape: int) -> Any:
        return ((torch.rand(shape, generator=generator, device=device) * 2 - 1) * case.H**-0.5).to(dtype)

    def normal(*shape: int) -> Any:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    rows = GATES[case.cell] * case.H
    weights: dict[str, Any] = {}
    for layer, suffix in case.parameter_names():
        weights[f"weight_ih_{suffix}"] = uniform(rows, case.input_size(layer))
        weights[f"weight_hh_{suffix}"] = uniform(rows, case.H)
        weights[f"bias_ih_{suffix}"], weights[f"bias_hh_{suffix}"] = uniform(rows), uniform(rows)
    x, dy = normal(case.T, case.B, case.I), normal(case.T, case.B, case.directions * case.H)
    return Problem(x, dy, weights, case.lengths)


def torch_dtype(torch: Any, case: Case) -> Any:
    """Return the dtype of a case's tensors."""
    return torch.float32 if case.dtype == "tf32" else getattr(torch, case.dtype)


def allow_tf32(torch: Any, allowed: bool) -> None:
    """Set the switch of both sides."""
    from fusedrnn.cuda import set_tf32

    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed
    set_tf32(allowed)


def ours(torch: Any, case: Case, problem: Problem, make_stack: Any) -> Runner:
    """Build the case for fusedrnn; gradients are zeroed in every call, because ours add up."""
    stack = make_stack(
        _CELLS[case.cell],
        "float32" if case.dtype == "tf32" else case.dtype,
        input_size=case.I,
        hidden_size=case.H,
        num_layers=case.layers,
        num_directions=case.directions,
        reverse=False,
        bias=True,
    )
    path = stack.plan(case.T, case.B)
    weights = list(problem.weights.values())

    def infer() -> Any:
        return stack.forward(weights, problem.x, None, None, problem.lengths, False, False)[0]

    if case.kind == "inference":
        return Runner(infer, lambda: {"y": infer()}, path)
    gradients = [torch.zeros_like(weight) for weight in weights]

    def train() -> Any:
        torch._foreach_zero_(gradients)
        y, _, _, tape = stack.forward(weights, problem.x, None, None, problem.lengths, False, True)
        return y, tape.backward(problem.dy, None, None, gradients)[0]

    def results() -> Results:
        y, dx = train()
        return {"y": y, "dx": dx, **{n: g.clone() for n, g in zip(problem.weights, gradients, strict=True)}}

    return Runner(train, results, path)


def theirs(torch: Any, case: Case, problem: Problem) -> Runner:
    """Build the case for torch; sequences of unlike length are packed and unpacked, as its users do."""
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    cls = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[case.cell]
    x = problem.x.clone()
    layer = cls(case.I, case.H, case.layers, bidirectional=case.bidirectional, device=x.device, dtype=x.dtype)
    layer.load_state_dict(problem.weights)
    layer.flatten_parameters()
    lengths = None if problem.lengths is None else torch.from_numpy(problem.lengths)

    def forward() -> Any:
        if lengths is None:
            return layer(x)[0]
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return pad_packed_sequence(layer(packed)[0], total_length=case.T)[0]

    def infer() -> Any:
        with torch.inference_mode():
            return forward()

    if case.kind == "inference":
        layer.eval()
        return Runner(infer, lambda: {"y": infer()})
    x.requires_grad_()
    wanted = [x, *layer.parameters()]
    names = ["dx", *(name for name, _ in layer.named_parameters())]

    def train() -> Any:
        y = forward()
        return y, torch.autograd.grad(y, wanted, problem.dy)

    def results() -> Results:
        y, gradients = train()
        return {"y": y.detach(), **dict(zip(names, gradients, strict=True))}

    return Runner(train, results)
