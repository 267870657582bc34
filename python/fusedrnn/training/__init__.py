"""Losses, optimizers, schedules, callbacks and the loop that uses them."""

from . import schedules
from .averaging import AverageWeights
from .batching import bucketed_order
from .callbacks import Callback, LearningRate, Training
from .constraints import SpectralNormLimit
from .evaluation import evaluate, predict
from .fit import fit
from .gradients import clip_grad_norm, clip_grad_value
from .history import History
from .loggers import CSVLogger, TensorBoard
from .losses import (
    binary_cross_entropy,
    class_weights,
    cross_entropy,
    ctc,
    ctc_labels,
    huber,
    mae,
    mse,
    sequence_mask,
)
from .metrics import RunningMetrics, accuracy, mean_absolute_error, mean_squared_error, perplexity
from .monitors import Checkpoint, EarlyStopping, ReduceOnPlateau
from .optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from .sources import BatchSource

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AverageWeights",
    "BatchSource",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "LearningRate",
    "Optimizer",
    "RMSprop",
    "ReduceOnPlateau",
    "RunningMetrics",
    "SpectralNormLimit",
    "TensorBoard",
    "Training",
    "accuracy",
    "binary_cross_entropy",
    "bucketed_order",
    "class_weights",
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "ctc",
    "ctc_labels",
    "evaluate",
    "fit",
    "huber",
    "mae",
    "mean_absolute_error",
    "mean_squared_error",
    "mse",
    "perplexity",
    "predict",
    "schedules",
    "sequence_mask",
]


def __dir__() -> list[str]:
    return __all__
