"""The architectures: patterns of sequences in and out, encoder-decoder with attention, autoencoders, deep stacks."""

from .attention import Attention
from .bridge import Bridge
from .decoder import Decoder
from .encoder_decoder import EncoderDecoder
from .noise import GaussianNoise
from .residual import Residual
from .search import Generated
from .sequence_autoencoder import SequenceAutoencoder
from .sequence_to_sequence import SequenceToSequence
from .sequence_to_vector import SequenceToVector
from .stacked_autoencoder import StackedAutoencoder
from .teacher import shift_right
from .vector_to_sequence import VectorToSequence

__all__ = [
    "Attention",
    "Bridge",
    "Decoder",
    "EncoderDecoder",
    "GaussianNoise",
    "Generated",
    "Residual",
    "SequenceAutoencoder",
    "SequenceToSequence",
    "SequenceToVector",
    "StackedAutoencoder",
    "VectorToSequence",
    "shift_right",
]
