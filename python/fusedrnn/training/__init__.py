"""Losses, optimizers, schedules, callbacks and the loop that uses them."""

from . import schedules
from .batches import BatchSource, bucketed_order
from .callbacks import Callback, Checkpoint, EarlyStopping, LearningRate, Training
from .clip import clip_grad_norm, clip_grad_value
from .constraints import SpectralNormLimit
from .fit import evaluate, fit
from .history import History
from .losses import binary_cross_entropy, class_weights, cross_entropy, huber, mae, mse, sequence_mask
from .metrics import RunningMetrics, accuracy, mean_absolute_error, perplexity
from .optimizer import Optimizer
from .optimizers import SGD, Adam, AdamW, RMSprop

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BatchSource",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "LearningRate",
    "Optimizer",
    "RMSprop",
    "RunningMetrics",
    "SpectralNormLimit",
    "Training",
    "accuracy",
    "binary_cross_entropy",
    "bucketed_order",
    "class_weights",
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "evaluate",
    "fit",
    "huber",
    "mae",
    "mean_absolute_error",
    "mse",
    "perplexity",
    "schedules",
    "sequence_mask",
]
