"""Scikit-learn estimators on windows of a series: regression and forecasts, classification, codes and anomalies.

Needs scikit-learn: ``pip install 'scikit-learn>=1.6'``. Each reads X (samples, window), the values of a series over a
window, or (samples, window, features); all work in a Pipeline and in GridSearchCV.
"""

try:
    import sklearn as _installed  # noqa: F401
except ImportError as _error:
    raise ImportError("fusedrnn.sklearn needs scikit-learn: pip install 'scikit-learn>=1.6'") from _error

from .. import threadpools  # noqa: F401 (what limits scikit-learn's threads limits ours)
from .autoencoder import SequenceAutoencoderTransformer
from .classifier import RecurrentClassifier
from .regressor import RecurrentRegressor

__all__ = ["RecurrentClassifier", "RecurrentRegressor", "SequenceAutoencoderTransformer"]
