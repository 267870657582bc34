"""Fused recurrent layers (RNN, LSTM, GRU) for NumPy, and what is needed to train them."""

import sys
from typing import Any

from . import cuda, functional, init, layers, models, training
from .arrays.lengths import pad_sequences
from .configuration import (
    config,
    get_num_threads,
    get_thread_pool,
    read_environment,
    set_num_threads,
    set_thread_pool,
    show_config,
)
from .layers import (
    GRU,
    LSTM,
    RNN,
    Activation,
    Bidirectional,
    Dropout,
    Embedding,
    Layer,
    Linear,
    Sequential,
    quantize,
)
from .serialization import load, save
from .training import (
    SGD,
    Adam,
    AdamW,
    Checkpoint,
    EarlyStopping,
    History,
    LearningRate,
    RMSprop,
    SpectralNormLimit,
    clip_grad_norm,
    clip_grad_value,
    evaluate,
    fit,
    predict,
)

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "Bidirectional",
    "Checkpoint",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "History",
    "Layer",
    "LearningRate",
    "Linear",
    "RMSprop",
    "Sequential",
    "SpectralNormLimit",
    "clip_grad_norm",
    "clip_grad_value",
    "config",
    "cuda",
    "data",
    "diagnostics",
    "evaluate",
    "fit",
    "functional",
    "get_num_threads",
    "get_thread_pool",
    "init",
    "layers",
    "load",
    "models",
    "pad_sequences",
    "predict",
    "quantize",
    "save",
    "set_num_threads",
    "set_thread_pool",
    "show_config",
    "training",
]

_NEEDS = {"keras": "h5py", "onnx": "onnx", "sklearn": "sklearn", "torch": "torch"}  # modules, and what they import


def __getattr__(name: str) -> Any:
    """Import what not every program needs when it is first asked for: data, looking at a model, others' files."""
    if name in ("data", "diagnostics", *_NEEDS):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from importlib.util import find_spec

    return [*__all__, *(name for name, package in _NEEDS.items() if find_spec(package))]


read_environment()
if "threadpoolctl" in sys.modules:
    from . import threadpools as threadpools
