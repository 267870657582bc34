"""Fused recurrent layers (RNN, LSTM, GRU) for NumPy, and what is needed to train them."""

from . import functional, init, layers, models, training
from .configuration import config, get_num_threads, read_environment, set_num_threads, show_config
from .layers import GRU, LSTM, RNN, Activation, Bidirectional, Dropout, Embedding, Layer, Linear, Sequential
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
    clip_grad_norm,
    fit,
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
    "clip_grad_norm",
    "config",
    "fit",
    "functional",
    "get_num_threads",
    "init",
    "layers",
    "load",
    "models",
    "save",
    "set_num_threads",
    "show_config",
    "training",
]

read_environment()
