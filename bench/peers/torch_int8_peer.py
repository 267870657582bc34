"""PyTorch with weights in 8 bits: ``quantize_dynamic`` of nn.LSTM and nn.GRU, of their cells for streaming."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from cases import Case, Problem
from peers import Runner, torch_peer

configure = torch_peer.configure


def refuses(case: Case) -> str | None:
    if case.dtype != "int8" or case.kind == "training":
        return "quantized inference only"
    if case.valid < 1:
        return "no packed sequences"
    return None if case.cell != "rnn" or case.kind == "streaming" else "no quantized RNN"


def build(case: Case, problem: Problem) -> Runner:
    return torch_peer.build(case.single_precision(), problem, _quantized)


def _quantized(layer: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants torchao in its place, which has no recurrent layers
        return torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(layer), {type(layer)}, torch.qint8)[0]
