"""Layers: recurrent, dense, embedding, dropout, and the composites of them."""

from .activation import Activation
from .base import Layer, Tape
from .bidirectional import Bidirectional
from .cells import GRU, LSTM, RNN
from .dense import Linear
from .dropout import Dropout
from .embedding import Embedding
from .noise import GaussianNoise
from .recurrent import Recurrent
from .registry import register_layer
from .sequential import Sequential
from .stream import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Bidirectional",
    "Dropout",
    "Embedding",
    "GaussianNoise",
    "Layer",
    "Linear",
    "Recurrent",
    "Sequential",
    "Stream",
    "Tape",
    "register_layer",
]
