"""Scikit-learn estimators on windows, sequences, texts and tables: regression and forecasts, classification, codes.

Needs scikit-learn: ``pip install 'scikit-learn>=1.6'``. X is windows of a series (samples, window) or (samples, window,
features), a list of sequences of unequal length, a list of texts, or a table with one row per time step. All work in a
Pipeline and in GridSearchCV.
"""

from __future__ import annotations

import os
from typing import Any

try:
    import sklearn as _installed  # noqa: F401
except ImportError as _error:
    raise ImportError("fusedrnn.sklearn needs scikit-learn: pip install 'scikit-learn>=1.6'") from _error

from .. import threadpools  # noqa: F401 (what limits scikit-learn's threads limits ours)
from .autoencoder import SequenceAutoencoderTransformer
from .classifier import RecurrentClassifier
from .files import load_as
from .regressor import RecurrentRegressor

__all__ = ["RecurrentClassifier", "RecurrentRegressor", "SequenceAutoencoderTransformer", "load"]


def __dir__() -> list[str]:
    return __all__


def load(path: str | os.PathLike[str]) -> Any:
    """Read an estimator that its ``save`` wrote. Nothing in the file is trusted, nothing is unpickled.

    Returns
    -------
    RecurrentRegressor, RecurrentClassifier or SequenceAutoencoderTransformer
        It predicts the same bits. A ``partial_fit`` goes on without the moments of the optimizer.

    Raises
    ------
    ValueError
        With the path and the reason, if the file is not whole and valid, or holds no estimator.
    OSError
        If the file cannot be read.
    """
    estimators = (RecurrentClassifier, RecurrentRegressor, SequenceAutoencoderTransformer)
    return load_as({each.__name__: each for each in estimators}, path)
