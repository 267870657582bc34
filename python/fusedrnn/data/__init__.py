"""What stands between raw data and a model: scale, vocabulary, labels, windows of a series; saved in the model's file.

``model.preprocessing = {"text": vocabulary, "labels": labels}`` lets ``model.save`` write them into its file and
``fusedrnn.load`` bring them back, as JSON: nothing is unpickled.
"""

from ..arrays.lengths import pad_sequences
from .labels import Labels
from .preprocessor import Preprocessor
from .scaler import Scaler
from .vocabulary import Vocabulary
from .windows import windows

__all__ = ["Labels", "Preprocessor", "Scaler", "Vocabulary", "pad_sequences", "windows"]


def __dir__() -> list[str]:
    return __all__
