"""ONNX Runtime with weights in 8 bits: DynamicQuantizeLSTM, which its own quantization tool makes. LSTM only."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from cases import Case, Problem
from peers import Runner, onnxruntime_peer

configure = onnxruntime_peer.configure


def refuses(case: Case) -> str | None:
    if case.dtype != "int8" or case.kind == "training":
        return "quantized inference only"
    return None if case.cell == "lstm" else "it quantizes the LSTM only"


def build(case: Case, problem: Problem) -> Runner:
    return onnxruntime_peer.build(case, problem, _quantized)


def _quantized(model: Any, options: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        logging.disable(logging.WARNING)  # it advises a step that changes nothing of one node
        quantize_dynamic(model, path, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8, per_channel=True)
        logging.disable(logging.NOTSET)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
