"""Layers: recurrent, dense, embedding, dropout, noise, and the composites of any others.

Here are the layers themselves, what all of them are (``base``), what each answers to those who put layers together
(``protocol``), and how a layer of any kind is called (``calling``). Architectures made of layers are in ``models``.
"""

from .activation import Activation
from .base import Layer, Tape
from .bidirectional import Bidirectional
from .cells import GRU, LSTM, RNN
from .dense import Linear
from .dropout import Dropout
from .embedding import Embedding
from .noise import GaussianNoise
from .protocol import LayerProtocol
from .quantization import quantize
from .recurrent import Recurrent
from .registry import register_layer
from .sequential import Sequential
from .states import StateSize
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
    "LayerProtocol",
    "Linear",
    "Recurrent",
    "Sequential",
    "StateSize",
    "Stream",
    "Tape",
    "quantize",
    "register_layer",
]


def __dir__() -> list[str]:
    return __all__
