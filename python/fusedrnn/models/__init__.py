"""The architectures: patterns of sequences in and out, encoder-decoder with attention, autoencoders, deep stacks.

Here are models made of layers, of any that answer the protocol; what models share; and how sentences are chosen.
Losses and the training loop are in ``training``.
"""

from ..layers import GaussianNoise
from .attention import Attention
from .bridge import Bridge
from .decoder import Decoder, shift_right
from .encoder_decoder import EncoderDecoder
from .heads import Heads
from .masked import Masked
from .residual import Residual
from .search import Generated
from .sequence_autoencoder import SequenceAutoencoder
from .sequence_to_sequence import SequenceToSequence
from .sequence_to_vector import SequenceToVector
from .stacked_autoencoder import StackedAutoencoder
from .vector_to_sequence import VectorToSequence

__all__ = [
    "Attention",
    "Bridge",
    "Decoder",
    "EncoderDecoder",
    "GaussianNoise",
    "Generated",
    "Heads",
    "Masked",
    "Residual",
    "SequenceAutoencoder",
    "SequenceToSequence",
    "SequenceToVector",
    "StackedAutoencoder",
    "VectorToSequence",
    "shift_right",
]


def __dir__() -> list[str]:
    return __all__
